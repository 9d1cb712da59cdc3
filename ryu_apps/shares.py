"""Cuts the whole network's state into what each single switch has to do."""

from dataclasses import dataclass

from ryu_apps.network import Network
from ryu_apps.paths.splits import LabelShare
from ryu_apps.pipeline import Rewrite, Share
from ryu_apps.policers import Policer, ReservationEntry, police, reservation_entries
from ryu_apps.services.pairs import TrackedPair
from ryu_apps.topology.state import port_towards, spare_port

Seconds = float


@dataclass(frozen=True, slots=True)
class Limits:
    """All reservation_entries, and what follows from those whose source has been seen."""

    police: tuple[Policer, ...]
    entries: tuple[ReservationEntry, ...]


def limits(network: Network, now: Seconds) -> Limits:
    """What the alive reservations ask for, by address."""

    def address(name: str) -> str | None:
        known = network.topology.snapshot.directory.address(name) or name
        return known if network.topology.hosts.of_address(known) is not None else None

    found = reservation_entries(network.declared.reservations, now)
    return Limits(tuple(police(found, address)), tuple(found))


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
    topology, services, hosts = network.topology, network.services, list(network.topology.hosts)
    ports = {host.mac: port_towards(topology, dpid, host) for host in hosts}
    pairs = list(services.pairs)
    steers = [steer for pair in pairs if (steer := _steer(network, pair)) is not None]
    return Share(
        virtual_ips=tuple(sorted(services.virtual_ips)),
        ports={mac: port for mac, port in ports.items() if port is not None},
        spares={host.mac: port for host in hosts if (port := spare_port(topology, dpid, host)) is not None},
        accounts=tuple(
            (pair.source_address, pair.virtual_ip) for pair in pairs if ingress(network, pair.source_address) == dpid
        ),
        towards=tuple(steer for steer in steers if ingress(network, steer.source_address) == dpid),
        back=tuple(steer for steer in steers if _place(network, steer.destination_mac) == dpid),
        drop_rules=tuple(rule for rule in network.held.drop_rules.values() if rule.place.dpid == dpid),
        police=tuple(policer for policer in wanted.police if ingress(network, policer.source_address) == dpid),
        # Only where somebody may open a connection
        spreads=tuple(services.destinations.spreads) if any(host.at.dpid == dpid for host in hosts) else (),
        curious=not services.pairs.full,
        asked=services.destinations.probed_by_tcp(),
        tagging=network.routes.tagging.get(dpid, LabelShare()),
    )


def ingress(network: Network, source_address: str) -> int | None:
    """The switch where a source's packets enter the network."""
    host = network.topology.hosts.of_address(source_address)
    return host.at.dpid if host else None


def _place(network: Network, mac: str) -> int | None:
    host = network.topology.hosts.of_mac(mac)
    return host.at.dpid if host else None


def _steer(network: Network, pair: TrackedPair) -> Rewrite | None:
    to = pair.destination
    if to is None or _place(network, to.mac) is None:
        return None
    return Rewrite(pair.source_address, pair.virtual_ip, to.address, to.mac)
