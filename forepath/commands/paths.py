"""The command about paths: which way traffic will go, how full each link will be, and because of whom."""

from dataclasses import asdict, replace
from itertools import pairwise
from typing import Annotated, Any

import typer

from cpdb import open_store
from forepath.forecasts import Ahead, QuantileBand, ahead
from forepath.moments import MomentOption, moment
from forepath.output import (
    SPAN,
    JsonOption,
    SettingsOption,
    TableLayout,
    WideOption,
    ago,
    console,
    emit,
    print_table,
    rate,
    seconds,
    span,
)
from forepath.paths import LinkView, Part, PathFinder, Way, planned_links
from forepath.processes import orchestrator_config
from forepath.settings import load_settings

DEFAULT_AHEAD_S = 15.0
MOST_PARTS = 10
AheadOption = Annotated[
    float,
    typer.Option("--horizon", metavar="+SPAN", parser=seconds, show_default="+15s", help="How far ahead, e.g. +5m"),
]


def paths(
    source: Annotated[str | None, typer.Option("--from", help="Source node")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Virtual IP (name or address) or node")] = None,
    horizon: AheadOption = DEFAULT_AHEAD_S,
    at: MomentOption = None,
    every: Annotated[bool, typer.Option("--links", help="Every link, most congested first")] = False,
    why: Annotated[bool, typer.Option("--why", help="Which pairs load each link, and by which forecast")] = False,
    top: Annotated[int | None, typer.Option("--top", min=1, help="How many links to show [default: all]")] = None,
    wide: WideOption = False,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """The path that traffic will take, hop by hop, or every link: measured and predicted load against capacity.

    --at SPAN is the same as --horizon; with a past moment, what was foreseen then, on the topology as it is now.

    Examples:
        forepath paths --links --top 10
        forepath paths --links --at +5m --why
        forepath paths --links --at last --horizon +5s
        forepath paths --from c1 --to shop --at +15s
        forepath paths --from c1 --to shop --json -
    """
    _must_fit(source, to, every)
    if at is not None and SPAN.fullmatch(at):
        horizon, at = seconds(at), None
    effective = load_settings(settings)
    store = open_store(effective.database.url, create=False)
    now = moment(at, store)
    foreseen = ahead(store, now, horizon)
    finder = PathFinder.of(store, now, horizon)
    way = finder.to_service(source, to, now) if source is not None and to is not None else None
    found = _along(way, planned_links(store, orchestrator_config(effective, act=False), now, foreseen, finder.path))
    store.close()
    if emit(_document(found[:top], way, foreseen, why), json):
        return
    _print_way(way, foreseen, now)
    _print_links(found[:top], foreseen, wide)
    for view in found[:top] if why else ():
        _print_parts(view, foreseen, now, wide)


def _must_fit(source: str | None, to: str | None, every: bool) -> None:
    if (source is None) != (to is None):
        raise typer.BadParameter("give both --from and --to, or neither")
    if every and source is not None:
        raise typer.BadParameter("--links shows every link: leave it out, or --from and --to")


def _along(way: Way | None, found: list[LinkView]) -> list[LinkView]:
    if way is None:
        return found
    by_hop = {(view.from_node, view.to_node): view for view in found}
    return [by_hop[hop] for hop in pairwise(way.hops) if hop in by_hop]


def _document(found: list[LinkView], way: Way | None, foreseen: Ahead, why: bool) -> dict[str, Any]:
    head = {
        "at_s": foreseen.at_s,
        "horizon_s": foreseen.horizon_s,
        "tier": foreseen.tier,
        "issued_at": foreseen.issued_at,
        "path": asdict(way) if way else None,
    }
    return head | {"links": [_link(view, why) for view in found]}


def _link(view: LinkView, why: bool) -> dict[str, Any]:
    row = asdict(view if why else replace(view, parts=()))
    parts = row.pop("parts")
    shares = {name: view.share(getattr(view.predicted, name)) for name in ("q10", "q50", "q90")}
    return row | {
        "utilisation": view.share(view.bytes_per_s),
        "predicted": asdict(view.predicted),
        "predicted_q50": view.predicted.q50,
        "predicted_q90": view.predicted.q90,
        "predicted_shares": shares,
        "predicted_utilisation": view.predicted_utilisation,
        **({"pairs": parts, "others_bytes_per_s": view.others_bytes_per_s} if why else {}),
    }


def _print_way(way: Way | None, foreseen: Ahead, now: float) -> None:
    if way is not None:
        _say(f"in {span(foreseen.at_s)}: {' -> '.join(way.hops)}")
        for line in way.because:
            _say(f"  {line}")
        for choice in way.split:
            part = "" if choice.pair_share > 0.995 else f"{choice.pair_share:.0%} of "
            taken = f"  <- {part}this pair" if choice.taken else ""
            _say(f"  split: {choice.share:.0%} over {' -> '.join(choice.hops)} (tag {choice.tag}){taken}")
    if foreseen.issued_at is None:
        _say("no fresh forecast (is forepath predict running?): what is measured is taken to go on")
    else:
        _say(f"predicted for the next {foreseen.horizon_s} s, {ago(now, foreseen.issued_at)} ({foreseen.tier} tier)")


def _print_links(found: list[LinkView], foreseen: Ahead, wide: bool) -> None:
    rows = [
        (
            f"{view.from_node} -> {view.to_node}",
            rate(view.capacity_bytes_per_s),
            rate(view.bytes_per_s),
            _percent(view.share(view.bytes_per_s)),
            rate(view.predicted.q50),
            f"{rate(view.predicted.q10)} - {rate(view.predicted.q90)}",
            _percent(view.share(view.predicted.q50)),
            _percent(view.share(view.predicted.q90)),
            _percent(view.share(view.needed_bytes_per_s)),
            _by(view),
        )
        for view in found
    ]
    columns = [
        "link",
        "capacity",
        "now",
        "used",
        f"peak in {foreseen.horizon_s} s",
        "8 of 10 within",
        "q50",
        "q90",
        "plan",
        "by",
    ]
    layout = TableLayout(("link", "by"), ("8 of 10 within", "by", "q50", "now"), wide)
    print_table("links: share of capacity now, predicted (q50, q90), and what plans count", columns, rows, layout)


def _by(view: LinkView) -> str:
    pairs = f"{len(view.parts)} pair{'s' * (len(view.parts) > 1)}" if view.parts else ""
    return ", ".join(one for one in (pairs, view.predicted.model if view.by_link else "") if one) or "-"


def _print_parts(view: LinkView, foreseen: Ahead, now: float, wide: bool) -> None:
    rows = [_part(one, view.by_pairs, foreseen, now) for one in view.parts[:MOST_PARTS]]
    if view.by_link is not None:
        rows.append(
            ("the link itself", "-", rate(view.bytes_per_s), *_quantile_band(view.by_link), "-", view.by_link.model)
        )
    if view.others_bytes_per_s > 0:
        rows.append(("other traffic", "-", rate(view.others_bytes_per_s), "-", "-", "-", "measured"))
    if not rows:
        return
    more = len(view.parts) - MOST_PARTS
    title = f"{view.from_node} -> {view.to_node}" + (f": {MOST_PARTS} of {len(view.parts)} pairs" if more > 0 else "")
    columns = ["pair", "destination", "now", "peak q50", "peak q90", "share", "forecast"]
    layout = TableLayout(("pair", "destination", "forecast"), ("destination", "share", "forecast"), wide)
    print_table(title, columns, rows, layout)


def _part(one: Part, total: QuantileBand, foreseen: Ahead, now: float) -> tuple[str, ...]:
    share = one.predicted.q90 / total.q90 if total.q90 > 0 else None
    said = one.predicted.model
    if foreseen.issued_at is not None and said != "measured":
        said += f" within {foreseen.horizon_s} s, {ago(now, foreseen.issued_at)}"
    name = f"{one.pair.source} -> {one.service}"
    return name, one.destination or "-", rate(one.bytes_per_s), *_quantile_band(one.predicted), _percent(share), said


def _quantile_band(one: QuantileBand) -> tuple[str, str]:
    return rate(one.q50), rate(one.q90)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
