"""Which destinations get new connections: those that are wanted, answer, and are nobody else's double."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cpdb import Destination, NodeKind, Standing, VirtualIp
from ryu_apps.effects import Effect, Out
from ryu_apps.rules import PortId, virtual_mac
from ryu_apps.services.buckets import Spreads
from ryu_apps.services.conflicts import Conflicts
from ryu_apps.services.health import Health, Rules, Status, Target, targets_of
from ryu_apps.services.pairs import BY_CONNECTION
from ryu_apps.topology import frames
from ryu_apps.topology.frames import ACK, PROBE_PORT, RST, SYN, Frame, Segment
from ryu_apps.topology.hosts import Hosts

Seconds = float

# A source that always goes to one destination is taken elsewhere when that one has been down for so long.
LEFT_AFTER_S = 10.0
FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Word:
    """What is known of one destination of a virtual IP: up, down, frozen or unknown, and why."""

    virtual_ip: str
    name: str
    status: str
    detail: str
    # Kind of the alarm that goes with it, "" for none
    alarm: str = ""


class Destinations:
    """Health, conflicts and slots of all destinations."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.health = Health(rules)
        self.conflicts = Conflicts()
        self.spreads = Spreads()
        self._wanted: Mapping[str, VirtualIp] = {}
        self._pending: dict[Target, int] = {}
        self._by_mac: dict[str, list[Target]] = {}

    # ---- what is wanted

    def declare(self, wanted: Mapping[str, VirtualIp]) -> None:
        """The virtual IPs as the database has them, weights and standings included."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self.conflicts.follow((one.address, one.mac) for vip in wanted.values() for one in vip.destinations)
        self._by_mac = {}
        for target in self._targets():
            self._by_mac.setdefault(target.mac, []).append(target)

    def probed_by_tcp(self) -> tuple[str, ...]:
        """Virtual IPs in whose name services are asked whether they answer."""
        return tuple(sorted(address for address, vip in self._wanted.items() if vip.probe.startswith("tcp:")))

    def serving(self, now: Seconds) -> dict[str, VirtualIp]:
        """The virtual IPs with weight 0 for whoever gets nothing new at this moment."""
        found = {address: self._serving(vip, now) for address, vip in self._wanted.items()}
        self.spreads.update(found)
        return found

    def _serving(self, vip: VirtualIp, now: Seconds) -> VirtualIp:
        open_to = {one.name: self._open(vip, one) for one in vip.destinations}
        down = {one.name for one in vip.destinations if self._status(vip, one) is Status.DOWN}
        others = any(open_to[one.name] and one.weight and one.name not in down for one in vip.destinations)
        # When nobody answers, the questions may be what is wrong: then everyone stays.
        closed = down if others else set()
        left = {one.name for one in vip.destinations if one.name in closed and self._long_down(vip, one, now)}
        destinations = tuple(
            one if open_to[one.name] and one.name not in closed else replace(one, weight=0)
            for one in vip.destinations
            if one.name not in left or vip.affinity == BY_CONNECTION
        )
        return vip if destinations == vip.destinations else replace(vip, destinations=destinations)

    def _open(self, vip: VirtualIp, one: Destination) -> bool:
        """Whether its standing allows new connections; one that joins must have answered once."""
        if one.standing in (Standing.DRAINING, Standing.REMOVED) or self.conflicts.of(one.mac) is not None:
            return False
        return one.standing is not Standing.JOINING or all(self.health.ever_up(it) for it in _targets(vip, one))

    def _status(self, vip: VirtualIp, one: Destination) -> Status:
        return next((self.health.status(target) for target in _targets(vip, one)), Status.UNKNOWN)

    def _long_down(self, vip: VirtualIp, one: Destination, now: Seconds) -> bool:
        return any(self.health.down_for(target, now) > LEFT_AFTER_S for target in _targets(vip, one))

    # ---- asking

    def _targets(self) -> dict[Target, None]:
        # Whoever is on stand-by rests: it may be off, and that is nobody's trouble.
        return {
            target: None
            for vip in self._wanted.values()
            for one in vip.destinations
            if one.weight or one.standing is not Standing.SERVING
            for target in _targets(vip, one)
        }

    def tick(self, hosts: Hosts, kind_at: Callable[[PortId], NodeKind | None], now: Seconds) -> list[Effect]:
        """Questions that are due."""
        self.conflicts.heal(now, kind_at)
        targets = self._targets()
        reachable = {one for one in targets if hosts.of_mac(one.mac) is not None}
        asked = self.health.due(targets, reachable, now)
        effects: list[Effect] = [self._question(one, hosts, now) for one in asked if one in reachable]
        for one in self.conflicts.questions(now):
            address = next((target.address for target in self._by_mac.get(one.mac, ())), None)
            if address is not None:
                effects.append(Out(one.at.dpid, (one.at.port,), frames.arp_probe(address)))
        return effects

    def _question(self, target: Target, hosts: Hosts, now: Seconds) -> Effect:
        host = hosts.of_mac(target.mac)
        assert host is not None
        if target.port is None:
            data = frames.arp_probe(target.address, target.mac)
        else:
            sequence = self._pending[target] = int(now * 1000) & 0xFFFFFFFF
            syn = Segment(target.virtual_ip, PROBE_PORT, target.address, target.port, sequence, 0, SYN)
            data = frames.probe_frame(syn, virtual_mac(target.virtual_ip), target.mac)
        return Out(host.at.dpid, (host.at.port,), data)

    # ---- hearing

    def heard(self, at: PortId, frame: Frame, data: bytes, now: Seconds) -> list[Effect] | None:
        """Takes an answer to a question; None when the frame is something else."""
        if frame.arp is not None:
            self._heard_arp(frame, now)
            return None
        if frame.ipv4_dst not in self._wanted:
            return None
        segment = frames.read_segment(data)
        if segment is None or segment.to_port != PROBE_PORT:
            return None
        target = Target(segment.source, frame.eth_src, segment.source_port, segment.to)
        sequence = self._pending.pop(target, None)
        if sequence is None or segment.acknowledged != (sequence + 1) & 0xFFFFFFFF:
            return []
        well = bool(segment.flags & SYN) and not segment.flags & RST
        self.health.answered(target, well, now)
        if not well:
            return []
        reset = Segment(segment.to, PROBE_PORT, segment.source, segment.source_port, segment.acknowledged, 0, RST | ACK)
        reset = replace(reset, acknowledged=(segment.sequence + 1) & 0xFFFFFFFF)
        return [Out(at.dpid, (at.port,), frames.probe_frame(reset, frame.eth_dst, frame.eth_src))]

    def _heard_arp(self, frame: Frame, now: Seconds) -> None:
        assert frame.arp is not None
        for target in self._by_mac.get(frame.arp.sender_mac, ()):
            if target.port is None and target.address == frame.arp.sender:
                self.health.answered(target, True, now)

    # ---- telling

    def words(self) -> list[Word]:
        """What is known of every destination."""
        return [self.word(vip, one) for vip in self._wanted.values() for one in vip.destinations]

    def word(self, vip: VirtualIp, one: Destination) -> Word:
        """What is known of one destination."""
        conflict = self.conflicts.of(one.mac)
        if conflict is not None:
            return Word(vip.address, one.name, FROZEN, conflict.detail, conflict.kind)
        status, way = self._status(vip, one), "by ARP" if vip.probe == "arp" else f"by {vip.probe}"
        if vip.probe == "none":
            return Word(vip.address, one.name, Status.UNKNOWN, "is not asked (probe = none)")
        if not one.weight and one.standing is Standing.SERVING:
            return Word(vip.address, one.name, Status.UNKNOWN, "on stand-by, is not asked")
        told = {Status.UP: "answers", Status.DOWN: "does not answer", Status.UNKNOWN: "has not answered yet"}
        return Word(vip.address, one.name, status, f"{told[status]} {way}")


def _targets(vip: VirtualIp, one: Destination) -> list[Target]:
    return targets_of(vip.probe, vip.address, [(one.address, one.mac)])
