"""Load that no communication explains: the predictor finds its rhythm, and the live planner is ready for it."""

from dataclasses import replace

import numpy as np
from replay_scenes import FORESEEING, offered, two_hosts

from backtest.whatif.policies import replay
from backtest.whatif.records import OfferedLoad, ReplayPolicy
from cpdb import Pair

PERIOD_S, BACKUP_S, CORES, SECONDS = 40, 8, 1.1, 300


def nightly() -> OfferedLoad:
    """`spare1` (everyday limit: half a core) has a backup each 40 s and serves nobody."""
    load = offered(SECONDS, {Pair("c1", "10.0.0.100"): 1000.0}, {"spare1": 0.1})
    load.cores[:, 0] += np.where(np.arange(SECONDS) % PERIOD_S < BACKUP_S, CORES, 0.0)
    return load


def test_a_rhythm_of_its_own_is_met_ahead_and_costs_less_than_reacting() -> None:
    load = nightly()
    models = ("naive", "ewma", "ewma_slow", "train_mean", "seasonal_naive")
    scene = replace(two_hosts(), predictor=FORESEEING.tuned(models=models))
    runs = {policy: replay(scene, load, policy, 1) for policy in (ReplayPolicy.REACTIVE, ReplayPolicy.PREDICTIVE)}
    late = slice(SECONDS - 2 * PERIOD_S, None)
    short = {policy: np.maximum(0.0, run.vms.need - run.vms.allowed)[late].sum() for policy, run in runs.items()}
    assert short[ReplayPolicy.REACTIVE] > 1.0
    assert short[ReplayPolicy.PREDICTIVE] < 0.3 * short[ReplayPolicy.REACTIVE]
    ahead = [
        one for one in runs[ReplayPolicy.PREDICTIVE].actions if "for itself within" in one.sentence and not one.code
    ]
    assert any(one.target == "spare1" and one.t % PERIOD_S > BACKUP_S for one in ahead)
    # The first backups were nobody's to foresee: nothing is planned on what was not trusted.
    assert min(one.t for one in ahead) > PERIOD_S
    # It is given back in between.
    calm = np.arange(SECONDS)[late] % PERIOD_S == 30
    assert runs[ReplayPolicy.PREDICTIVE].vms.allowed[late][calm].max() < CORES


def test_the_oracle_knows_of_it_too() -> None:
    load, scene = nightly(), replace(two_hosts(), predictor=FORESEEING)
    run = replay(scene, load, ReplayPolicy.ORACLE, 1)
    # From the second backup on: before the first, nothing has been measured that a limit could be raised for.
    short = np.maximum(0.0, run.vms.need - run.vms.allowed)[PERIOD_S:]
    assert short.sum() < 0.05 * np.maximum(0.0, run.vms.need - 0.5)[PERIOD_S:].sum()
