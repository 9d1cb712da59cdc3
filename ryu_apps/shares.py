"""What one switch has to do with the world: its share of what is known of hosts, pairs, reservations and paths."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cpdb import Pair, is_ipv6
from ryu_apps.network import Network, counted_at
from ryu_apps.paths.next_hops import LabelShare
from ryu_apps.pipeline import FloodShare, PairShare, PlacingShare, Rewrite, Share
from ryu_apps.policers import Policer, ReservationEntry, police, reservation_entries
from ryu_apps.rules import PortId, in_vlan
from ryu_apps.services.buckets import Crowd
from ryu_apps.services.pairs import TrackedPair
from ryu_apps.topology.hosts import Host
from ryu_apps.topology.state import port_towards, spare_port

Seconds = float


@dataclass(frozen=True, slots=True)
class Limits:
    """All reservation_entries, and what follows from those whose source has been seen."""

    police: tuple[Policer, ...]
    entries: tuple[ReservationEntry, ...]


def limits(network: Network, now: Seconds) -> Limits:
    """What the alive reservations ask for, by address."""
    found = reservation_entries(network.declared.reservations, now)
    return Limits(tuple(police(found, lambda pair: source_addresses(network, pair))), tuple(found))


def source_addresses(network: Network, pair: Pair) -> tuple[str, ...]:
    """Addresses that a pair's source has in the family of its virtual IP; none while no switch has seen any.

    Who names a source by one of its addresses means that one alone.
    """
    directory = network.topology.snapshot.directory
    host = directory.host_of(pair.source, network.topology.hosts)
    known = {} if host is None else directory.names(host) | {one: (one,) for one in host.addresses}
    own = known.get(pair.source, ())
    return tuple(one for one in own if is_ipv6(one) == is_ipv6(pair.virtual_ip))


class PolicerTable:
    """`limits`, worked out anew only when a reservation, a host or a name has changed, or a lease has ended."""

    def __init__(self) -> None:
        self._made_from: tuple[object, ...] = ()
        self.until = float("-inf")
        self._limits = Limits((), ())

    def limits(self, network: Network, now: Seconds) -> Limits:
        """What the alive reservations ask for; the very same object while that is the same."""
        reservations = network.declared.reservations
        made_from = reservations, network.topology.snapshot.directory, network.topology.hosts.revision
        if now >= self.until or len(made_from) != len(self._made_from) or not _same(made_from, self._made_from):
            self._limits, self._made_from = limits(network, now), made_from
            self.until = min((one.expires_at for one in reservations if one.expires_at > now), default=float("inf"))
        return self._limits


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return all(a is b or (isinstance(a, int) and a == b) for a, b in zip(one, other, strict=True))


def share(network: Network, dpid: int, wanted: Limits) -> Share:
    """What switch `dpid` has to do."""
    topology, services, guest = network.topology, network.services, network.guest
    hosts = list(topology.hosts)
    forwarded = hosts if guest is None else ()
    names = _names(forwarded)
    ports = {names[host]: port_towards(topology, dpid, host) for host in forwarded}
    here = {host.mac: host.at.port for host in hosts if host.at.dpid == dpid}
    return Share(
        virtual_ips=tuple(sorted(services.virtual_ips)),
        ports={name: port for name, port in ports.items() if port is not None},
        spares={names[host]: port for host in forwarded if (port := spare_port(topology, dpid, host)) is not None},
        pairs=_pairs_here(network, dpid),
        drop_rules=tuple(rule for rule in network.held.drop_rules.values() if rule.place.dpid == dpid),
        police=tuple(policer for policer in wanted.police if _enters(network, policer, dpid)),
        placing=PlacingShare(
            # Only where somebody may open a connection
            spreads=tuple(services.destinations.spreads) if here else (),
            curious=not services.pairs.room.overfull,
            crowds=_crowds_here(network, dpid),
            sums_at=dpid if here and services.pairs.room.summing else None,
            attached=services.destinations.conflicts.attached(dpid, topology.hosts),
            asked=services.destinations.probed_by_tcp(),
            counted=counted_at(network, dpid),
        ),
        flood=_flooded_here(network, dpid, here),
        tagging=network.routes.tagging.get(dpid, LabelShare()),
        access={
            address: host.at.port
            for host in hosts
            if host.at in topology.access.vlans and host.vlan
            for address in host.addresses
        },
        guest=guest,
    )


def _crowds_here(network: Network, dpid: int) -> tuple[Crowd, ...]:
    room = network.services.pairs.room
    if room.overfull:
        return (Crowd(),)
    ports = sorted(Crowd(one.port) for one in room.crowded if isinstance(one, PortId) and one.dpid == dpid)
    sources = sorted(one for one in room.crowded if isinstance(one, str) and ingress(network, one) == dpid)
    return (*ports, *(Crowd(source=one) for one in sources))


def _pairs_here(network: Network, dpid: int) -> PairShare:
    pairs = list(network.services.pairs)
    steers = [steer for pair in pairs if (steer := _rewrite_towards(network, pair)) is not None]
    return PairShare(
        tuple((pair.source_address, pair.virtual_ip) for pair in pairs if _enters(network, pair, dpid)),
        tuple(steer for steer in steers if _enters(network, steer, dpid)),
        tuple(steer for steer in steers if _place(network, steer.destination_mac) == dpid),
    )


def _flooded_here(network: Network, dpid: int, here: Mapping[str, int]) -> FloodShare:
    held = network.held_ports.of(dpid)
    if network.guest is not None:
        return FloodShare(held=held)
    return FloodShare(network.flooding.ports(dpid), here, network.flooding.limit_kbit_s, held)


def _names(hosts: Iterable[Host]) -> dict[Host, str]:
    """What frames to each host are told by: its MAC, with its VLAN where the same MAC is somewhere else in another."""
    places: dict[str, set[PortId]] = {}
    for host in hosts:
        places.setdefault(host.mac, set()).add(host.at)
    return {host: in_vlan(host.mac, host.vlan) if len(places[host.mac]) > 1 else host.mac for host in hosts}


def access_port(network: Network, source_address: str) -> int | None:
    """The port that shows in which VLAN a source is; None where its tag does."""
    host = network.topology.hosts.of_address(source_address)
    return host.at.port if host is not None and host.vlan and host.at in network.topology.access.vlans else None


def ingress(network: Network, source_address: str) -> int | None:
    """The switch where a source's packets enter the network."""
    host = network.topology.hosts.of_address(source_address)
    return host.at.dpid if host else None


def _enters(network: Network, one: TrackedPair | Rewrite | Policer, dpid: int) -> bool:
    return ingress(network, one.source_address) == dpid


def _place(network: Network, mac: str) -> int | None:
    host = network.topology.hosts.of_mac(mac)
    return host.at.dpid if host else None


def _rewrite_towards(network: Network, pair: TrackedPair) -> Rewrite | None:
    to = pair.destination
    if to is None or _place(network, to.mac) is None:
        return None
    shared = network.services.tells_connections(to.address, ingress(network, pair.source_address))
    return Rewrite(pair.source_address, pair.virtual_ip, to.address, to.mac, shared)
