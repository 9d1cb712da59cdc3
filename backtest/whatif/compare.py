"""Policies side by side: what each cost and its parts, what foresight gained and how sure that is, in one document."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest.reading import RecordingError
from backtest.whatif.bound import least_costs
from backtest.whatif.cost import RunCost, price_run, short_cores
from backtest.whatif.recording import show_pair
from backtest.whatif.records import (
    DoneAction,
    Flags,
    Floats,
    ObjectSeries,
    OfferedLoad,
    PolicyRun,
    ReplayPolicy,
    ReplayScene,
)

REACTIVE, PREDICTIVE, ORACLE = ReplayPolicy.REACTIVE, ReplayPolicy.PREDICTIVE, ReplayPolicy.ORACLE
# Shortage below this is rounding: half a byte, a thousandth of a millicore.
SHORT_BYTES, SHORT_CORES = 0.5, 1e-6
# Where even the true future spares less than this share of reacting's cost, there is no gain to speak of.
LEAST_GAIN = 0.01
# Costs that differ by less than this share are said to be the same.
NO_BETTER = 0.02
RESAMPLES, BLOCK_S, BLOCKS = 1000, 60, 10


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """What is replayed: names for the report, the load and its scene, and how many seconds only warm up."""

    recording: str
    settings: str
    scene: ReplayScene
    load: OfferedLoad
    warm_up_s: int
    seed: int = 1

    @property
    def judged(self) -> Flags:
        """The seconds after the warm-up of which something is known (seconds,)."""
        return self.load.known & (np.arange(self.load.seconds) >= self.warm_up_s)

    @property
    def cost_of_short(self) -> float:
        """What being short costs, in units of what idling costs."""
        return self.scene.orchestrator.demand.cost_of_short


def warm_up_seconds(recording: str, load: OfferedLoad, warm_up: float) -> int:
    """Seconds that only warm up: a share of the recording below 1, else seconds.

    Raises RecordingError where no second is left to judge.
    """
    seconds = math.floor(warm_up * load.seconds if warm_up < 1 else warm_up)
    if not load.known[seconds:].any():
        raise RecordingError(
            f"{recording}: has {load.seconds} s, and --warm-up {warm_up:g} takes the first {seconds} s of them: "
            "nothing is left to judge; give a smaller --warm-up or a longer recording"
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one task with their costs, and the least cost of each second (seconds,)."""

    task: ReplayTask
    runs: Mapping[ReplayPolicy, PolicyRun]
    costs: Mapping[ReplayPolicy, RunCost]
    bound: Floats

    def cost(self, policy: ReplayPolicy) -> float:
        """A policy's cost over the judged seconds."""
        return float(self.by_second(policy).sum())

    def by_second(self, policy: ReplayPolicy) -> Floats:
        """A policy's cost in each judged second."""
        return self.costs[policy].by_second(self.task.cost_of_short)[self.task.judged]

    @property
    def gain_share(self) -> float | None:
        """(reactive - predictive) / (reactive - oracle), None where the oracle gains next to nothing."""
        if not {REACTIVE, PREDICTIVE, ORACLE} <= self.runs.keys():
            return None
        reactive = self.cost(REACTIVE)
        possible = reactive - self.cost(ORACLE)
        if possible <= 0 or possible < LEAST_GAIN * reactive:
            return None
        return (reactive - self.cost(PREDICTIVE)) / possible

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the gain share by a paired circular block bootstrap (Politis and Romano, 1992).

        Blocks of a minute (a tenth of shorter recordings) keep surges whole; all policies at the same seconds.
        """
        if (gain := self.gain_share) is None:
            return None
        costs = np.stack([self.by_second(policy) for policy in (REACTIVE, PREDICTIVE, ORACLE)])
        shares = _resampled(costs, np.random.default_rng(self.task.seed))
        low, high = np.quantile(shares, [0.025, 0.975]) if len(shares) else (gain, gain)
        return min(float(low), gain), max(float(high), gain)

    def document(self) -> dict[str, Any]:
        """The JSON document; docs/whatif.md says what each figure is."""
        task, interval, bound = self.task, self.interval, float(self.bound.sum())
        oracle = self.cost(ORACLE) if ORACLE in self.runs else None
        return {
            "recording": task.recording,
            "settings": task.settings,
            "seconds": int(task.judged.sum()),
            "warm_up_s": task.warm_up_s,
            "cost_of_short": task.cost_of_short,
            "policies": {policy.value: self._figures(policy) for policy in self.runs},
            "bound": {"cost": bound},
            "gain_share": self.gain_share,
            "interval": None if interval is None else list(interval),
            "oracle_over_bound": oracle / bound if oracle is not None and bound > 0 else None,
            "verdict": self.verdict(),
            "lower_bound": task.load.lower_bound,
            "left_out": list(task.load.left_out),
        }

    def _figures(self, policy: ReplayPolicy) -> dict[str, Any]:
        task, run, cost, judged = self.task, self.runs[policy], self.costs[policy], self.task.judged
        offered, delivered = run.pairs.need[judged], run.delivered_bytes[judged]
        short_bytes = cost.short_bytes[judged]
        return {
            "cost": self.cost(policy),
            "short_core_s": float(cost.short_cores[judged].sum()),
            "idle_core_s": float(cost.idle_cores[judged].sum()),
            "short_bytes": float(short_bytes.sum()),
            "short_link_s": float(cost.short_link_s[judged].sum()),
            "short_bandwidth_s": int((short_bytes > SHORT_BYTES).any(axis=1).sum()),
            "short_cpu_s": int((short_cores(run.vms)[judged] > SHORT_CORES).any(axis=1).sum()),
            "offered_bytes": float(offered.sum()),
            "delivered_bytes": float(_delivered(offered, delivered).sum()),
            "p95_latency_s": weighted_quantile(run.latency_s[judged], delivered, 0.95),
            "competitors_delivered_share": _delivered_share(task, offered, delivered),
            "actions": count_actions(self.judged_actions(policy)),
            "cost_by_part": {
                part: float(values[judged].sum()) for part, values in cost.by_part(task.cost_of_short).items()
            },
        }

    def judged_actions(self, policy: ReplayPolicy) -> tuple[DoneAction, ...]:
        """What was decided in judged seconds, done or refused."""
        judged = self.task.judged
        return tuple(
            action for action in self.runs[policy].actions if 0 <= action.t < len(judged) and judged[int(action.t)]
        )

    def verdict(self) -> str:
        """One sentence for a person who has to decide whether to let forepath act."""
        if not {REACTIVE, PREDICTIVE} <= self.runs.keys():
            return f"No verdict without both reactive and predictive; replayed: {', '.join(self.runs) or 'nothing'}."
        reactive, predictive = self.cost(REACTIVE), self.cost(PREDICTIVE)
        costs = f"predicting costs {predictive:.4g}, reacting {reactive:.4g}"
        if self.gain_share is None or (interval := self.interval) is None:
            same = "Nothing to gain by foresight here" if ORACLE in self.runs else "No oracle, no gain share"
            return f"{same}: {costs}."
        sure = f"gain share {self.gain_share:.2f}, interval {interval[0]:.2f} to {interval[1]:.2f}"
        if predictive > (1 + NO_BETTER) * reactive:
            return f"Reacting is better here: {costs} ({sure})."
        if predictive > (1 - NO_BETTER) * reactive or interval[0] <= 0:
            return f"No better than reacting here: {costs} ({sure})."
        return f"Predicting would have helped here: {costs}, {100 * (1 - predictive / reactive):.0f} % less ({sure})."


def compare_runs(task: ReplayTask, runs: Sequence[PolicyRun], told: Callable[[str], None] | None = None) -> Comparison:
    """Prices each run and the bound. Raises SettingsError where a way or a capacity is not declared."""
    costs = {run.policy: price_run(task.scene, task.load, run, task.judged) for run in runs}
    if told is not None:
        told("bound")
    bound = least_costs(task.scene, task.load, task.judged)
    return Comparison(task, {run.policy: run for run in runs}, costs, bound)


def count_actions(actions: Sequence[DoneAction]) -> dict[str, dict[str, int]]:
    """Kind of action -> how many were done, refused, and done without need."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"done": 0, "refused": 0, "unneeded": 0})
    for action in actions:
        count = found[action.kind]
        count["refused" if action.code else "done"] += 1
        count["unneeded"] += not action.code and action.needed is False
    return {kind: dict(found[kind]) for kind in sorted(found)}


def _resampled(costs: Floats, rng: np.random.Generator) -> Floats:
    """Gain shares of resampled seconds; `costs` is reactive, predictive, oracle x seconds."""
    seconds = costs.shape[1]
    block = max(1, min(BLOCK_S, seconds // BLOCKS))
    starts = rng.integers(0, seconds, (RESAMPLES, -(-seconds // block)))
    # Sums of circular blocks from running totals: the last block of a resample may exceed the length by a few seconds.
    running = np.concatenate(
        [np.zeros((3, 1)), np.cumsum(np.concatenate([costs, costs[:, :block]], axis=1), axis=1)], 1
    )
    sums = (running[:, block:] - running[:, :-block])[:, :seconds]
    reactive, predictive, oracle = sums[:, starts].sum(axis=2)
    possible = reactive - oracle
    useful = (possible > 0) & (possible >= LEAST_GAIN * reactive)
    return np.asarray((reactive - predictive)[useful] / possible[useful], dtype=np.float64)


def weighted_quantile(values: Floats, weights: Floats, level: float) -> float:
    """The smallest value that `level` of the weight does not exceed; 0 where nothing has a weight."""
    order = np.argsort(values, axis=None)
    total = np.cumsum(weights.ravel()[order])
    if not len(total) or total[-1] <= 0:
        return 0.0
    return float(values.ravel()[order][np.searchsorted(total, level * total[-1])])


def _delivered(offered: Floats, delivered: Floats) -> Floats:
    """By pair (pairs,), at most what was offered: what waited when judging began may come on top."""
    return np.asarray(np.minimum(offered.sum(axis=0), delivered.sum(axis=0)))


def _delivered_share(task: ReplayTask, offered: Floats, delivered: Floats) -> float:
    """Delivered over offered bytes of the pairs whose virtual IP has not the highest priority."""
    priorities = {vip.address: vip.priority for vip in task.scene.virtual_ips}
    highest = max(priorities.values())
    columns = [column for column, pair in enumerate(task.load.pairs) if priorities[pair.virtual_ip] < highest]
    asked = float(offered[:, columns].sum())
    return float(_delivered(offered, delivered)[columns].sum()) / asked if asked > 0 else 1.0


TIMELINE_COLUMNS = ("policy", "t", "kind", "name", "need", "allowed", "used", "where")


def timeline_rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """One row for each judged second, policy and object, as in TIMELINE_COLUMNS; `where` is "" but for vm and pair."""
    names = tuple(show_pair(pair, comparison.task.scene) for pair in comparison.task.load.pairs)
    for policy, run in comparison.runs.items():
        kinds = (("vm", run.vms), ("pair", replace(run.pairs, names=names)), ("link", run.links), ("host", run.hosts))
        for second in np.flatnonzero(comparison.task.judged).tolist():
            for kind, series in kinds:
                figures = zip(series.need[second], series.allowed[second], series.used[second], strict=True)
                for name, place, row in zip(series.names, _places(series, second), figures, strict=True):
                    yield policy.value, str(second), kind, name, *(f"{value:.10g}" for value in row), place


def _places(series: ObjectSeries, second: int) -> list[str]:
    if series.where is None:
        return [""] * len(series.names)
    return ["" if place < 0 else series.places[place] for place in series.where[second]]
