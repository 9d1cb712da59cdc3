"""The command that shows what is expected: of pairs, links and machines; who will be active; how good it was so far."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, NamedTuple

import plotext
import typer
from rich.text import Text

from cpdb import (
    UNTRUSTED,
    Communication,
    Forecast,
    Quantity,
    SettingsError,
    Store,
    Subject,
    SubjectForecast,
    SubjectKind,
    open_store,
    show_mebibytes,
)
from forepath import forecasts, views
from forepath.moments import MomentOption, moment
from forepath.output import JsonOption, SettingsOption, TableLayout, WideOption, console, emit, print_table, rate
from forepath.settings import load_settings

MOVES_SHOWN_S = 3600.0
SCORES_SINCE_S = 900.0
LEVELS = (0.1, 0.5, 0.9, 0.99)
# What goes first where the terminal is narrow
SPARE = ("q99", "model", "q10")
Tier = Literal["fast", "slow"]


def forecast(
    source: Annotated[str | None, typer.Argument(help="Source node; without it, all pairs")] = None,
    service: Annotated[str | None, typer.Argument(help="Virtual IP, by name or address")] = None,
    who: Annotated[bool, typer.Option("--who", help="Who will be active: all pairs, likeliest first")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="With --who, how many")] = 20,
    horizon: Annotated[int, typer.Option("--horizon", min=1, help="With --who, seconds ahead")] = 15,
    subject: Annotated[
        SubjectKind | None, typer.Option("--subject", help="Sums and machines instead of pairs", case_sensitive=False)
    ] = None,
    tier: Annotated[Tier, typer.Option("--tier", help="fast: seconds ahead; slow: minutes ahead")] = "fast",
    scores: Annotated[bool, typer.Option("--scores", help="How good each model was in the last minutes")] = False,
    wide: WideOption = False,
    at: MomentOption = None,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """What is expected of each pair, or of one pair with a plot of its history, quantile fan and horizon.

    Examples:
        forepath forecast
        forepath forecast c1 shop
        forepath forecast --subject vm --tier slow
        forepath forecast c1 shop --at last
        forepath forecast --scores --json -
    """
    if sum((source is not None, who, subject is not None and not scores, scores)) > 1:
        raise typer.BadParameter("choose one of SOURCE, --who, --subject and --scores")
    store = open_store(load_settings(settings).database.url, create=False)
    shown, kind = _Shown(store, moment(at, store), json, wide), subject or SubjectKind.PAIR
    if who:
        _show_who(shown, horizon, top, tier)
    elif scores:
        _show_scores(shown, kind, tier)
    elif subject is not None or tier != "fast":
        told = forecasts.subjects(store, shown.now, kind, tier)
        _show_subjects(shown, [one for one in told if _is_about(one.subject, source, service)])
    elif source is not None:
        _show_pair(store, shown.now, _of_pair(store, shown.now, source, service), json, wide)
    else:
        _show_pairs(shown)


class _Shown(NamedTuple):
    """What is read, as of when, and how it is shown."""

    store: Store
    now: float
    json: str | None
    wide: bool


def _show_who(shown: _Shown, horizon_s: int, top: int, tier: Tier) -> None:
    likely = forecasts.who(shown.store, shown.now, horizon_s, top, tier)
    if not emit({"horizon_s": horizon_s, "tier": tier, "who": [asdict(one) for one in likely]}, shown.json):
        _print_who(likely, horizon_s, shown.wide)


def _show_subjects(shown: _Shown, told: list[SubjectForecast]) -> None:
    if not emit({"subjects": [_expected(one) for one in told]}, shown.json):
        _print_subjects(told, shown.wide)


def _show_pairs(shown: _Shown) -> None:
    rows = shown.store.forecasts.latest(shown.now, views.FORECAST_MAX_AGE_S)
    if not emit({"forecasts": [asdict(row) for row in rows]}, shown.json):
        _print_forecasts(rows, shown.wide)


def _print_who(found: list[forecasts.LikelyPair], horizon_s: int, wide: bool) -> None:
    rows = [
        (
            one.source,
            one.service,
            one.destination or "-",
            f"{one.probability:.0%}",
            rate(one.bytes_per_s),
            rate(one.peak_bytes_per_s_q90),
            "-" if one.connections_per_s is None else f"{one.connections_per_s:.1f}/s",
            f"{one.trusted_s} s" if one.trusted_s else "-",
        )
        for one in found
    ]
    columns = ["source", "service", "destination", "active", "mean q50", "peak q90", "connections", "trusted"]
    layout = TableLayout(("source", "service", "destination"), ("destination", "connections", "mean q50"), wide)
    print_table(f"who will be active within {horizon_s} s", columns, rows, layout)


def _show_scores(shown: _Shown, kind: SubjectKind, tier: Tier) -> None:
    blend = forecasts.blend(shown.store, kind, tier)
    shares = {} if blend is None else blend.shares
    found = forecasts.scores(shown.store, shown.now - SCORES_SINCE_S, shown.now, kind, tier)
    if emit({"scores": [asdict(one) for one in found], "shares": shares}, shown.json):
        return
    rows = [
        (
            one.model,
            f"{shares[one.model]:.0%}" if one.model in shares else "-",
            f"{one.horizon_s} s",
            one.quantity.value,
            f"{one.relative:.2f}",
            f"{one.covered_q90:.2f}",
            str(one.count),
        )
        for one in sorted(found, key=lambda one: (one.horizon_s, list(Quantity).index(one.quantity), one.relative))
    ]
    columns = ["model", "share", "horizon", "quantity", "loss / ewma", "below q90", "windows"]
    title = "scores: share of the blend, pinball loss in units of EWMA's; 0.90 should lie below q90"
    print_table(title, columns, rows, TableLayout(tuple(columns[:4]), ("windows", "share"), shown.wide))


def _is_about(one: Subject, source: str | None, service: str | None) -> bool:
    return source is None or (one.a == source and service in (None, one.b))


def _print_subjects(found: list[SubjectForecast], wide: bool) -> None:
    rows = [
        (
            " -> ".join(part for part in one.subject[1:] if part),
            f"{one.horizon_s} s",
            one.quantity.value,
            one.model,
            *(_amount(one.quantity, one.at(level)) for level in LEVELS),
        )
        for one in found
    ]
    columns = ["subject", "horizon", "quantity", "model", *(f"q{level * 100:.0f}" for level in LEVELS)]
    print_table("expected", columns, rows, TableLayout(tuple(columns[:4]), SPARE, wide))


def _expected(one: SubjectForecast) -> dict[str, Any]:
    return one._asdict() | {"subject": {"kind": one.subject.kind.value, "a": one.subject.a, "b": one.subject.b}}


def _amount(quantity: Quantity, value: float | None) -> str:
    if value is None:
        return "-"
    if quantity in (Quantity.BYTES_MEAN, Quantity.BYTES_PEAK):
        return rate(value)
    if quantity in (Quantity.MEMORY_MEAN, Quantity.MEMORY_PEAK):
        return show_mebibytes(value)
    return f"{value:.2f} cores" if "cpu" in quantity.value else f"{value:.1f}/s"


def _show_pair(store: Store, now: float, rows: list[Forecast], json: str | None, wide: bool) -> None:
    pairs = sorted({row.pair for row in rows}, key=str)
    trusts = {
        pair: forecasts.trust(store, now, Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip), now - MOVES_SHOWN_S)
        for pair in pairs
    }
    horizons = [
        {
            "pair": asdict(pair),
            "horizon_s": trust.tiers.get("fast", UNTRUSTED).horizon_s or None,
            "trust": {tier: asdict(one) | {"sentence": one.describe()} for tier, one in trust.tiers.items()},
            "moves": [_move(one) for one in trust.moves],
        }
        for pair, trust in trusts.items()
    ]
    if emit({"forecasts": [asdict(row) for row in rows], "horizons": horizons}, json):
        return
    for pair, trust in trusts.items():
        trusted_s = trust.tiers.get("fast", UNTRUSTED).horizon_s
        console.print(_plot(store, [row for row in rows if row.pair == pair], now, trusted_s))
        for tier, one in trust.tiers.items():
            console.print(f"{pair.source} -> {pair.virtual_ip} ({tier}): {one.describe()}")
        for move in trust.moves[-3:]:
            console.print(f"  {now - move.t:.0f} s ago {move.from_s} s -> {move.to_s} s: {move.reason}")
    _print_forecasts(rows, wide)


def _move(one: Any) -> dict[str, Any]:
    return {"t": one.t, "from_s": one.from_s, "to_s": one.to_s, "reason": one.reason}


def _print_forecasts(rows: list[Forecast], wide: bool) -> None:
    shown = [
        (
            row.pair.source,
            row.pair.virtual_ip,
            f"{row.horizon_s} s",
            row.model,
            *(rate(row.at(level)) for level in LEVELS),
        )
        for row in rows
        if row.quantity is Quantity.BYTES_PEAK
    ]
    columns = ["source", "virtual IP", "horizon", "model", *(f"q{level * 100:.0f}" for level in LEVELS)]
    print_table("forecasts: peak over the window", columns, shown, TableLayout(tuple(columns[:4]), SPARE, wide))


def _of_pair(store: Store, now: float, source: str, service: str | None) -> list[Forecast]:
    rows = store.forecasts.latest(now, views.FORECAST_MAX_AGE_S)
    addresses = {item.address for item in store.inventory.virtual_ips() if service in (None, item.name, item.address)}
    found = [row for row in rows if row.pair.source == source and row.pair.virtual_ip in addresses]
    if not found:
        known = ", ".join(sorted({str(row.pair) for row in rows})) or "none yet; is `forepath predict` running?"
        raise SettingsError(f"no forecast for {source} -> {service or 'any'}; pairs with a forecast: {known}")
    return found


HISTORY_S = 90.0
FAN_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
MBIT_PER_BYTE = 8 / 1e6


def _plot(store: Store, rows: list[Forecast], now: float, trusted_s: int = 0) -> Text:
    """The pair's history (Mbit/s) and, to the right of now, the peak expected within each horizon as quantiles.

    A vertical line stands at `trusted_s`, the horizon in force (0 = not known).
    """
    pair = rows[0].pair
    ahead = sorted((row for row in rows if row.quantity is Quantity.BYTES_PEAK), key=lambda row: row.horizon_s)
    history = [row for row in store.facts.communications(now - HISTORY_S, now) if row.pair == pair]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(min(100, console.width), 20)
    if history:
        plotext.plot([row.t - now for row in history], [_mbit(row) for row in history], label="measured")
    for level in _levels(ahead):
        seconds = [float(row.horizon_s) for row in ahead]
        values = [row.at(level) * MBIT_PER_BYTE for row in ahead]
        plotext.plot(seconds, values, label=f"peak within, q{level * 100:.0f}", marker="braille")
    if trusted_s:
        plotext.vline(float(trusted_s))
    trusted = f", trusted {trusted_s} s ahead (line)" if trusted_s else ""
    plotext.title(f"{pair.source} -> {pair.virtual_ip}, Mbit/s{trusted}")
    plotext.xlabel("seconds from now")
    return Text.from_ansi(plotext.build())


def _levels(ahead: list[Forecast]) -> list[float]:
    """Of the levels that there are, those that a fan is drawn with."""
    known = {level for row in ahead for level in row.quantiles}
    return [level for level in FAN_LEVELS if level in known]


def _mbit(row: Communication) -> float:
    return row.bytes / row.interval_s * MBIT_PER_BYTE if row.interval_s else 0.0
