"""The page of a comparison, one file: policies side by side, shortage over time, the worst seconds and why."""

from collections.abc import Iterator

import numpy as np

from backtest.pages import ReportPart, ReportTable, bar_plot, line_plot, render_page
from backtest.whatif.compare import SHORT_BYTES, SHORT_CORES, Comparison, count_actions
from backtest.whatif.cost import short_cores
from backtest.whatif.recording import show_pair
from backtest.whatif.records import DoneAction, Floats, PolicyRun, ReplayPolicy
from cpdb import show_rate

WORST = 10
# Longer recordings are drawn as means of so many parts.
DRAWN = 600
# An action explains a second when it was decided at most so long before.
ABOUT_S = 30.0
NAMED = 3
FIGURES = {
    "cost": "cost", "short_core_s": "cores short, core s", "idle_core_s": "idle, core s",
    "short_link_s": "links short, link s", "short_cpu_s": "s short of CPU", "short_bandwidth_s": "s short of bandwidth",
    "p95_latency_s": "p95 latency, s", "competitors_delivered_share": "competitors delivered",
}  # fmt: skip
NOTES = (
    "Cost: what being short costs, r x (core-seconds short + weighted link-seconds short), plus core-seconds that idle "
    "above the base limit, link-seconds of copying and core-seconds of pauses. A byte that waits counts for each "
    "second of that. Reactive is the live reactive policy; oracle is the planner of predictive, fed with the true "
    "future; the bound is the least that any schedule could cost if everything took effect at once and for nothing.",
    "Gain share: (reactive - predictive) / (reactive - oracle); its interval is a paired block bootstrap over seconds.",
)


def whatif_page(found: Comparison) -> str:
    """The whole page as text; names in it are anybody's and are escaped."""
    document = found.document()
    summary = (
        f"{document['verdict']} {document['seconds']} seconds judged after a warm-up of {document['warm_up_s']} s; "
        f"settings: {document['settings']}; bound: {document['bound']['cost']:.4g}."
    )
    return render_page(f"What if: {document['recording']}", summary, [*_parts(found)])


def _parts(found: Comparison) -> Iterator[ReportPart]:
    document = found.document()
    figures, judged = document["policies"], found.task.judged
    rows = tuple((name, *(f"{row[key]:.4g}" for key in FIGURES)) for name, row in figures.items())
    cheapest = min(range(len(rows)), key=lambda place: list(figures.values())[place]["cost"])
    yield ReportPart("Policies side by side", table=ReportTable(("", *FIGURES.values()), rows, frozenset({cheapest})))
    parts = next(iter(figures.values()))["cost_by_part"]
    bars = {part: [row["cost_by_part"][part] for row in figures.values()] for part in parts}
    yield ReportPart("Cost by part", bar_plot(list(figures), bars))
    seconds = np.flatnonzero(judged).astype(np.float64)
    curves = {policy.value: _drawn(found.by_second(policy)) for policy in found.runs}
    marks = {
        policy.value: [action.t for action in found.judged_actions(policy) if not action.code] for policy in found.runs
    }
    yield ReportPart("Cost by second, and when something was done", line_plot(_drawn(seconds), curves, marks=marks))
    for policy in found.runs:
        counts = count_actions(found.judged_actions(policy))
        if counts:
            lines = tuple((kind, *(str(count) for count in row.values())) for kind, row in counts.items())
            head = ("kind", "done", "refused", "not needed")
            yield ReportPart(f"Actions of {policy.value}", table=ReportTable(head, lines), heading="h3")
    yield from _worst(found)
    if document["left_out"] or document["lower_bound"]:
        yield ReportPart("What was left out of the recording", lines=tuple(document["left_out"]))
    yield ReportPart("What the figures mean", lines=NOTES)


def _drawn(values: Floats) -> Floats:
    if len(values) <= DRAWN:
        return values
    return np.array([part.mean() for part in np.array_split(values, DRAWN)])


def _worst(found: Comparison) -> Iterator[ReportPart]:
    """The dearest seconds of predictive, or of what was replayed last, each with what was short and what was done."""
    policy = ReplayPolicy.PREDICTIVE if ReplayPolicy.PREDICTIVE in found.runs else list(found.runs)[-1]
    costs = found.by_second(policy)
    seconds = np.flatnonzero(found.task.judged)
    order = [place for place in np.argsort(-costs, kind="stable")[:WORST].tolist() if costs[place] > 0]
    rows = tuple(
        (str(seconds[place]), f"{costs[place]:.3g}", explain_second(found, policy, int(seconds[place])))
        for place in order
    )
    table = ReportTable(("t", "cost", "what was short, and what was done about it"), rows)
    if rows:
        yield ReportPart(f"The worst seconds of {policy.value}", table=table)


def explain_second(found: Comparison, policy: ReplayPolicy, second: int) -> str:
    """What was short in a second under a policy, how much of it, and the last word about each before that."""
    run = found.runs[policy]
    reasons = [*_short_machines(run, second), *_short_pairs(found, run, second)]
    texts = []
    for _, target, text in sorted(reasons, key=lambda reason: -reason[0])[:NAMED]:
        action = _about(run, target, second)
        texts.append(text if action is None else f"{text}; {_told(action)}")
    return ". ".join(texts) or "copying, pauses or cores that idle"


def _short_machines(run: PolicyRun, second: int) -> Iterator[tuple[float, str, str]]:
    lacking = short_cores(run.vms)[second]
    for column in np.flatnonzero(lacking > SHORT_CORES).tolist():
        name, need, allowed = run.vms.names[column], run.vms.need[second, column], run.vms.allowed[second, column]
        host = "" if run.vms.where is None else f" on {run.vms.places[run.vms.where[second, column]]}"
        yield float(lacking[column]), name, f"{name}{host} needs {need:.2f} cores and may use {allowed:.2f}"


def _short_pairs(found: Comparison, run: PolicyRun, second: int) -> Iterator[tuple[float, str, str]]:
    lacking = found.costs[run.policy].short_link_s[second]
    for column, pair in enumerate(found.task.load.pairs):
        waiting, allowed = found.costs[run.policy].short_bytes[second, column], run.pairs.allowed[second, column]
        if waiting > SHORT_BYTES:
            name = show_pair(pair, found.task.scene)
            text = f"{name} may send {show_rate(allowed)} and {waiting / 1e3:.3g} kB wait or are given up"
            yield float(lacking[column]), str(pair), text


def _about(run: PolicyRun, target: str, second: int) -> DoneAction | None:
    """The last action or refusal about a machine or a pair that was decided before the second had passed."""
    near = [action for action in run.actions if target in action.target and second - ABOUT_S <= action.t <= second + 1]
    return max(near, key=lambda action: action.t, default=None)


def _told(action: DoneAction) -> str:
    word = f"refused ({action.code})" if action.code else "done"
    return f"{action.kind} at t = {action.t:.0f} {word}: {action.sentence}"
