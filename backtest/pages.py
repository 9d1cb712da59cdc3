"""Writes a report as one HTML file with its plots inside, to be read anywhere and without a network."""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backtest.protocol import BacktestTask, MethodForecast
from backtest.route_run import AUTO, RouteReplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[Any]
INCHES = (8.6, 2.6)
NOT_FOR_HTML = re.compile(r'<metadata>.*?</metadata>| xmlns(:\w+)?="[^"]*"', re.DOTALL)
# Told apart by people with the common kinds of colour blindness: Okabe and Ito, 2008.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


@dataclass(frozen=True, slots=True)
class Band:
    """What lies between two curves."""

    low: Floats
    high: Floats


def line_plot(
    x: Floats,
    curves: Mapping[str, Floats],
    top: float | None = None,
    band: Band | None = None,
    marks: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Curves (name -> values, NaN = gap) over x, from 0 or 1 up to `top`, above a shaded band if there is one.

    `marks` are moments of a curve's name, drawn in its colour below the axis.
    """
    figure, axes = _axes()
    if band is not None:
        axes.fill_between(x, band.low, band.high, color=COLOURS[0], alpha=0.2, linewidth=0)
    for number, (name, values) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, values, color=colour, linewidth=1.2, label=name)
        moments, below = (marks or {}).get(name, ()), [-0.02 * (number + 1)] * len((marks or {}).get(name, ()))
        axis = axes.get_xaxis_transform()
        axes.plot(moments, below, "|", color=colour, markersize=3, transform=axis, clip_on=False)
    axes.margins(x=0)
    if top is not None:
        axes.set_ylim(top=top)
    return _svg(figure, axes)


def bar_plot(groups: Sequence[str], values: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each group name, one bar a series name (same colour in all groups); NaN is no bar."""
    figure, axes = _axes()
    width = 0.86 / max(len(values), 1)
    for number, (name, heights) in enumerate(values.items()):
        left = np.arange(len(groups)) - 0.43 + width * (number + 0.5)
        colour, hatch = COLOURS[number % len(COLOURS)], "//" if number >= len(COLOURS) else ""
        axes.bar(left, heights, width * 0.92, color=colour, hatch=hatch, label=name)
    axes.set_xticks(range(len(groups)), groups)
    return _svg(figure, axes)


def _axes() -> "tuple[Figure, Axes]":
    # Imported here: most runs of a backtest draw nothing. A Figure of its own needs no display and no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: "Figure", axes: "Axes") -> str:
    from matplotlib import rc_context

    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    text = io.StringIO()
    # Letters stay letters, and the same figures give the same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "forepath"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    # HTML knows the namespaces by itself; what describes the file in RDF is of no use inside a page.
    return NOT_FOR_HTML.sub("", drawn[drawn.index("<svg") :])


FORECAST_COLUMNS = {
    "wape": "WAPE", "mase": "MASE", "rmsse": "RMSSE", "wql": "wQL", "coverage_q90": "q90 coverage",
    "peak_miss": "peaks missed", "false_alarm": "false alarms", "skill": "skill",
}  # fmt: skip
FORECAST_NOTES = (
    "WAPE: sum of absolute errors over sum of values, all series pooled. MASE and RMSSE: errors in units of the "
    "one-step change on the train rows, mean over series. wQL: weighted quantile loss at 0.1, 0.5 and 0.9.",
    "q90 coverage: how often the truth stayed at or below the 0.9 quantile. Peaks missed: share of rows above the "
    "series' 95th percentile for which the 0.9 quantile was more than a tenth too low; false alarms: share of the "
    "other rows for which it was above that percentile.",
    "Skill: 1 - WAPE / WAPE of the best simple method. Simple methods are those of the textbooks; their bands are "
    "their own errors on the train rows.",
)
ROUTE_COLUMNS = {
    "mean": "mean", "p50": "p50", "p95": "p95", "p99": "p99", "max": "max", "share_above_2": "share above 2",
    "churn": "churn", "seconds_per_decision": "CPU s a decision",
}  # fmt: skip
ROUTE_NOTES = (
    "MLU ratio: maximum link utilisation over what the best split of that very row would have had, on the same paths. "
    "Churn: share of a pair's traffic that changes its path from row to row, mean over pairs and rows. "
    "last, ewma, forecast: the best split of one matrix that is taken for the next one. hedged: the split of least "
    "risk over matrices seen before, renewed on a schedule; auto: the same, renewed at once when a row went worse "
    "than anything it was hedged against, and moved only where it pays. A decision costs the CPU seconds shown, "
    "the optimum of each new row included where the strategy needs it.",
)
ROUTE_CURVES = (AUTO, "last", "forecast", "equal")
SHOWN_ROWS = 240
SHOWN_ROUTE_ROWS = 600
SHOWN_SERIES = 4


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of the page; `best` are the rows that stand out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ReportPart:
    """What stands below one heading; `plot` is SVG text."""

    title: str
    plot: str = ""
    table: ReportTable | None = None
    lines: tuple[str, ...] = ()
    heading: str = "h2"


def forecast_page(question: BacktestTask, report: Mapping[str, Any], answers: Mapping[str, MethodForecast]) -> str:
    """The whole page as text; `answers` are those that are drawn, `auto` first."""
    summary = (
        f"{report['series_scored']} of {report['series']} series scored, "
        f"{report['rows']} rows of {report['step_s']:g} s; "
        f"learnt on the first {report['train_rows']}, judged on the last {report['test_rows']}. "
        f"{report['missing']:.1%} of the cells are missing. Every forecast was made from earlier rows only."
    )
    return render_page(f"Backtest of {report['file']}", summary, [*_forecast_parts(question, report, answers)])


def route_page(outcome: RouteReplay) -> str:
    """The whole page as text."""
    report = outcome.report
    summary = (
        f"{report['nodes']} nodes, {report['links']} links, {report['pairs']} pairs on {report['paths']} paths; "
        f"{report['snapshots']} matrices judged, each split decided from earlier rows only."
    )
    return render_page(f"Routing {report['file']} on {report['topology']}", summary, [*_route_parts(outcome)])


def render_page(title: str, summary: str, parts: list[ReportPart]) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Everything is escaped but the plots: names in recordings are anybody's.
    loader = PackageLoader("backtest", "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template("page.html.jinja").render(title=title, summary=summary, parts=parts) + "\n"


def _forecast_parts(
    question: BacktestTask, report: Mapping[str, Any], answers: Mapping[str, MethodForecast]
) -> Iterator[ReportPart]:
    models = report["models"]
    kinds = [("horizons", at, f"{at} rows ahead", f"+{at}") for at in question.horizons]
    kinds += [("windows", at, f"Mean of the next {at} rows", f"mean of {at}") for at in question.windows]
    errors = {name: [figures[kind][str(at)]["wape"] for kind, at, *_ in kinds] for name, figures in models.items()}
    yield ReportPart("Error of each model (WAPE)", bar_plot([label for *_, label in kinds], errors))
    for kind, at, title, _ in kinds:
        rows = {name: figures[kind][str(at)] for name, figures in models.items()}
        yield ReportPart(title, table=_figures_table(rows, FORECAST_COLUMNS, "wape"))
    yield ReportPart("How often the quantiles held", _calibration(question, answers))
    yield ReportPart("The end of the largest series")
    yield from _largest_series(question, answers)
    costs = tuple((name, f"{one['fit_seconds']:.2f}", f"{one['predict_seconds']:.2f}") for name, one in models.items())
    yield ReportPart("What it cost (CPU seconds)", table=ReportTable(("model", "fit", "predict"), costs))
    yield ReportPart("What the figures mean", lines=FORECAST_NOTES)


def _figures_table(figures: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str], judged: str) -> ReportTable:
    keys = [key for key in columns if any(key in row for row in figures.values())]
    best = min((row[judged] for row in figures.values() if math.isfinite(row[judged])), default=math.nan)
    rows = tuple((name, *(_number(row.get(key)) for key in keys)) for name, row in figures.items())
    winners = frozenset(place for place, row in enumerate(figures.values()) if row[judged] == best)
    return ReportTable(("", *(columns[key] for key in keys)), rows, winners)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _calibration(question: BacktestTask, answers: Mapping[str, MethodForecast]) -> str:
    levels = np.array(question.levels)
    truth = question.truth(question.asked[0])
    known = ~np.isnan(truth)
    curves = {
        name: np.array([(truth <= answer.quantiles_by_target[0][..., at])[known].mean() if known.any() else math.nan
                        for at in range(len(levels))])
        for name, answer in answers.items()
    }  # fmt: skip
    return line_plot(levels, {**curves, "as promised": levels}, 1.0)


def _largest_series(question: BacktestTask, answers: Mapping[str, MethodForecast]) -> Iterator[ReportPart]:
    name, answer = next(iter(answers.items()))
    truth, quantiles = question.truth(question.asked[0]), answer.quantiles_by_target[0]
    order = np.argsort(-np.nan_to_num(truth).sum(axis=1))[:SHOWN_SERIES]
    rows = np.arange(question.recording.rows)[-truth.shape[1] :][-SHOWN_ROWS:]
    for place in order.tolist():
        measured, forecast = truth[place][-SHOWN_ROWS:], quantiles[place][-SHOWN_ROWS:]
        curves = {f"{name}, median": forecast[:, question.middle], "measured": measured}
        label = question.recording.names[question.scored[place]]
        title = f"{label}, {question.asked[0].ahead} rows ahead, band from q10 to q90"
        band = Band(forecast[:, 1], forecast[:, question.upper])
        yield ReportPart(title, line_plot(rows, curves, band=band), heading="h3")


def _route_parts(outcome: RouteReplay) -> Iterator[ReportPart]:
    strategies = outcome.report["strategies"]
    ratios = outcome.ratios
    top = max(2.0, float(max(np.quantile(ratios[name], 0.999) for name in ROUTE_CURVES)))
    measures = ("mean", "p95", "p99")
    yield ReportPart(
        "Maximum link utilisation, in units of the best possible",
        bar_plot(measures, {name: [row[measure] for measure in measures] for name, row in strategies.items()}),
        _figures_table(strategies, ROUTE_COLUMNS, "mean"),
    )
    grid = np.linspace(1.0, top, 300)
    shares = {name: np.array([(ratios[name] <= ratio + 1e-9).mean() for ratio in grid]) for name in ROUTE_CURVES}
    yield ReportPart("Share of rows below a ratio", line_plot(grid, shares, 1.0))
    latest = {name: ratios[name][-SHOWN_ROUTE_ROWS:] for name in ROUTE_CURVES[:2]}
    rows = np.array(outcome.rows[-SHOWN_ROUTE_ROWS:])
    yield ReportPart("Row by row", line_plot(rows, latest, top), lines=ROUTE_NOTES)
