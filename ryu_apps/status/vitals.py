"""Tells the database how each destination is: once per change, with an alarm while somebody must look at it."""

from collections.abc import Iterable
from dataclasses import replace

from cpdb import CONTROLLER, Alarm, HealthReport, HealthStatus, ObservedRecord, Publisher, Withdrawal
from ryu_apps.services.conflicts import DUPLICATE, MOVED
from ryu_apps.services.virtual_ips import Word

Seconds = float

# An open alarm is confirmed no oftener than this.
AGAIN_S = 30.0


class Vitals:
    """What was said about each destination, and its alarms by destination and kind."""

    def __init__(self) -> None:
        self._health: Publisher[str, HealthReport] = Publisher()
        self._alarms: Publisher[tuple[str, str], Alarm] = Publisher(AGAIN_S, same=_same_kind)

    def news(self, words: Iterable[Word], now: Seconds) -> list[ObservedRecord | Alarm]:
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
