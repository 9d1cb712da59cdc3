"""Writes the report as one HTML file with its plots inside, to be read anywhere and without a network."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest import svg
from backtest.protocol import Answer, Question

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;font-size:.88em}
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#555}
.best{font-weight:bold}.legend span{margin-right:1.2em}
.legend i{display:inline-block;width:.9em;height:.9em;margin-right:.35em}
"""
COLUMNS = {
    "wape": "WAPE", "mase": "MASE", "rmsse": "RMSSE", "wql": "wQL", "coverage_q90": "q90 coverage",
    "peak_miss": "peaks missed", "false_alarm": "false alarms", "skill": "skill",
}  # fmt: skip
EXPLAINED = (
    "WAPE: sum of absolute errors over sum of values, all series pooled. MASE and RMSSE: errors in units of the "
    "one-step change on the train rows, mean over series. wQL: weighted quantile loss at 0.1, 0.5 and 0.9.",
    "q90 coverage: how often the truth stayed at or below the 0.9 quantile. Peaks missed: share of rows above the "
    "series' 95th percentile for which the 0.9 quantile was more than a tenth too low; false alarms: share of the "
    "other rows for which it was above that percentile.",
    "Skill: 1 - WAPE / WAPE of the best simple method. Simple methods are those of the textbooks; their bands are "
    "their own errors on the train rows.",
)
SHOWN_ROWS = 240
SHOWN_SERIES = 4


def page(question: Question, report: Mapping[str, Any], answers: Mapping[str, Answer]) -> str:
    """The whole page as text; `answers` are those that are drawn, `auto` first."""
    models = report["models"]
    parts = [
        f"<h1>Backtest of {html.escape(report['file'])}</h1>",
        f"<p>{_summary(report)}</p>",
        "<h2>Error of each model (WAPE)</h2>",
        svg.bars(_ahead(question), {name: _row(question, one) for name, one in models.items()}),
    ]
    for at in question.horizons:
        parts += [f"<h2>{at} rows ahead</h2>", _table({n: one["horizons"][str(at)] for n, one in models.items()})]
    for at in question.windows:
        parts += [
            f"<h2>Mean of the next {at} rows</h2>",
            _table({n: one["windows"][str(at)] for n, one in models.items()}),
        ]
    parts += ["<h2>How often the quantiles held</h2>", _calibration(question, answers)]
    parts += ["<h2>The end of the largest series</h2>", *_series(question, answers), _costs(models), _explained()]
    title = f"Backtest of {html.escape(report['file'])}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _summary(report: Mapping[str, Any]) -> str:
    return (
        f"{report['series_scored']} of {report['series']} series scored, "
        f"{report['rows']} rows of {report['step_s']:g} s; "
        f"learnt on the first {report['train_rows']}, judged on the last {report['test_rows']}. "
        f"{report['missing']:.1%} of the cells are missing. Every forecast was made from earlier rows only."
    )


def _ahead(question: Question) -> list[str]:
    return [f"+{at}" for at in question.horizons] + [f"mean of {at}" for at in question.windows]


def _row(question: Question, one: Mapping[str, Any]) -> list[float]:
    rows = [one["horizons"][str(at)]["wape"] for at in question.horizons]
    return rows + [one["windows"][str(at)]["wape"] for at in question.windows]


def _table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    keys = [key for key in COLUMNS if any(key in one for one in figures.values())]
    best = min((one["wape"] for one in figures.values() if math.isfinite(one["wape"])), default=math.nan)
    head = "".join(f"<th>{COLUMNS[key]}</th>" for key in keys)
    rows = [
        f"<tr{' class=best' if one['wape'] == best else ''}><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_number(one.get(key))}</td>" for key in keys)
        + "</tr>"
        for name, one in figures.items()
    ]
    return f"<table><tr><th>model</th>{head}</tr>{''.join(rows)}</table>"


def _number(value: Any) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _calibration(question: Question, answers: Mapping[str, Answer]) -> str:
    curves = {}
    for number, (name, answer) in enumerate(answers.items()):
        truth, fan = question.truth(question.asked[0]), answer.fans[0]
        known = ~np.isnan(truth)
        held = [
            float((truth <= fan[..., at])[known].mean()) if known.any() else math.nan for at in range(fan.shape[-1])
        ]
        curves[name] = (svg.colour(number), np.array(held))
    levels = np.array(question.levels)
    curves["as promised"] = ("#999", levels)
    return svg.lines(svg.Frame(0, 1, 0, 1), levels, curves)


def _series(question: Question, answers: Mapping[str, Answer]) -> Sequence[str]:
    name, answer = next(iter(answers.items()))
    truth, fan = question.truth(question.asked[0]), answer.fans[0]
    order = np.argsort(-np.nan_to_num(truth).sum(axis=1))[:SHOWN_SERIES]
    rows = np.arange(question.recording.rows)[-truth.shape[1] :][-SHOWN_ROWS:]
    drawn = []
    for place in order.tolist():
        seen, said = truth[place][-SHOWN_ROWS:], fan[place][-SHOWN_ROWS:]
        low, high = said[:, 1], said[:, question.upper]
        top = float(np.nanmax([np.nanmax(np.nan_to_num(seen)), np.nanmax(high), 1e-9]))
        curves = {"measured": ("#222", seen), f"{name}, median": (svg.colour(0), said[:, question.middle])}
        label = html.escape(question.recording.names[question.scored[place]])
        drawn.append(f"<h3>{label}, {question.asked[0].ahead} rows ahead, band from q10 to q90</h3>")
        drawn.append(svg.lines(svg.Frame(rows[0], rows[-1], 0, top), rows, curves, (low, high)))
    return drawn


def _costs(models: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{one['fit_seconds']:.2f}</td><td>{one['predict_seconds']:.2f}</td></tr>"
        for name, one in models.items()
    )
    return (
        f"<h2>What it cost (CPU seconds)</h2><table><tr><th>model</th><th>fit</th><th>predict</th></tr>{rows}</table>"
    )


def _explained() -> str:
    return f"<h2>What the figures mean</h2>{''.join(f'<p>{line}</p>' for line in EXPLAINED)}"
