"""What the controller learnt about nodes and links, as records for the inventory: only what is news."""

from dataclasses import replace

from cpdb import Link, Node, NodeKind
from ryu_apps.network import Network

Seconds = float


def nodes(network: Network) -> list[Node]:
    """All connected switches, and all hosts with the place where each is."""
    directory = network.picture.directory
    switches = [Node(directory.switch(dpid), NodeKind.SWITCH, dpid=dpid) for dpid in sorted(network.connected)]
    hosts = []
    for host in network.hosts:
        name = directory.host(host.address, host.mac)
        place = directory.switch(host.at.dpid)
        hosts.append(
            Node(name, directory.kind(name), host.address, host.mac, None, place, host.at.port, last_seen=host.seen)
        )
    return switches + hosts


def links(network: Network) -> list[Link]:
    """Links between switches, and from switches to declared machines, with their state."""
    picture, wiring = network.picture, network.wiring
    machines = [
        Link(picture.directory.switch(at.dpid), at.port, machine, 0, None, wiring.ports[at].up)
        for at, machine in picture.machines.items()
        if at in wiring.ports
    ]
    return network.links(picture.directory) + machines


class Census:
    """Remembers what was written, so that each fact is written once."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._links: dict[tuple[str, str], Link] = {}

    def news(self, network: Network, now: Seconds) -> list[Node | Link]:
        """Records that differ from those of last time."""
        found: list[Node | Link] = []
        for node in nodes(network):
            node = node if node.last_seen else replace(node, last_seen=self._seen(node, now))
            if self._nodes.get(node.name) != node:
                self._nodes[node.name] = node
                found.append(node)
        for link in links(network):
            if self._links.get((link.a, link.b)) != link:
                self._links[link.a, link.b] = link
                found.append(link)
        return found

    def _seen(self, node: Node, now: Seconds) -> Seconds:
        known = self._nodes.get(node.name)
        return known.last_seen if known and known.last_seen else now
