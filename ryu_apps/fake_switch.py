"""A switch that behaves like one, for tests and simulations: tables, priorities, meters, leases, counters."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ryu_apps.reconcile import AddMeter, Change, DeleteMeter, DeleteRule, ModifyMeter, PutRule
from ryu_apps.rules import CONTROLLER, PROTO_TCP, AnswerArp, Match, Meter, Output, Rule, RuleKey, is_ours
from ryu_apps.samples import FlowSample

Seconds = float

LAST_TABLE = 254


@dataclass(frozen=True, slots=True)
class Packet:
    """The parts of a packet that rules look at or rewrite. `flags` are TCP's: "S", "SA", "A"..."""

    eth_src: str
    eth_dst: str
    eth_type: int = 0x0800
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    ip_proto: int | None = None
    flags: str = ""
    ip_dscp: int = 0
    arp_op: int | None = None
    arp_spa: str | None = None
    arp_tpa: str | None = None
    size: int = 100


@dataclass(slots=True)
class _Entry:
    rule: Rule
    since: Seconds
    ends: Seconds | None
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Bucket:
    meter: Meter
    tokens_bits: float
    t: Seconds

    def admits(self, size: int, now: Seconds) -> bool:
        """Token bucket: filled at the meter's rate, up to its burst."""
        filled = self.tokens_bits + (now - self.t) * self.meter.rate_kbit_s * 1000
        self.tokens_bits, self.t = min(filled, self.meter.burst_kbit * 1000.0), now
        if self.tokens_bits < size * 8:
            return False
        self.tokens_bits -= size * 8
        return True


@dataclass(slots=True)
class FakeSwitch:
    """Holds rules and meters and carries packets in virtual time: every call says what time it is."""

    dpid: int
    ports: frozenset[int]
    meters_most: int = 262_144
    _entries: dict[RuleKey, _Entry] = field(default_factory=dict)
    _buckets: dict[int, _Bucket] = field(default_factory=dict)

    def apply(self, changes: Iterable[Change], now: Seconds) -> list[str]:
        """Makes changes in order; returns the error texts of those it refuses, as a real switch would."""
        self._expire(now)
        return [error for change in changes if (error := self._apply(change, now))]

    def _apply(self, change: Change, now: Seconds) -> str | None:
        match change:
            case AddMeter(meter) if meter.number in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_METER_EXISTS"
            case AddMeter(meter) if meter.number > self.meters_most:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_OUT_OF_METERS"
            case ModifyMeter(meter) if meter.number not in self._buckets:
                return "OFPET_METER_MOD_FAILED/OFPMMFC_UNKNOWN_METER"
            case AddMeter(meter) | ModifyMeter(meter):
                self._buckets[meter.number] = _Bucket(meter, meter.burst_kbit * 1000.0, now)
            case DeleteMeter(number):
                self._buckets.pop(number, None)
                self._entries = {key: one for key, one in self._entries.items() if one.rule.meter != number}
            case PutRule(rule):
                return self._put(rule, now)
            case DeleteRule(rule):
                held = self._entries.get(rule.key)
                if held is not None and is_ours(held.rule.cookie):
                    del self._entries[rule.key]
        return None

    def _put(self, rule: Rule, now: Seconds) -> str | None:
        if rule.meter is not None and rule.meter not in self._buckets:
            return "OFPET_FLOW_MOD_FAILED/OFPFMFC_UNKNOWN"
        if rule.goto is not None and not rule.table < rule.goto <= LAST_TABLE:
            return "OFPET_BAD_INSTRUCTION/OFPBIC_BAD_TABLE_ID"
        ends = None
        if rule.lease_until is not None:
            # Timeouts are whole seconds, rounded up.
            ends = now + max(1, -(-(rule.lease_until - now) // 1))
        self._entries[rule.key] = _Entry(rule, now, ends)
        return None

    def _expire(self, now: Seconds) -> None:
        self._entries = {key: one for key, one in self._entries.items() if one.ends is None or now < one.ends}

    def rules(self, now: Seconds) -> list[Rule]:
        """What it holds, with the ends of the leases as they are counted here."""
        self._expire(now)
        return [replace(one.rule, lease_until=one.ends) for one in self._entries.values()]

    def meters(self) -> list[Meter]:
        """Its meters."""
        return [bucket.meter for bucket in self._buckets.values()]

    def samples(self, now: Seconds) -> list[FlowSample]:
        """Counters of all entries."""
        self._expire(now)
        return [
            FlowSample(self.dpid, one.rule.cookie, now, now - one.since, one.packets, one.bytes)
            for one in self._entries.values()
        ]

    def receive(self, packet: Packet, in_port: int, now: Seconds) -> list[tuple[int, Packet]]:
        """Carries a packet through the tables; returns (port, packet) for each copy, CONTROLLER included.

        A packet that no entry of a table matches is dropped, and so is a copy that would go out where it came in.
        """
        self._expire(now)
        out: list[tuple[int, Packet]] = []
        table: int | None = 0
        while table is not None:
            entry = self._best(table, packet, in_port)
            if entry is None:
                break
            entry.packets += 1
            entry.bytes += packet.size
            rule = entry.rule
            if rule.meter is not None and not self._buckets[rule.meter].admits(packet.size, now):
                break
            for action in rule.actions:
                if isinstance(action, Output):
                    out.append((action.port, packet))
                elif isinstance(action, AnswerArp):
                    out.append((in_port, _answer(packet, action)))
                else:
                    rewritten: dict[str, Any] = {action.field: action.value}
                    packet = replace(packet, **rewritten)
            table = rule.goto
        return [(port, one) for port, one in out if self._may_leave(port, one, in_port)]

    def _may_leave(self, port: int, copy: Packet, in_port: int) -> bool:
        if port == CONTROLLER or (copy.arp_op == 2 and port == in_port):
            return True
        return port in self.ports and port != in_port

    def _best(self, table: int, packet: Packet, in_port: int) -> _Entry | None:
        found = [one for key, one in self._entries.items() if key.table == table and _fits(key.match, packet, in_port)]
        return max(found, key=lambda one: one.rule.priority, default=None)


def _fits(match: Match, packet: Packet, in_port: int) -> bool:
    if match.in_port not in (None, in_port):
        return False
    if match.syn and not (packet.ip_proto == PROTO_TCP and "S" in packet.flags and "A" not in packet.flags):
        return False
    if match.multicast and not int(packet.eth_dst[:2], 16) & 1:
        return False
    names = ("eth_type", "eth_src", "eth_dst", "ip_proto", "ipv4_src", "ipv4_dst", "arp_op", "arp_tpa")
    return all(getattr(match, name) in (None, getattr(packet, name)) for name in names)


def _answer(question: Packet, action: AnswerArp) -> Packet:
    return replace(
        question,
        eth_dst=question.eth_src,
        eth_src=action.mac,
        arp_op=2,
        arp_tpa=question.arp_spa,
        arp_spa=action.address,
    )
