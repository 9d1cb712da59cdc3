"""Who may speak for an address: hosts are learnt from their frames, and whoever claims another's address is told of."""

from dataclasses import dataclass

from cpdb import Node
from ryu_apps.effects import Alert
from ryu_apps.rules import PortId, in_vlan
from ryu_apps.services.virtual_ips import Services
from ryu_apps.topology.frames import Frame
from ryu_apps.topology.hosts import LearnResult
from ryu_apps.topology.state import TopologyState

Seconds = float

# Names of alarms
SPOOFED, TAKEN = "spoofed_source", "address_taken"


@dataclass(frozen=True, slots=True)
class HostClaim:
    """What a frame taught of its sender: alarms, and whether somebody is somewhere new or has a new address."""

    alarms: tuple[Alert, ...] = ()
    is_news: bool = False


class AddressClaims:
    """Learns hosts from frames; an address stays with whom it is declared to be."""

    def __init__(self, topology: TopologyState, services: Services) -> None:
        self._topology, self._services = topology, services
        # MACs that are declared, by address, as of these nodes
        self._nodes: tuple[Node, ...] = ()
        self._macs: dict[str, str] = {}

    def declare(self, nodes: tuple[Node, ...]) -> None:
        """Nodes from the database."""
        if nodes is not self._nodes:
            self._nodes = nodes
            self._macs = {address: one.mac for one in nodes if one.mac for address in one.addresses}

    def learn(self, at: PortId, frame: Frame, now: Seconds) -> HostClaim:
        """Takes note of who sent a frame that came in at an edge."""
        if int(frame.eth_src[:2], 16) & 1 or frame.eth_src.startswith("f2:ea:"):
            return HostClaim()
        hosts, destinations = self._topology.hosts, self._services.destinations
        vlan = self._topology.access.vlan(at, frame)
        said = frame.speaker
        address = said and in_vlan(said, vlan)
        claimed = said if frame.arp else None
        if not destinations.conflicts.saw(frame.eth_src, claimed, at, now, self._topology.kind_at):
            # A destination's declared address stays with its declared MAC.
            address = None
        if said in self._services.virtual_ips:
            address = None
        if frame.arp is None and address and hosts.of_address(address) is not None:
            # A router forwards others' addresses; only ARP or neighbour discovery takes an address from its holder.
            address = None
        taken = self._taken(at, frame, address)
        if taken and self._owner(address) not in (None, frame.eth_src):
            # Declared to be another's: it stays there.
            address = None
        result = hosts.learn(frame.eth_src, address, at, now, vlan)
        self._topology.unverified.pop(address or "", None)
        return HostClaim(taken, result in (LearnResult.NEW, LearnResult.MOVED, LearnResult.ADDRESS))

    def _taken(self, at: PortId, frame: Frame, address: str | None) -> tuple[Alert, ...]:
        """An alarm when an address is claimed that has been another MAC's, at another port, or is declared to be."""
        holder = self._topology.hosts.of_address(address) if address else None
        owner = self._owner(address)
        if (holder is None or holder.mac == frame.eth_src or holder.at == at) and owner in (None, frame.eth_src):
            return ()
        before, name = owner or (holder.mac if holder else ""), self._topology.snapshot.directory.port(at)
        return (Alert(TAKEN, name, address or "", f"{frame.eth_src} at {name} claims {address}, which is {before}'s"),)

    def _owner(self, address: str | None) -> str | None:
        """The MAC that a [[node]] declares for an address."""
        return self._macs.get(address or "")

    def spoofed(self, at: PortId, frame: Frame, source: str) -> Alert | None:
        """What speaks for another's address: by another MAC, at another port than who claimed it by ARP or neighbour
        discovery.
        """
        holder = self._topology.hosts.of_address(source)
        if holder is None or holder.mac == frame.eth_src or holder.at == at:
            return None
        names = self._topology.snapshot.directory
        detail = f"{source} is {holder.mac} at {names.port(holder.at)}, and {frame.eth_src} sends as {source}"
        return Alert(SPOOFED, names.port(at), source, detail)
