"""What the controller learnt about nodes and links, as records for the inventory: only what is news."""

from dataclasses import replace

from cpdb import Link, Node, NodeKind, Publisher
from ryu_apps.network import Network

Seconds = float


def nodes(network: Network) -> list[Node]:
    """All connected switches, and all hosts with the place where each is."""
    directory = network.topology.snapshot.directory
    switches = [Node(directory.switch(dpid), NodeKind.SWITCH, dpid=dpid) for dpid in sorted(network.topology.connected)]
    hosts = []
    for host in network.topology.hosts:
        name = directory.host(host.address, host.mac)
        place = directory.switch(host.at.dpid)
        hosts.append(
            Node(name, directory.kind(name), host.address, host.mac, None, place, host.at.port, last_seen=host.seen)
        )
    return switches + hosts


def links(network: Network) -> list[Link]:
    """Links between switches, and from switches to declared machines, with their state."""
    snapshot, ports = network.topology.snapshot, network.topology.links.ports
    machines = [
        Link(snapshot.directory.switch(at.dpid), at.port, machine, 0, None, ports[at].up)
        for at, machine in snapshot.machines.items()
        if at in ports
    ]
    return network.topology.link_records(snapshot.directory) + machines


class Census:
    """What was written of nodes and links, so that each fact is written once."""

    def __init__(self) -> None:
        self._nodes: Publisher[str, Node] = Publisher()
        self._links: Publisher[tuple[str, str], Link] = Publisher()

    def news(self, network: Network, now: Seconds) -> list[Node | Link]:
        """Records that differ from those of last time."""
        current = {node.name: node if node.last_seen else self._seen(node, now) for node in nodes(network)}
        written = self._nodes.publish(current, now).said
        joined = self._links.publish({(link.a, link.b): link for link in links(network)}, now).said
        return [*written.values(), *joined.values()]

    def _seen(self, node: Node, now: Seconds) -> Node:
        before = self._nodes.said(node.name)
        return replace(node, last_seen=before.last_seen if before and before.last_seen else now)
