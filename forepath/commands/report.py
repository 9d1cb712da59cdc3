"""The command that sums up what promises came to, and which needs nobody foresaw."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from cpdb import open_store
from forepath.moments import MomentOption, moment, shown
from forepath.output import JsonOption, SettingsOption, console, emit, seconds, span, table
from forepath.processes import orchestrator_config
from forepath.settings import load_settings
from orchestrator import JudgementReport, KindReport, MissedNeeds, read_standings, sum_up, told_standing

DaySpan = Annotated[
    float, typer.Option("--since", metavar="SPAN", parser=seconds, show_default="1d", help="How far back, e.g. 10m")
]


def report(
    since: DaySpan = 86_400.0, at: MomentOption = None, settings: SettingsOption = None, json: JsonOption = None
) -> None:
    """What actions and advice promised and what came of it, by kind; what ran short unforeseen.

    Advice is judged as actions are: what acting would have spared. The last lines say where each kind stands: what
    verdicts have made of its margin, and whether acting is shown to pay; with --at they are left out. Examples:
        forepath report
        forepath report --since 1h
        forepath report --since 8h --at 06:00
        forepath report --since 7d --json -
    """
    effective = load_settings(settings)
    store, config = open_store(effective.database.url, create=False), orchestrator_config(effective, act=None)
    now = moment(at, store)
    short = [one for one in store.journal.shortages(now - since) if one.began_at <= now]
    found = sum_up(store.journal.actions(since=now - since, until=now), short)
    standings = read_standings(store, config, now) if at is None else {}
    store.close()
    kinds = [asdict(one) | {"kept_share": one.kept_share} for one in found.kinds]
    missed = [asdict(one) for one in found.shortages]
    stand = {kind: asdict(one) for kind, one in standings.items()}
    if emit({"since": now - since, "now": now, "kinds": kinds, "shortages": missed, "standings": stand}, json):
        return
    _print(found, f"in the last {span(since)}" if at is None else f"in {span(since)} until {shown(now)}")
    for kind, one in standings.items():
        learnt = f"{one.margin:g} times the margin, {one.earlier_s:g} s earlier" if config.learning.enabled else ""
        lines = (told_standing(one, config), learnt)
        console.print(f"standing of {kind}: {'; '.join(filter(None, lines))}", markup=False, highlight=False)


def _print(found: JudgementReport, when: str) -> None:
    if not found.kinds and not found.shortages:
        console.print(f"{when} nothing was done or advised, and nothing ran short")
        return
    columns = ["kind", "kept", "broken", "unneeded", "wasteful", "unknown", "open", "short", "spared"]
    if found.kinds:
        console.print(table(f"promises {when}", columns, [_row(one) for one in found.kinds]))
    for line in (*map(told, found.kinds), *_missed(found)):
        console.print(line, markup=False, highlight=False)


def _row(one: KindReport) -> tuple[str, ...]:
    counts = (one.kept, one.broken, one.unneeded, one.wasteful, one.unknown, one.still_open)
    return one.kind, *map(str, counts), f"{one.short_s:.0f} s", f"{one.spared_s:.0f} s"


def told(one: KindReport) -> str:
    """What a kind was good for, in a sentence."""
    saved = "would have spared" if not one.done else "spared" if not one.advised else "spared, or would have,"
    share = f"; {one.kept_share:.0%} of promises kept" if one.kept_share is not None else ""
    cost = f" for {one.cost_s:.0f} s unused" if one.cost_s else ""
    judged = one.kept + one.broken + one.unneeded
    if not judged:
        return f"{one.kind}: nothing measured so far tells what it is good for"
    return f"{one.kind}: {saved} {one.spared_s:.0f} of {one.short_s:.0f} shortage seconds{cost}{share}"


def _missed(found: JudgementReport) -> Iterator[str]:
    if not found.shortages:
        yield "missed needs: none; nothing ran short"
    for one in found.shortages:
        yield f"missed needs, {_resource(one)}"


def _resource(one: MissedNeeds) -> str:
    foreseen = f"{one.foreseen} foreseen ({one.foreseen_s:.0f} s)"
    if one.longest is None:
        return f"{one.kind.value}: none; {foreseen}"
    longest = f"longest {one.longest.seconds:.0f} s at {one.longest.subject}: {one.longest.detail}"
    return f"{one.kind.value}: {one.missed} times, {one.missed_s:.0f} s; {foreseen}; {longest}"
