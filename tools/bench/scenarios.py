"""Every scenario of the library under every policy: is foresight ever worse than reacting, and is it worth anything."""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
import structlog

from backtest.whatif import (
    ATTACKERS,
    FORESEEABLE,
    Comparison,
    PolicyRun,
    ReplayPolicy,
    ReplayTask,
    compare_runs,
    make_scenario,
    replay,
    scenario_scene,
    warm_up_seconds,
)
from orchestrator import OrchestratorConfig
from tools.bench.figures import BenchTarget, Result

WARM_UP = 0.5
NO_WORSE, WORTH = 1.02, 0.9
# An attacker that is delivered this share more than max-min fair shares give it has gained from others.
FAIR = 1.02
# What an action does to a limit is seen so many seconds around it.
AROUND_S = 2
RESIZING = ("set_cpu_limit", "set_vcpus")
RESERVING = ("reserve_bandwidth", "release_bandwidth")


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """What one scenario came to: costs by policy and of the bound, and what the targets are about."""

    family: str
    seed: int
    costs: Mapping[str, float]
    gain_share: float | None
    actions: int
    unneeded: int
    oscillates: bool
    attacker_gain: float | None
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Predictive over reactive; 1 where neither costs anything."""
        reactive, predictive = self.costs["reactive"], self.costs["predictive"]
        return predictive / reactive if reactive > 0 else 1.0 if predictive <= 0 else float("inf")

    def to_json(self) -> dict[str, Any]:
        """The run as one JSON object."""
        return {
            "family": self.family, "seed": self.seed, "costs": dict(self.costs), "ratio": self.ratio,
            "gain_share": self.gain_share, "actions": self.actions, "unneeded": self.unneeded,
            "oscillates": self.oscillates, "attacker_gain": self.attacker_gain,
            "parts": self.parts,
        }  # fmt: skip


def run_scenario(family: str, seed: int) -> ScenarioRun:
    """Replays one scenario under all policies."""
    scene, load = scenario_scene(), make_scenario(family, seed)
    task = ReplayTask(family, "scenario", scene, load, warm_up_seconds(family, load, WARM_UP), seed)
    found = compare_runs(task, [replay(scene, load, policy, seed) for policy in ReplayPolicy])
    acted = [action for action in found.judged_actions(ReplayPolicy.PREDICTIVE) if not action.code]
    costs = {policy.value: found.cost(policy) for policy in ReplayPolicy} | {"bound": float(found.bound.sum())}
    config = scene.orchestrator
    return ScenarioRun(
        family,
        seed,
        costs,
        found.gain_share,
        len(acted),
        sum(action.needed is False for action in acted),
        any(oscillates(run, config) for run in found.runs.values()),
        _attacker_gain(found, family),
        {name: figures["cost_by_part"] for name, figures in found.document()["policies"].items()},
    )


def oscillates(run: PolicyRun, config: OrchestratorConfig) -> bool:
    """Whether something turned more often than the guards allow, or a machine came back to a host too soon.

    A limit turns where an action lowers what one before has raised, or the other way round; a reservation, each time
    that it is made or given back.
    """
    guard = config.guard
    turns: dict[str, list[float]] = defaultdict(list)
    rising: dict[str, bool] = {}
    for action in run.actions:
        if not action.code and action.kind in RESIZING and action.target in run.vms.names:
            column = run.vms.allowed[:, run.vms.names.index(action.target)]
            before, after = (column[min(max(int(action.t) + at, 0), len(column) - 1)] for at in (-1, AROUND_S))
            if abs(after - before) > config.cpu.step_cores / 2:
                if rising.setdefault(action.target, after > before) != (after > before):
                    turns[action.target].append(action.t)
                rising[action.target] = after > before
        if not action.code and action.kind in RESERVING:
            turns[action.target].append(action.t)
    often = any(
        later - times[place] <= guard.turns_window_s
        for times in turns.values()
        for place, later in enumerate(times[guard.max_turns :])
    )
    return often or _came_back(run, guard.oscillation_s)


def _came_back(run: PolicyRun, within_s: float) -> bool:
    for places in () if run.vms.where is None else run.vms.where.T:
        moves = np.flatnonzero(np.diff(places)) + 1
        for first, second in pairwise(moves.tolist()):
            if places[second] == places[first - 1] and second - first <= within_s:
                return True
    return False


def _attacker_gain(found: Comparison, family: str) -> float | None:
    """What the attacker gets under predictive over its max-min fair share, which is what it gets under static."""
    if family not in ATTACKERS:
        return None
    column, judged = found.task.load.pairs.index(ATTACKERS[family]), found.task.judged
    carried = {policy: float(run.pairs.used[judged, column].sum()) for policy, run in found.runs.items()}
    fair = carried[ReplayPolicy.STATIC]
    return carried[ReplayPolicy.PREDICTIVE] / fair if fair > 0 else 1.0


def run_all(families: Sequence[str], seeds: int, jobs: int, say: Callable[[str, int, int], None]) -> list[ScenarioRun]:
    """All families with seeds from 1 on, `jobs` at a time, in order of family and seed."""
    wanted = [(family, seed) for family in families for seed in range(1, seeds + 1)]
    # Each replay is one thread's work; spawned processes read this before anything loads.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    found = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), be_quiet) as pool:
        futures = {pool.submit(run_scenario, *which): which for which in wanted}
        for done, future in enumerate(as_completed(futures), 1):
            found[futures[future]] = future.result()
            say(futures[future][0], done, len(wanted))
    return [found[which] for which in wanted]


def be_quiet() -> None:
    """No logs of planners from here on."""
    # What planners say of each action would be millions of lines.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def judge_runs(runs: Sequence[ScenarioRun]) -> Result:
    """The targets: never worse than reacting, nearly all that can be gained where there is something to foresee."""
    figures = {
        "runs": float(len(runs)),
        "runs worse than reacting": float(sum(run.ratio > NO_WORSE for run in runs)),
        "runs better than reacting": float(sum(run.ratio < 2 - NO_WORSE for run in runs)),
    }
    return Result(figures, list(_targets(runs)))


def _targets(runs: Sequence[ScenarioRun]) -> Iterator[BenchTarget]:
    calm = [run for run in runs if run.family == "calm"]
    yield BenchTarget("predictive / reactive, worst run", max(run.ratio for run in runs), NO_WORSE, "lower")
    if calm:
        yield BenchTarget("calm: predictive / reactive", max(run.ratio for run in calm), 1.0, "lower")
        yield BenchTarget("calm: actions", max(run.actions for run in calm), 0, "lower")
    for family, gain in gain_shares(runs).items():
        if gain is not None:
            yield BenchTarget(f"gain share: {family}", gain, WORTH if family in FORESEEABLE else 0.0, "higher")
    above = max(run.costs["oracle"] / max(run.costs["predictive"], 1e-9) for run in runs)
    yield BenchTarget("oracle / predictive, worst run", above, 1.0 + 1e-6, "lower")
    least = max(run.costs["bound"] / max(run.costs["oracle"], 1e-9) for run in runs if run.costs["bound"] > 1e-6)
    yield BenchTarget("bound / oracle, worst run", least, 1.0 + 1e-6, "lower")
    yield BenchTarget("runs that oscillate", sum(run.oscillates for run in runs), 0, "lower")
    attacks = [run.attacker_gain for run in runs if run.attacker_gain is not None]
    if attacks:
        yield BenchTarget("attacker over its fair share", max(attacks), FAIR, "lower")


def gain_shares(runs: Sequence[ScenarioRun]) -> dict[str, float | None]:
    """Family -> gain share of its runs together, None where the oracle gains next to nothing in all of them."""
    found: dict[str, float | None] = {}
    for family in dict.fromkeys(run.family for run in runs):
        told = [run for run in runs if run.family == family and run.gain_share is not None]
        sums = {name: sum(run.costs[name] for run in told) for name in ("reactive", "predictive", "oracle")}
        possible = sums["reactive"] - sums["oracle"]
        found[family] = (sums["reactive"] - sums["predictive"]) / possible if told else None
    return found


def family_rows(runs: Sequence[ScenarioRun]) -> list[tuple[str, ...]]:
    """By family: mean costs, the worst ratio to reacting, gain share, actions a run, runs that oscillate."""
    rows = []
    for family, gain in gain_shares(runs).items():
        own = [run for run in runs if run.family == family]
        costs = (np.mean([run.costs[name] for run in own]) for name in COSTS)
        worst, actions = max(run.ratio for run in own), np.mean([run.actions for run in own])
        share = "-" if gain is None else f"{gain:.2f}"
        turning = str(sum(run.oscillates for run in own))
        rows.append((family, *(f"{cost:.4g}" for cost in costs), f"{worst:.3f}", share, f"{actions:.0f}", turning))
    return rows


COSTS = ("static", "reactive", "predictive", "oracle", "bound")
COLUMNS = ("family", "static", "react", "predict", "oracle", "bound", "p/r", "gain", "acts", "turns")
