"""IPv4 and IPv6 in rules: which packets are from and to an address, and which ask for it, decided in this one place."""

from typing import Any

from cpdb import is_ipv6
from ryu_apps.rules import ETH_ARP, ETH_IPV4, ETH_IPV6, NEIGHBOUR_SOLICITATION, PROTO_ICMPV6, Match


def match_ip(source: str | None = None, to: str | None = None, **more: Any) -> Match:
    """IP packets from and to these addresses or prefixes, of the family that they have."""
    return Match(eth_type=eth_type_of(source or to or ""), ip_src=source, ip_dst=to, **more)


def match_question(address: str) -> Match:
    """Questions who holds an address: ARP requests, or neighbour solicitations."""
    if not is_ipv6(address):
        return Match(eth_type=ETH_ARP, question_for=address)
    kind = NEIGHBOUR_SOLICITATION
    return Match(eth_type=ETH_IPV6, ip_proto=PROTO_ICMPV6, question_for=address, message_type=kind)


def eth_type_of(address: str) -> int:
    """The Ethertype of packets with such an address."""
    return ETH_IPV6 if is_ipv6(address) else ETH_IPV4
