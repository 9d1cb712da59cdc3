"""What was decided and what is held: actions with their verdicts, reservations with what each switch made of them."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cpdb import ActionRecord, Observed, OutcomeKind, Reservation, open_store
from forepath.commands.requests import leases_of, show
from forepath.held import Held, State
from forepath.output import JsonOption, SettingsOption, ago, console, emit, rate, table
from forepath.settings import load
from forepath.spans import SinceOption, span
from orchestrator import KINDS, LeadRow, described, explained, kept, lead_rows, promised

FAILURES = (OutcomeKind.FAILED, OutcomeKind.SKIPPED, OutcomeKind.NOT_REVERTED)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is unknown; write one of {', '.join(sorted(KINDS))}")
    return text


def actions(
    since: SinceOption = 3600.0,
    kind: Annotated[str | None, typer.Option("--kind", parser=_kind, metavar="KIND", help="Only of this kind")] = None,
    outcome: Annotated[
        OutcomeKind | None, typer.Option("--outcome", help="Only those that ended so", case_sensitive=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many to show, newest first")] = 50,
    lead_times: Annotated[
        bool, typer.Option("--lead-times", help="How long each kind took, by host, size and load, instead")
    ] = False,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """What was done, advised or refused: outcome, promise, and whether the promise was kept.

    Examples:
        forepath actions
        forepath actions --since 10m --outcome failed
        forepath actions --since 1d --kind migrate_vm --json -
    """
    store = open_store(load(settings).database.url, create=False)
    now = time.time()
    found = [
        one
        for one in store.journal.actions(since=now - since)
        if kind in (None, one.kind) and outcome in (None, one.outcome)
    ]
    store.close()
    if lead_times:
        _show_leads(lead_rows(found, now), since, json)
        return
    counts = {"outcomes": Counter(one.outcome.value for one in found), "promises": Counter(_promises(found))}
    shown = [explained(one) for one in found[:top]]
    if emit({"since": now - since, "now": now, "total": len(found), **counts, "actions": shown}, json):
        return
    columns = ["no.", "issued", "action", "outcome", "ready", "promise", "kept"]
    rows = [_row(one, now) for one in found[:top]]
    console.print(table(f"actions of the last {span(since)}", columns, rows, texts=range(1, len(columns))))
    if found:
        console.print(_summed(found, counts, top), markup=False)


def _show_leads(found: Sequence[LeadRow], since: float, json: str | None) -> None:
    if emit({"lead_times": [asdict(one) for one in found]}, json):
        return
    rows = [
        (
            *(one.kind, one.host, one.size, one.load, str(one.samples)),
            *(f"{one.p50_s:.1f} s", f"{one.p95_s:.1f} s", "yes" if one.used else "too few"),
        )
        for one in found
    ]
    columns = ["kind", "host", "size", "load", "samples", "middle", "95 % within", "used"]
    console.print(table(f"lead times of the last {span(since)}", columns, rows, left=4))


def _promises(found: Iterable[ActionRecord]) -> Iterable[str]:
    return (kept(one) or "open" for one in found if one.outcome is OutcomeKind.DONE and promised(one))


def _row(one: ActionRecord, now: float) -> tuple[str, ...]:
    ended, promise = _ended(one), promised(one) or "-"
    return str(one.id), ago(now, one.issued_at), described(one), ended, _ready(one), promise, kept(one)


def _ended(one: ActionRecord) -> str:
    return f"{one.outcome.value}: {one.sentence}" if one.outcome in FAILURES and one.sentence else one.outcome.value


def _ready(one: ActionRecord) -> str:
    """How long it took, and how long before the need it was there."""
    if one.ready_at is None:
        return "-"
    took = f"after {one.ready_at - one.issued_at:.1f} s"
    if one.needed_at is None:
        return took
    left = one.needed_at - one.ready_at
    return f"{took}, {abs(left):.1f} s {'early' if left >= 0 else 'late'}"


def _summed(found: Sequence[ActionRecord], counts: dict[str, Counter[str]], top: int) -> str:
    said = {name: ", ".join(f"{count} {word}" for word, count in one.most_common()) for name, one in counts.items()}
    text = f"{len(found)} actions: {said['outcomes']}"
    text += f"; promises: {said['promises']}" if said["promises"] else ""
    more = f"; {len(found) - top} older ones are not shown, --top shows them" if len(found) > top else ""
    return f"{text}{more}; forepath explain NUMBER says why"


def reservations(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Every reservation that is held: what, for whom, why, until when, and what each switch has made of it.

    Below them the open requests: asked, granted, held by which leases, and obtained.

    Examples:
        forepath reservations
        forepath reservations --json -
    """
    store = open_store(load(settings).database.url, create=False)
    now = time.time()
    found, asked = leases_of(store, now)
    generation, open_ones = store.wanted.generation(), store.requests.open(now)
    services = {one.address: one.name for one in store.inventory.virtual_ips()}
    store.close()
    told = {"reservations": [_held_json(one, now) for one in found], "requests": asked}
    if emit({"now": now, "generation": generation, **told}, json):
        return
    rows = [
        (
            str(one.reservation.pair),
            rate(one.reservation.bytes_per_s),
            one.state.value,
            one.reservation.owner,
            ago(now, one.reservation.created_at),
            span(one.reservation.expires_at - now),
        )
        for one in found
    ]
    columns = ["pair", "rate", "state", "owner", "created", "ends in"]
    console.print(table("reservations", columns, rows, texts=(0, 2, 3)))
    for one in found:
        console.print("\n".join(_told(one)), markup=False, highlight=False, soft_wrap=True)
    if open_ones:
        show(open_ones, services, now)


def _told(one: Held) -> Iterator[str]:
    item, wanted = one.reservation, one.reservation.generation
    yield f"{item.key}, generation {wanted}, {_means(item)}: {item.reason or 'no reason given'}"
    for state, row in one.switches:
        yield f"  {row.node}: {_word(state, row, wanted)}"
    if not one.switches:
        yield "  no switch has answered yet"


def _means(one: Reservation) -> str:
    limits = [f"{limit.pair} limited to {rate(limit.bytes_per_s)}" for limit in one.limits]
    return ", ".join([*limits, *([] if one.dscp is None else [f"queue (DSCP {one.dscp})"])]) or "by nothing"


def _word(state: State, row: Observed, wanted: int) -> str:
    if state is State.WAITING:
        return f"not yet (has generation {row.generation} of {wanted}, {row.status})"
    return f"{state.value}: {row.detail}" if row.detail else state.value


def _held_json(one: Held, now: float) -> dict[str, Any]:
    item = one.reservation
    return asdict(item) | {
        "expires_in_s": item.expires_at - now,
        "state": one.state.value,
        "switches": [asdict(row) | {"state": state.value} for state, row in one.switches],
    }
