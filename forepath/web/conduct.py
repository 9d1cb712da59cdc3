"""What page and API tell of forepath itself: whether it acts, what it did and why, how good it was, how it is."""

from dataclasses import asdict
from typing import Any

from cpdb import (
    ActionRecord,
    EventCount,
    NodeKind,
    OutcomeKind,
    RefreshReport,
    SettingsError,
    ShortageRecord,
    SubjectKind,
)
from forepath import forecasts, views
from forepath.listening import open_doors
from forepath.processes import orchestrator_config
from forepath.web.accuracy import said_errors
from forepath.web.network import Slice, next_shortage, tell_action
from forepath.web.reader import StoreMoment
from orchestrator import explained, passed, read_standings, sum_up, told_standing
from predictor import FAST, SLOW

Json = dict[str, Any]
LATELY_S = 60.0
SCORES_S = 900.0
STANDINGS_S = 86_400.0
TIMELINE_MOST = 500


def tell_newest(at: StoreMoment) -> float | None:
    """When somebody measured last; None: never."""
    return at.store.series.newest(at.now)


def tell_strip(at: StoreMoment) -> Json:
    """What every view shows on top: whether forepath acts, the age of everything, the next shortage."""
    known = views.overview(at.store, at.now)
    lately = [one.outcome for one in at.store.journal.actions(since=at.now - LATELY_S, until=at.now)]
    span = at.store.facts.span()
    return {
        "now": at.now,
        "live": at.live,
        "mode": _mode(at, known, lately),
        "paused": known["paused"],
        "on_duty": known["on_duty"],
        "done": sum(one is not OutcomeKind.ADVISED for one in lately),
        "advised": sum(one is OutcomeKind.ADVISED for one in lately),
        "earned": [kind for kind, one in _standings(at).items() if one["earned"]],
        "alarms": len(known["alarms"]),
        "last_sample_at": known["last_sample_at"],
        "last_forecast_at": known["last_forecast_at"],
        "first_at": span[0] if span else None,
        "last_at": span[1] if span else None,
        "shortage": next_shortage(at),
        "open_doors": list(open_doors(at.settings)),
    }


def _mode(at: StoreMoment, known: Json, lately: list[OutcomeKind]) -> str:
    """In a word: paused, acts, earned, advises or idle; leases tell of the present, the journal of the past."""
    if known["paused"]:
        return "paused"
    if "acting" in known["on_duty"] or (not at.live and any(one is not OutcomeKind.ADVISED for one in lately)):
        return "earned" if at.settings.orchestrator.act == "earned" else "acts"
    return "advises" if "advising" in known["on_duty"] or lately else "idle"


def _standings(at: StoreMoment) -> Json:
    config = orchestrator_config(at.settings, act=None)
    found = read_standings(at.store, config, at.now)
    return {kind: asdict(one) | {"sentence": told_standing(one, config)} for kind, one in found.items()}


def tell_journal(at: StoreMoment, since_s: float, kind: str, outcome: str, part: Slice) -> Json:
    """Actions, advice and refusals as a timeline, newest first, each with why and what came of it."""
    found = [
        one
        for one in at.store.journal.actions(since=at.now - since_s, until=at.now)
        if kind in ("", one.kind) and outcome in ("", one.outcome.value)
    ]
    shown = [explained(one) for one in part.of(found)]
    return {
        "now": at.now,
        "since_s": since_s,
        "total": len(found),
        **part._asdict(),
        "kinds": sorted({one.kind for one in found}),
        "outcomes": [one.value for one in OutcomeKind],
        "actions": shown,
        "timeline": [tell_action(one) for one in found[:TIMELINE_MOST]],
        "shortages": [asdict(one) for one in at.store.journal.shortages(at.now - since_s) if one.began_at <= at.now],
        "audits": [asdict(one) for one in at.store.journal.audits(at.now - since_s, at.now)],
    }


def tell_explanation(at: StoreMoment, number: float) -> Json:
    """One action: what `forepath explain NUMBER` tells. Raises SettingsError."""
    record = at.store.journal.action(int(number))
    if record is None:
        raise SettingsError(f"no action {number:.0f}; the journal lists them")
    return explained(record) | {"now": at.now, "steps": passed(at.store.workflow.steps_of(int(number)))}


def tell_accuracy(at: StoreMoment, about: str, tier: str) -> Json:
    """How good forecasts were: errors of what was said, and of each model beside the reference; models' shares."""
    kind = SubjectKind(about)
    blend = forecasts.blend(at.store, kind, tier)
    errors = said_errors(at.store, at.now, tier) if kind is SubjectKind.PAIR else []
    return {
        "now": at.now,
        "kind": kind.value,
        "tier": tier,
        "errors": errors,
        "scores": [asdict(one) for one in forecasts.scores(at.store, at.now - SCORES_S, at.now, kind, tier)],
        "shares": {} if blend is None else blend.shares,
        "report": asdict(sum_up(*_judged(at))),
        "standings": _standings(at),
    }


def _judged(at: StoreMoment) -> tuple[list[ActionRecord], list[ShortageRecord]]:
    since, journal = at.now - STANDINGS_S, at.store.journal
    return journal.actions(since=since, until=at.now), [
        one for one in journal.shortages(since) if one.began_at <= at.now
    ]


def tell_health(at: StoreMoment) -> Json:
    """How the processes are: age of samples and forecasts, switches, what was counted, alarms, size of the memory."""
    known = views.overview(at.store, at.now)
    issues = {tier: forecasts.issue(at.store, at.now, SubjectKind.PAIR, tier) for tier in (FAST, SLOW)}
    counted = [one for one in at.store.wanted.observed_of(EventCount) if one.observed_at <= at.now]
    refreshes = [one for one in at.store.wanted.observed_of(RefreshReport) if one.observed_at <= at.now]
    switches = {one.name: one.last_seen for one in at.store.inventory.nodes() if one.kind is NodeKind.SWITCH}
    names = {one.address: one.name for one in at.store.inventory.virtual_ips()}
    return {
        "now": at.now,
        "live": at.live,
        "last_sample_at": known["last_sample_at"],
        "forecasts": {
            tier: {"issued_at": one.issued_at if one else None, "subjects": len(one.subjects) if one else 0}
            for tier, one in issues.items()
        },
        "on_duty": known["on_duty"],
        "switches": [{"name": name, "last_seen": seen} for name, seen in switches.items()],
        "refreshes": [asdict(one) for one in refreshes],
        "counted": [{"kind": one.kind.value, "key": one.key, "count": one.count} for one in counted],
        "alarms": known["alarms"],
        "alarm_lines": views.alarm_lines(at.store.alarms.at(at.now), names),
        "usage": asdict(at.store.read_usage(at.now, at.settings.database.retention_policy())),
    }
