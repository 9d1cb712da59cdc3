"""All that is told to the database about how things are, and none of it computed while nothing is news."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from cpdb import Alarm, Link, Node, NodeKind, ObservedRecord, Publisher, ReservationReport, SplitReport, WeightsReport
from ryu_apps.network import Network
from ryu_apps.status.alarms import AlarmLog
from ryu_apps.status.answers import NOWHERE, ReservationPublisher, SplitPublisher, WeightsPublisher
from ryu_apps.status.destinations import AGAIN_S, Countable, HealthPublisher, LiveCountPublisher
from ryu_apps.switches import Switches

Seconds = float
Told = Node | Link | ObservedRecord | Alarm
Row = TypeVar("Row", bound=Told)


def node_records(network: Network) -> list[Node]:
    """All connected switches, and all hosts with the place where each is."""
    directory = network.topology.snapshot.directory
    switches = [Node(directory.switch(dpid), NodeKind.SWITCH, dpid=dpid) for dpid in sorted(network.topology.connected)]
    hosts = []
    for host in network.topology.hosts:
        place = directory.switch(host.at.dpid)
        for name, own in directory.names(host).items():
            kind, (address, address6) = directory.kind(name), directory.addresses_of(name, own)
            at = host.at.port
            hosts.append(Node(name, kind, address, host.mac, None, place, at, last_seen=host.seen, address6=address6))
    return switches + hosts


def all_link_records(network: Network) -> list[Link]:
    """Links between switches, and from switches to declared machines, with their state."""
    snapshot, ports = network.topology.snapshot, network.topology.links.ports
    machines = [
        Link(snapshot.directory.switch(at.dpid), at.port, machine, 0, None, ports[at].up)
        for at, machine in snapshot.machines.items()
        if at in ports
    ]
    return network.topology.link_records(snapshot.directory) + machines


class InventoryPublisher:
    """What was written of nodes and links, so that each fact is written once."""

    def __init__(self) -> None:
        self._nodes: Publisher[str, Node] = Publisher()
        self._links: Publisher[tuple[str, str], Link] = Publisher()

    def news(self, network: Network, now: Seconds) -> list[Node | Link]:
        """Records that differ from those of last time."""
        current = {node.name: node if node.last_seen else self._seen(node, now) for node in node_records(network)}
        written = self._nodes.publish(current, now).said
        joined = self._links.publish({(link.a, link.b): link for link in all_link_records(network)}, now).said
        return [*written.values(), *joined.values()]

    def _seen(self, node: Node, now: Seconds) -> Node:
        before = self._nodes.said(node.name)
        return replace(node, last_seen=before.last_seen if before and before.last_seen else now)


def _subjects(row: Told, sources: Mapping[str, str]) -> set[str]:
    """Names of the switches, hosts and destinations that a row is about."""
    match row:
        case Node():
            return {row.attached_to or row.name}
        case Link():
            return {row.a, row.b}
        case ReservationReport():
            return {sources.get(row.key, row.node) if row.node == NOWHERE else row.node}
        case SplitReport():
            return {row.node}
        case _:
            # Of a destination: virtual IP and name
            return {(row.key if isinstance(row, Alarm) else row.to_row().key).rpartition("/")[2]}


class Status:
    """Publishers of answers to what is wanted, of the inventory, of destinations, and of alarms."""

    def __init__(
        self, network: Network, switches: Switches, is_elsewhere: Callable[[int | None], bool] = lambda _dpid: False
    ) -> None:
        """`is_elsewhere(dpid)`: whether another controller tells what is at that switch, or (None) at nobody's."""
        self.alarms = AlarmLog()
        self._is_elsewhere = is_elsewhere
        self.begin_anew(network, switches)

    def begin_anew(self, network: Network, switches: Switches) -> None:
        """Everything is told once more: another controller may have told otherwise meanwhile."""
        self.live = LiveCountPublisher()
        self._network, self._switches = network, switches
        self._reservations = ReservationPublisher()
        self._splits = SplitPublisher()
        self._weights = WeightsPublisher()
        self._inventory = InventoryPublisher()
        self._destinations = HealthPublisher()
        # What was told last, by revisions
        self._answered: tuple[int, ...] = ()
        self._told: tuple[int, ...] = ()
        self._confirm_at = float("-inf")

    def answers(self, now: Seconds) -> list[ObservedRecord]:
        """What became of reservations, splits and weights since last time."""
        revisions = self._network.revision, self._switches.revision, self._network.declared_revision
        if revisions == self._answered:
            return []
        self._answered = revisions
        network, switches = self._network, self._switches
        wanted = switches.policers.limits(network, now)
        rows: list[ObservedRecord] = [*self._reservations.news(network, switches.sessions, wanted, now)]
        rows += self._splits.news(network, switches.why_not, now)
        rows += self._weights.news(network, switches.sessions, now)
        return self._own(rows)

    def news(self, now: Seconds) -> list[Node | Link | ObservedRecord | Alarm]:
        """Nodes, links and destinations that are not as they were told last."""
        network, services = self._network, self._network.services
        revisions = network.topology.revision, network.topology.hosts.seen_revision, services.revision
        rows: list[Node | Link | ObservedRecord | Alarm] = []
        if revisions != self._told or now >= self._confirm_at:
            self._told, self._confirm_at = revisions, now + AGAIN_S / 2
            rows += self._inventory.news(network, now)
            rows += self._destinations.news(services.destinations.words(), now)
        rows += self.live.news(network.declared.virtual_ips.values(), services.pairs, now)
        return self._own(rows)

    def _own(self, rows: Iterable[Row]) -> list[Row]:
        """What no other controller tells: it is about a switch of this one, or about somebody who is there."""
        return [row for row in rows if not all(map(self._is_elsewhere, self._places(row)))]

    def _places(self, row: Told) -> set[int | None]:
        declared, directory = self._network.declared, self._network.topology.snapshot.directory
        names = _subjects(row, {one.key: one.pair.source for one in declared.reservations})
        if isinstance(row, WeightsReport) and row.key in declared.virtual_ips:
            names = {one.name for one in declared.virtual_ips[row.key].destinations}
        at = {node.name: node.attached_to for node in declared.nodes if node.name in names and node.attached_to}
        return {directory.dpid(at.get(name, name)) for name in names} or {None}

    def ask_counts(self, wires: Mapping[int, Countable], now: Seconds) -> None:
        """Asks what draining destinations still hold, when it is time."""
        self.live.ask(self._network.declared.virtual_ips.values(), wires, now)
