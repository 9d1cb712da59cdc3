"""Who says to be where: an address, a MAC, a dpid or a port of a switch belongs to one thing of the network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cpdb import is_ipv6
from ryu_apps import virtual_mac


@dataclass(frozen=True, slots=True)
class Claim:
    """`where` it is said that the machine `name` has this address and MAC; `service` is the virtual IP it is behind."""

    where: str
    name: str
    address: str | None
    mac: str | None
    service: str | None = None


def place_problems(claims: Sequence[Claim], services: Mapping[str, str]) -> Iterator[str]:
    """One line for each claim that cannot be true; `services` are the virtual IPs: address -> name."""
    addresses: dict[str | None, str] = {name: address for address, name in services.items()}
    virtual_macs = {virtual_mac(address): name for address, name in services.items()}
    address_of: dict[tuple[str, str | None], str] = {}
    name_of: dict[tuple[str, str], Claim] = {}
    for one in claims:
        if one.address is not None and one.address in services:
            yield _is_service(one, services[one.address])
        if one.address is not None and one.service in addresses:
            yield from mixed_families(one.where, one.address, addresses[one.service])
        if one.mac in virtual_macs:
            yield f"{one.where}: {one.mac} is the MAC with which virtual IP {virtual_macs[one.mac]} answers"
        if one.service is not None and (one.name, one.service) in address_of:
            yield f"{one.where}: is there twice; give each destination a name of its own"
        if one.service is not None:
            address_of[one.name, one.service] = one.where
        for kind, value in (("address", one.address), ("MAC", one.mac)):
            other = name_of.setdefault((kind, value), one) if value is not None else one
            if other.name != one.name:
                yield f"{one.where}: has the {kind} {value}, which is {other.name}'s; give each machine its own"
            elif _other_place(kind, one, other):
                yield f"{one.where}: address {one.address} has MAC {one.mac} here and {other.mac} in {other.where}"


def mixed_families(where: str, address: str, virtual_ip: str) -> Iterator[str]:
    """A line when a machine cannot serve a virtual IP of the other family: nothing translates between them."""
    one, other = ("IPv6" if is_ipv6(end) else "IPv4" for end in (address, virtual_ip))
    if one != other:
        why = f"{address} is {one}, and the virtual IP {virtual_ip} is {other}"
        yield f"{where}: {why}; give the machine's {other} address"


def _other_place(kind: str, one: Claim, other: Claim) -> bool:
    return kind == "address" and None not in (one.mac, other.mac) and one.mac != other.mac


def _is_service(one: Claim, name: str) -> str:
    if one.service == name:
        return f"{one.where}: {one.address} is the virtual IP itself; give the destination's own address"
    return f"{one.where}: {one.address} is virtual IP {name}; give the machine's own address"


def named_twice(table: str, names: Iterable[tuple[str, str]], mend: str) -> Iterator[str]:
    """A line for each value (name, value) that two names of a table share."""
    first: dict[str, str] = {}
    for name, value in names:
        if (other := first.setdefault(value, name)) != name:
            yield f"{table} {name!r}: {value} is taken by {other!r}; {mend}"


def link_problems(links: Iterable[tuple[str, str, int, int]]) -> Iterator[str]:
    """Links (a, b, port of a, port of b) that lead nowhere, are there twice, or share a switch's port."""
    known: set[frozenset[str]] = set()
    ports: dict[tuple[str, int], str] = {}
    for a, b, a_port, b_port in links:
        where = f"{a}>{b}"
        if a == b:
            yield f"link {where}: leads from {a} to itself"
        elif frozenset((a, b)) in known:
            yield f"link {where}: is there twice; between two nodes there is one link, with the capacity of all"
        known.add(frozenset((a, b)))
        for end, port in ((a, a_port), (b, b_port)):
            if port and (other := ports.setdefault((end, port), where)) != where:
                yield f"link {where}: port {port} of {end} is taken by link {other}"
