"""Which destinations get new connections: those that are wanted, answer, and are nobody else's double."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cpdb import Destination, DestinationHealth, HealthStatus, NodeKind, Standing, VirtualIp
from ryu_apps.effects import Alert, Effect, PacketOut
from ryu_apps.rules import PortId, Rule, virtual_mac
from ryu_apps.services.buckets import BucketPlacements
from ryu_apps.services.conflicts import Conflicts
from ryu_apps.services.evidence import DestinationEvidence
from ryu_apps.services.exchange import Exchange, HttpCheck
from ryu_apps.services.health import Health, ProbeTarget, port_of, targets_of
from ryu_apps.services.pairs import Pairs, TrackedPair
from ryu_apps.settings import ProbesSection
from ryu_apps.topology import frames
from ryu_apps.topology.frames import PROBE_PORT, SYN, Frame, Segment
from ryu_apps.topology.hosts import HostTable

Seconds = float

NOT_PROBED = DestinationHealth()
ANSWERS = {
    HealthStatus.UP: "answers",
    HealthStatus.DOWN: "does not answer",
    HealthStatus.UNKNOWN: "has not answered yet",
}
# Questions drown in a short flood; a service that nobody answers for is silent for longer.
SILENT_FOR_S = 10.0
NOBODY_ANSWERS = Alert(
    "nobody_answers", "", "", "none of its destinations answers: all keep what they had; start one, or mend the probe"
)

ANSWERS_MIXED = Alert(
    "answers_mixed",
    "",
    "",
    "this source uses this destination by two virtual IPs, and its switch cannot tell their answers apart: all come "
    "from one of them; give each virtual IP destinations of its own, or use a switch with Open vSwitch's extensions",
)


@dataclass(frozen=True, slots=True)
class DestinationCondition:
    """What is known of one destination of a virtual IP: up, down, frozen or unknown, and why."""

    virtual_ip: str
    name: str
    health: DestinationHealth
    detail: str
    # Kind of the alarm that goes with it, "" for none
    alarm: str = ""


class Destinations:
    """Health, conflicts and hash buckets of all destinations."""

    def __init__(self, probes: ProbesSection | None = None) -> None:
        self.health = Health(probes)
        self._leave_after_s = (probes or ProbesSection()).leave_after_s
        self.conflicts = Conflicts()
        self.spreads = BucketPlacements()
        self._wanted: Mapping[str, VirtualIp] = {}
        # Questions on connections, by whom they are asked and as whom
        self._pending: dict[ProbeTarget, tuple[ProbeTarget, Exchange]] = {}
        self._by_mac: dict[str, list[ProbeTarget]] = {}
        self.targets: dict[ProbeTarget, None] = {}
        self._declared = 0
        self.evidence = DestinationEvidence(self.health)
        # Until when nobody is left by the mere passing of time
        self.due = float("inf")

    @property
    def revision(self) -> int:
        """Another number whenever what is wanted, known or placed has changed."""
        return self._declared + self.health.revision + self.conflicts.revision + self.spreads.revision

    # ---- what is wanted

    def declare(self, wanted: Mapping[str, VirtualIp]) -> None:
        """The virtual IPs as the database has them, weights and standings included."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._declared += 1
        self.conflicts.follow((one.address, one.mac) for vip in wanted.values() for one in vip.destinations)
        self._by_mac, self.targets = {}, _find_targets(wanted.values())
        for target in self.targets:
            self._by_mac.setdefault(target.mac, []).append(target)
        self.evidence.follow(self._by_mac, wanted.values())

    def probed_by_tcp(self) -> tuple[str, ...]:
        """Virtual IPs in whose name services are asked whether they answer."""
        return tuple(sorted(address for address, vip in self._wanted.items() if port_of(vip.probe) is not None))

    def serving(self, now: Seconds, overfull: bool = False) -> dict[str, VirtualIp]:
        """The virtual IPs with weight 0 for whoever gets nothing new at this moment.

        While there is no room for another pair (`overfull`), who is none is placed connection by connection.
        """
        self.due = float("inf")
        serving = {address: self._serving(vip, now) for address, vip in self._wanted.items()}
        self.spreads.update(serving, overfull)
        return serving

    def _serving(self, vip: VirtualIp, now: Seconds) -> VirtualIp:
        health = {item.name: self._health(vip, item) for item in vip.destinations}
        eligible = {item.name for item in vip.eligible({}, health)}
        answered = any(health[name].status is not HealthStatus.DOWN for name in eligible)
        left = {item.name for item in vip.destinations if answered and self._long_down(vip, item, now)}
        destinations = tuple(
            item if item.name in eligible else replace(item, weight=0)
            for item in vip.destinations
            if item.name not in left
        )
        return vip if destinations == vip.destinations else replace(vip, destinations=destinations)

    def _health(self, vip: VirtualIp, item: Destination) -> DestinationHealth:
        answered = any(self.health.ever_up(target) for target in _targets(vip, item))
        if self.conflicts.of(item.mac) is not None:
            return DestinationHealth(HealthStatus.FROZEN, answered)
        return DestinationHealth(self._status(vip, item), answered)

    def _status(self, vip: VirtualIp, one: Destination) -> HealthStatus:
        return next((self.health.status(target) for target in _targets(vip, one)), HealthStatus.UNKNOWN)

    def _long_down(self, vip: VirtualIp, one: Destination, now: Seconds) -> bool:
        down_s = max((self.health.down_for(target, now) for target in _targets(vip, one)), default=0.0)
        if down_s <= self._leave_after_s and (down_s or self._status(vip, one) is HealthStatus.DOWN):
            self.due = min(self.due, now + self._leave_after_s - down_s)
        return down_s > self._leave_after_s

    # ---- asking

    def tick(self, hosts: HostTable, kind_at: Callable[[PortId], NodeKind | None], now: Seconds) -> list[Effect]:
        """Questions that are due."""
        self.conflicts.heal(now, kind_at)
        effects: list[Effect] = []
        if self.health.anybody_due(self.targets, now):
            reachable = {target for target in self.targets if hosts.of_mac(target.mac) is not None}
            asked = self.health.due(self.targets, reachable, now)
            effects += [one for target in asked if target in reachable for one in self._question(target, hosts, now)]
        for one in self.conflicts.questions(now):
            address = next((target.address for target in self._by_mac.get(one.mac, ())), None)
            if address is not None:
                effects.append(PacketOut(one.at.dpid, (one.at.port,), frames.question(address)))
        return effects

    def _question(self, target: ProbeTarget, hosts: HostTable, now: Seconds) -> Iterator[Effect]:
        host = hosts.of_mac(target.mac)
        assert host is not None
        if target.port is None:
            yield PacketOut(host.at.dpid, (host.at.port,), frames.question(target.address, target.mac))
            return
        number, key = int(now * 1000) & 0xFFFFFFFF, target._replace(http="")
        opening = Segment(target.virtual_ip, PROBE_PORT, target.address, target.port, number, 0, SYN)
        _, before = self._pending.get(key, (target, None))
        check = HttpCheck.parse(target.http) if target.http else None
        self._pending[key] = target, Exchange(opening, check)
        for segment in (before.abandon() if before is not None else None, opening):
            if segment is not None:
                data = frames.probe_frame(segment, virtual_mac(target.virtual_ip), target.mac)
                yield PacketOut(host.at.dpid, (host.at.port,), data)

    # ---- hearing

    def heard(self, at: PortId, frame: Frame, data: bytes, now: Seconds) -> list[Effect] | None:
        """Takes an answer to a question; None when the frame is something else."""
        if frame.arp is not None:
            self._heard_arp(frame, now)
            return None
        if frame.ip_dst not in self._wanted:
            return None
        segment = frames.read_segment(data)
        if segment is None or segment.to_port != PROBE_PORT:
            return None
        key = ProbeTarget(segment.source, frame.eth_src, segment.source_port, segment.to)
        target, exchange = self._pending.get(key, (key, None))
        if exchange is None:
            return []
        well, reply = exchange.hear(segment)
        if well is not None:
            del self._pending[key]
            self.health.answered(target, well, now)
        if reply is None:
            return []
        return [PacketOut(at.dpid, (at.port,), frames.probe_frame(reply, frame.eth_dst, frame.eth_src))]

    def _heard_arp(self, frame: Frame, now: Seconds) -> None:
        assert frame.arp is not None
        for target in self._by_mac.get(frame.arp.sender_mac, ()):
            if target.port is None and target.address == frame.arp.sender:
                self.health.answered(target, True, now)

    # ---- telling

    def words(self) -> list[DestinationCondition]:
        """What is known of every destination."""
        return [self.word(vip, one) for vip in self._wanted.values() for one in vip.destinations]

    def word(self, vip: VirtualIp, one: Destination) -> DestinationCondition:
        """What is known of one destination."""
        health = self._health(vip, one)
        conflict = self.conflicts.of(one.mac)
        if conflict is not None:
            return DestinationCondition(vip.address, one.name, health, conflict.detail, conflict.kind)
        if vip.probe == "none":
            return DestinationCondition(vip.address, one.name, NOT_PROBED, "is not asked (probe = none)")
        if not one.weight and one.standing is Standing.SERVING:
            return DestinationCondition(vip.address, one.name, NOT_PROBED, "on stand-by, is not asked")
        way = "by ARP" if vip.probe == "arp" else f"by {vip.probe}"
        return DestinationCondition(vip.address, one.name, health, f"{ANSWERS[health.status]} {way}")


class Services:
    """Virtual IPs as they serve now, and the pairs that use them."""

    def __init__(self, pairs: Pairs, probes: ProbesSection | None = None) -> None:
        self.destinations = Destinations(probes)
        self.pairs = pairs
        # Weights are as wanted for whoever is well, and 0 for whoever gets nothing new now.
        self.virtual_ips: Mapping[str, VirtualIp] = {}
        # Addresses of destinations behind several virtual IPs
        self.shared_addresses: frozenset[str] = frozenset()
        # Switches that cannot place connections
        self.unplacing: Collection[int] = ()
        self._served = -1, False
        self._changes = 0

    @property
    def revision(self) -> int:
        """Another number whenever the rules of a switch may have to change."""
        return self._changes + self.destinations.revision + self.pairs.revision

    def declare(self, virtual_ips: Mapping[str, VirtualIp], now: Seconds) -> None:
        """The virtual IPs as the database has them."""
        self.destinations.declare(virtual_ips)
        behind = Counter(one for vip in virtual_ips.values() for one in {to.address for to in vip.destinations})
        self.shared_addresses = frozenset(address for address, count in behind.items() if count > 1)
        self._serve(now)

    def _serve(self, now: Seconds) -> None:
        wanted = self.destinations.revision, self.pairs.room.summing
        if wanted != self._served or now > self.destinations.due:
            serving = self.destinations.serving(now, self.pairs.room.summing)
            if serving != self.virtual_ips:
                self.virtual_ips = serving
                self._changes += 1
            self._served = self.destinations.revision, self.pairs.room.summing
        self.pairs.refresh(self.virtual_ips, now)

    def meet(self, at: PortId, source: str, vip: VirtualIp, now: Seconds) -> TrackedPair | None:
        """The pair of a source that speaks; None when it has none: then switches place its connections."""
        pair = self.pairs.meet(source, vip, now, at.dpid in self.unplacing, at)
        self._serve(now)
        return pair

    def tells_connections(self, address: str, dpid: int | None) -> bool:
        """Whether pairs that enter at a switch share a destination, and are rewritten there by connection."""
        return address in self.shared_addresses and dpid not in self.unplacing

    def mixed(self, enters: Callable[[str], int | None]) -> list[Alert]:
        """One for each source that uses one destination by two virtual IPs where its switch rewrites whole pairs."""
        used = Counter(
            (pair.source_address, pair.destination.address)
            for pair in self.pairs
            if pair.destination is not None and pair.destination.address in self.shared_addresses
        )
        return [
            replace(ANSWERS_MIXED, key=f"{source} {address}")
            for (source, address), count in used.items()
            if count > 1 and enters(source) in self.unplacing
        ]

    def tick(self, hosts: HostTable, kind_at: Callable[[PortId], NodeKind | None], now: Seconds) -> list[Effect]:
        """Questions that are due; what became of the last ones is in force at once."""
        effects = self.destinations.tick(hosts, kind_at, now)
        self._serve(now)
        return effects

    def is_due(self, now: Seconds) -> bool:
        """Whether `tick` has anything to do."""
        destinations = self.destinations
        waiting = (destinations.revision, self.pairs.room.summing) != self._served or now > destinations.due
        return waiting or destinations.health.anybody_due(destinations.targets, now)

    def adopt(self, dpid: int, rules: Iterable[Rule], now: Seconds) -> None:
        """Takes over pairs, buckets and ports that a switch holds, so that a restart moves nobody."""
        rules = tuple(rules)
        self.destinations.conflicts.adopt(dpid, rules, self.virtual_ips.values())
        self.pairs.adopt(rules, self.virtual_ips, now)
        self.destinations.spreads.adopt(rules, self.virtual_ips)


class SilentServices:
    """Virtual IPs of which nobody answers, and since when; everyone stays where they are from the first on."""

    def __init__(self) -> None:
        self._judged, self._since = -1, dict[str, Seconds]()

    def alerts(self, destinations: Destinations, now: Seconds) -> list[Alert]:
        """One for each of which nobody has answered for a while."""
        if destinations.revision != self._judged:
            statuses: dict[str, set[HealthStatus]] = {}
            for word in destinations.words():
                statuses.setdefault(word.virtual_ip, set()).add(word.health.status)
            silent = (vip for vip, own in statuses.items() if HealthStatus.DOWN in own and HealthStatus.UP not in own)
            self._judged, self._since = destinations.revision, {vip: self._since.get(vip, now) for vip in silent}
        return [replace(NOBODY_ANSWERS, key=vip) for vip, since in self._since.items() if now - since >= SILENT_FOR_S]


def _targets(vip: VirtualIp, one: Destination) -> list[ProbeTarget]:
    return targets_of(vip.probe, vip.address, [(one.address, one.mac)])


def _find_targets(virtual_ips: Iterable[VirtualIp]) -> dict[ProbeTarget, None]:
    # Whoever is on stand-by rests: it may be off, and that is nobody's trouble.
    return {
        target: None
        for vip in virtual_ips
        for destination in vip.destinations
        if destination.weight or destination.standing is not Standing.SERVING
        for target in _targets(vip, destination)
    }
