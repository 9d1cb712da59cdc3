"""From counters to actions through the database: the live predictor, the live orchestrator, no hand on a trigger."""

import random
from dataclasses import dataclass
from pathlib import Path

from fake_world import CONFIG, SHOP, START, Simulation

from cpdb import ActionRecord, OutcomeKind, Pair, Store, open_store
from orchestrator import explain
from predictor import Predictor, PredictorConfig

LIGHT = ("naive", "ewma", "train_mean", "seasonal_naive")
PERIOD_S, SURGE_S, SURGES, QUIET_S = 30, 10, 6, 26
LAST = PERIOD_S * SURGES
TALK = Pair("c1", SHOP)


@dataclass
class Watched(Simulation):
    """What is foreseen comes from the predictor; the last surge is the same whatever came before it."""

    steady: bool = True
    foresee: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        rng, second, self.bursts = random.Random(5), 3, []
        while second < LAST - QUIET_S:  # at any time, of any length and size: nothing to go by
            self.bursts.append((second, second + rng.randint(1, 6), rng.lognormvariate(2.3, 0.9)))
            second += rng.randint(6, 30)
        config = PredictorConfig(models=LIGHT, limits={"refit_every_s": 20.0, "threads": 1})
        self.predictor = Predictor(config, background=False)

    def rate(self, pair: Pair, t: float) -> float:
        second = int(t - START)
        if pair != TALK:
            return 2.0
        if LAST <= second < LAST + SURGE_S:
            return 22.0
        if self.steady:
            return 22.0 if second >= 0 and second % PERIOD_S < SURGE_S else 2.0
        return next((rate for begin, end, rate in self.bursts if begin <= second < end), 2.0)

    def _forecast(self) -> None:
        self.predictor.cycle(self.store, self.now)


def lived(store: Store, steady: bool) -> tuple[ActionRecord, list[ActionRecord]]:
    """The first reservation for the last surge, and all that was done."""
    # What came too late while nothing was known yet must not take the right to act: that is another story.
    sim = Watched(store, config=CONFIG.tuned(learning={"enabled": False}), steady=steady, rng=random.Random(3))
    sim.run(LAST + SURGE_S)
    sim.predictor.close()
    done = [one for one in reversed(store.journal.actions()) if one.outcome is OutcomeKind.DONE]
    late = (one for one in done if one.kind == "reserve_bandwidth" and one.issued_at > START + LAST - QUIET_S / 2)
    return next(late), done


def test_the_same_surge_is_met_as_far_ahead_as_its_history_lets_it_be_foreseen(store: Store, tmp_path: Path) -> None:
    first, done = lived(store, steady=True)
    assert first.issued_at < first.timing.ready_at < START + LAST
    assert first.reason["forecast"]["horizon_s"] <= first.reason["forecast"]["trusted_s"]
    assert any("trusted 30 s ahead" in line for line in explain(first))
    wild = open_store(f"sqlite:///{tmp_path / 'wild.db'}")
    later, others = lived(wild, steady=False)
    # What nobody could foresee is met once it is measured, and the journal says why not before.
    assert later.issued_at > START + LAST
    assert later.reason["forecast"] is None
    refused = [one.sentence for one in wild.journal.actions() if one.outcome is OutcomeKind.SKIPPED]
    assert any(sentence.startswith("refused: not trusted") for sentence in refused)
    wild.close()
    for one in (*done, *others):
        proof = one.reason["forecast"]
        assert proof is None or proof["horizon_s"] <= proof["trusted_s"], one.why
