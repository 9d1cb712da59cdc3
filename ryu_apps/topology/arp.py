"""Who holds an address: hosts' questions answered (ARP, neighbour discovery), hosts asked for, and frames that wait."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from ryu_apps.effects import Effect, PacketOut
from ryu_apps.pacing import RateLimiter
from ryu_apps.rules import Match, PortId, bare, in_vlan, virtual_mac, vlan_of
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Frame
from ryu_apps.topology.state import TopologyState

Seconds = float

# One broadcast question a host and period is enough; its sender will ask again.
ASK_EVERY_S = 0.5
HOLD_S = 2.0
MAX_HELD = 256
# This many frames a second to one unknown place, then the switch drops them itself for a while.
DROP_AFTER = 20
DROP_S = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that came to the controller: where, what its heads say, and its bytes."""

    at: PortId
    frame: Frame
    data: bytes


class ArpResponder:
    """Answers in place of the hosts it knows, and asks for those it does not."""

    def __init__(self, topology: TopologyState) -> None:
        self._topology = topology
        self._limiter = RateLimiter()

    def answer(self, arrival: Arrival, virtual_ips: Container[str], now: Seconds) -> list[Effect]:
        """What follows from such a frame; whoever asks for a virtual IP is answered in its name."""
        at, frame, body = arrival.at, arrival.frame, arrival.frame.arp
        hosts = self._topology.hosts
        if body is None or body.operation == frames.REPLY or hosts.of_mac(frame.eth_dst) is not None:
            return self.forward(arrival)
        if body.operation != frames.REQUEST:
            return []
        if body.sender == body.target:
            # Told to all (RFC 5227, 3): who holds the address of a router now. Nobody takes a virtual IP this way.
            due = body.sender not in virtual_ips and self._limiter.due((at, body.sender), ASK_EVERY_S, now)
            return self._flood(at, arrival.data, now) if due else []
        if body.target in virtual_ips:
            return [PacketOut(at.dpid, (at.port,), frames.question_answer(body, virtual_mac(body.target), frame.vlan))]
        holder = hosts.of_address(in_vlan(body.target, self._topology.access.vlan(at, frame)))
        if holder is None:
            due = self._limiter.due(body.target, ASK_EVERY_S, now)
            return self._flood(at, arrival.data, now) if due else []
        # A neighbour behind the same port answers for itself; speaking for it would mislead the bridge there.
        if holder.at == at or holder.mac == body.sender_mac:
            return []
        return [PacketOut(at.dpid, (at.port,), frames.question_answer(body, holder.mac, frame.vlan))]

    def forward(self, arrival: Arrival) -> list[Effect]:
        """Sends a frame on to its host, when that is known and somewhere else."""
        vlan = self._topology.access.vlan(arrival.at, arrival.frame)
        host = self._topology.hosts.of_mac(arrival.frame.eth_dst, vlan)
        if host is None or host.at == arrival.at or host.at.dpid not in self._topology.connected:
            return []
        return [PacketOut(host.at.dpid, (host.at.port,), arrival.data)]

    def probe(self, address: str, now: Seconds) -> list[Effect]:
        """Asks everywhere who holds an address (`in_vlan`): with its tag, and without at access ports of that VLAN."""
        if not self._limiter.due(address, ASK_EVERY_S, now):
            return []
        vlan, plain = vlan_of(address), frames.question(bare(address))
        effects: list[Effect] = [
            PacketOut(at.dpid, (at.port,), plain)
            for at, number in self._topology.access.vlans.items()
            if vlan and number == vlan and at.dpid in self._topology.connected
        ]
        return effects + self._flood(None, frames.tagged(plain, vlan), now)

    def _flood(self, but: PortId | None, data: bytes, now: Seconds) -> list[Effect]:
        ports: dict[int, list[int]] = {}
        for at in self._topology.links.edges(now):
            if at != but and at.dpid in self._topology.connected:
                ports.setdefault(at.dpid, []).append(at.port)
        return [PacketOut(dpid, tuple(numbers), data) for dpid, numbers in ports.items()]


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A frame that waits for the host with `address`."""

    at: PortId
    data: bytes
    address: str
    until: Seconds


@dataclass(frozen=True, slots=True)
class DropPlace:
    """Frames of which kind, in which table of which switch."""

    dpid: int
    table: int
    match: Match


@dataclass(frozen=True, slots=True)
class DropRule:
    """Frames like this are dropped by a switch until then: their destination is nowhere."""

    place: DropPlace
    until: Seconds


@dataclass(slots=True)
class HeldFrames:
    """Bounded memory of held frames, and counts of those that keep coming; `revision` is of the drop rules."""

    held: list[HeldFrame] = field(default_factory=list)
    drop_rules: dict[DropPlace, DropRule] = field(default_factory=dict)
    revision: int = 0
    _counts: dict[DropPlace, tuple[int, Seconds]] = field(default_factory=dict)

    def hold(self, frame: HeldFrame) -> None:
        """Keeps a frame if there is room."""
        if len(self.held) < MAX_HELD:
            self.held.append(frame)

    def count(self, place: DropPlace, now: Seconds) -> None:
        """Counts a frame that cannot be delivered; a flood of them is dropped by the switch from now on."""
        number, since = self._counts.get(place, (0, now))
        number, since = (number + 1, since) if now - since < 1.0 else (1, now)
        self._counts[place] = number, since
        if number > DROP_AFTER and place not in self.drop_rules:
            self.drop_rules[place] = DropRule(place, now + DROP_S)
            self.revision += 1

    def release(self, known: Callable[[str], bool]) -> list[HeldFrame]:
        """Frames whose destination is known by now; they no longer wait, and nothing stays dropped."""
        ready = [frame for frame in self.held if known(frame.address)]
        self.held = [frame for frame in self.held if not known(frame.address)]
        self.revision += bool(self.drop_rules)
        self.drop_rules.clear()
        return ready

    def expire(self, now: Seconds) -> None:
        """Drops what has waited long enough."""
        self.held = [frame for frame in self.held if frame.until > now]
        self._counts = {place: count for place, count in self._counts.items() if now - count[1] < 1.0}
        alive = {place: rule for place, rule in self.drop_rules.items() if rule.until > now}
        self.revision += len(alive) != len(self.drop_rules)
        self.drop_rules = alive
