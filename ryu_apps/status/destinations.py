"""How each destination is, with an alarm while somebody must look at it, and what those that drain still hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cpdb import (
    CONTROLLER,
    Alarm,
    HealthReport,
    HealthStatus,
    LiveCount,
    ObservedRecord,
    Publisher,
    Standing,
    VirtualIp,
    Withdrawal,
    destination_key,
)
from ryu_apps.rules import LEARNED, OWNER_SHIFT, Table
from ryu_apps.services.buckets import destination_number
from ryu_apps.services.conflicts import DUPLICATE, MOVED
from ryu_apps.services.pairs import Pairs
from ryu_apps.services.virtual_ips import DestinationCondition

Seconds = float

# An open alarm is confirmed no oftener than this.
AGAIN_S = 30.0


class HealthPublisher:
    """What was said about each destination, and its alarms by destination and kind."""

    def __init__(self) -> None:
        self._health: Publisher[str, HealthReport] = Publisher()
        self._alarms: Publisher[tuple[str, str], Alarm] = Publisher(AGAIN_S, same=_same_kind)

    def news(self, words: Iterable[DestinationCondition], now: Seconds) -> list[ObservedRecord | Alarm]:
        """Rows for what changed since last time; what was said of destinations that are gone is taken back."""
        reports: dict[str, HealthReport] = {}
        alarms: dict[tuple[str, str], Alarm] = {}
        rows: list[ObservedRecord | Alarm] = []
        for word in words:
            report = HealthReport(word.virtual_ip, word.name, word.health, word.detail, now)
            reports[report.key] = report
            if self._health.said(report.key) is None:
                # An earlier controller may have left alarms; if they still hold, they are raised anew.
                rows += [
                    _cleared(Alarm(kind, report.key, CONTROLLER, "", now, now), now) for kind in (DUPLICATE, MOVED)
                ]
            if report.status is HealthStatus.FROZEN:
                alarms[report.key, word.alarm] = self._alarm(report, word.alarm, now)
        health, open_ones = self._health.publish(reports, now), self._alarms.publish(alarms, now)
        rows += health.said.values()
        rows += [Withdrawal(report.kind, key, CONTROLLER, now) for key, report in health.gone.items()]
        return [*rows, *(_cleared(alarm, now) for alarm in open_ones.gone.values()), *open_ones.said.values()]

    def _alarm(self, report: HealthReport, kind: str, now: Seconds) -> Alarm:
        before = self._alarms.said((report.key, kind))
        return Alarm(kind, report.key, CONTROLLER, report.detail, before.first_at if before else now, now)


def _cleared(alarm: Alarm, now: Seconds) -> Alarm:
    return replace(alarm, cleared_at=now)


def _same_kind(before: Alarm, alarm: Alarm) -> bool:
    return before.kind == alarm.kind


ASK_EVERY_S = 2.0


class Countable(Protocol):
    """A switch that can be asked how many entries have a cookie."""

    def ask_count(self, cookie: int, mask: int, table: int) -> int:
        """Asks; returns the transaction number."""


@dataclass(slots=True)
class LiveCountPublisher:
    """Counts by virtual IP and destination; entries come in pairs, there and back."""

    _asked: dict[tuple[int, int], int] = field(default_factory=dict)
    _entries: dict[tuple[int, int], int] = field(default_factory=dict)
    _publisher: Publisher[str, LiveCount] = field(default_factory=Publisher)
    _last: Seconds = float("-inf")

    def ask(self, virtual_ips: Iterable[VirtualIp], wires: Mapping[int, Countable], now: Seconds) -> None:
        """Asks every switch about every destination that drains, when it is time."""
        numbers = [number for vip, _, number in _draining(virtual_ips) if vip.by_connection]
        self._entries = {key: count for key, count in self._entries.items() if key[1] in numbers}
        if not numbers or now - self._last < ASK_EVERY_S:
            return
        self._last = now
        self._asked = {
            (dpid, wire.ask_count(LEARNED << OWNER_SHIFT | number, 2**64 - 1, Table.AFFINITY)): number
            for dpid, wire in wires.items()
            for number in numbers
        }

    def answered(self, dpid: int, xid: int, entries: int) -> None:
        """A switch has counted."""
        number = self._asked.pop((dpid, xid), None)
        if number is not None:
            self._entries[dpid, number] = entries

    def news(self, virtual_ips: Iterable[VirtualIp], pairs: Pairs, now: Seconds) -> list[ObservedRecord]:
        """Rows for counts that changed; what was said of whoever no longer drains is taken back."""
        counts: dict[str, LiveCount] = {}
        for vip, name, number in _draining(virtual_ips):
            count = self._connections(number) if vip.by_connection else _sources(pairs, vip.address, name)
            if count is not None:
                counts[destination_key(vip.address, name)] = LiveCount(vip.address, name, count, now)
        news = self._publisher.publish(counts, now)
        return [*news.said.values(), *(Withdrawal(gone.kind, key, CONTROLLER, now) for key, gone in news.gone.items())]

    def _connections(self, number: int) -> int | None:
        counts = [entries for (_, counted), entries in self._entries.items() if counted == number]
        return sum(counts) // 2 if counts else None


def _draining(virtual_ips: Iterable[VirtualIp]) -> list[tuple[VirtualIp, str, int]]:
    return [
        (vip, one.name, destination_number(vip.address, one.name))
        for vip in virtual_ips
        for one in vip.destinations
        if one.standing is Standing.DRAINING
    ]


def _sources(pairs: Pairs, virtual_ip: str, name: str) -> int:
    return sum(
        pair.virtual_ip == virtual_ip and pair.destination is not None and pair.destination.name == name
        for pair in pairs
    )
