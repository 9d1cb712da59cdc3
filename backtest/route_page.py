"""Writes what routing reached as one HTML page with its plots inside."""

import html
from typing import Any

import numpy as np

from backtest import svg
from backtest.page import STYLE
from backtest.route_run import AUTO, Routed

COLUMNS = {
    "mean": "mean", "p50": "p50", "p95": "p95", "p99": "p99", "max": "max", "share_above_2": "share above 2",
    "churn": "churn", "seconds_per_decision": "CPU s a decision",
}  # fmt: skip
SHOWN = (AUTO, "last", "forecast", "equal")


def route_page(outcome: Routed) -> str:
    """The whole page as text."""
    report = outcome.report
    title = html.escape(f"Routing {report['file']} on {report['topology']}")
    ratios = outcome.ratios
    top = max(2.0, float(max(np.quantile(ratios[name], 0.999) for name in SHOWN)))
    parts = [
        f"<h1>{title}</h1><p>{_summary(report)}</p>",
        "<h2>Maximum link utilisation, in units of the best possible</h2>",
        svg.bars(("mean", "p95", "p99"), {n: [s[k] for k in ("mean", "p95", "p99")] for n, s in _figures(report)}),
        _table(report),
        "<h2>Share of rows below a ratio</h2>",
        _distribution(outcome, top),
        "<h2>Row by row</h2>",
        _rows(outcome, top),
        f"<p>{_explained()}</p>",
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _figures(report: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return list(report["strategies"].items())


def _summary(report: dict[str, Any]) -> str:
    return (
        f"{report['nodes']} nodes, {report['links']} links, {report['pairs']} pairs on {report['paths']} paths; "
        f"{report['snapshots']} matrices judged, each split decided from earlier rows only."
    )


def _table(report: dict[str, Any]) -> str:
    best = min(figures["mean"] for _, figures in _figures(report))
    head = "".join(f"<th>{name}</th>" for name in COLUMNS.values())
    rows = "".join(
        f"<tr{' class=best' if figures['mean'] == best else ''}><td>{html.escape(name)}</td>"
        + "".join(f"<td>{figures[key]:.4f}</td>" for key in COLUMNS)
        + "</tr>"
        for name, figures in _figures(report)
    )
    return f"<table><tr><th>strategy</th>{head}</tr>{rows}</table>"


def _distribution(outcome: Routed, top: float) -> str:
    grid = np.linspace(1.0, top, 300)
    curves = {
        name: (svg.colour(number), np.array([(outcome.ratios[name] <= ratio + 1e-9).mean() for ratio in grid]))
        for number, name in enumerate(SHOWN)
    }
    return svg.lines(svg.Frame(1.0, top, 0.0, 1.0), grid, curves)


def _rows(outcome: Routed, top: float) -> str:
    rows = np.array(outcome.rows[-600:])
    curves = {name: (svg.colour(number), outcome.ratios[name][-600:]) for number, name in enumerate(SHOWN[:2])}
    return svg.lines(svg.Frame(rows[0], rows[-1], 1.0, top), rows, curves)


def _explained() -> str:
    return (
        "MLU ratio: maximum link utilisation over what the best split of that very row would have had, on the same "
        "paths. "
        "Churn: share of a pair's traffic that changes its path from row to row, mean over pairs and rows. "
        "last, ewma, forecast: the best split of one matrix that is taken for the next one. hedged: the split of least "
        "risk over matrices seen before, renewed on a schedule; auto: the same, renewed at once when a row went worse "
        "than anything it was hedged against, and moved only where it pays. A decision costs the CPU seconds shown, "
        "the optimum of each new row included where the strategy needs it."
    )
