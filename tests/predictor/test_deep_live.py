"""A network that the settings name is fitted aside, earns its say, and is heard in what is written."""

import time

import numpy as np
import pytest
from deep_series import alternating

from cpdb import BlendReport, Communication, Quantity, Store, Subject, SubjectKind, open_store
from forepath.settings import load_settings
from predictor import Predictor, PredictorConfig, SlowTier, Tiers

SETTINGS = """
[database]
url = "sqlite:///{folder}/live.db"
[predictor]
models = ["ewma", "lstm"]
levels = [0.1, 0.5, 0.9]
horizons_s = [5]
[predictor.slow]
horizons_s = []
[predictor.limits]
refit_every_s = 100
fit_share = 1.0
fit_budget_s = 300
"""
START = 1_000_000.0
# The second fit may take so long that its number of steps ends it, however fast this machine is.
WARM_UP_S, REFIT_S, JUDGED_S, PATIENCE_S = 200, 100, 130, 270
SECONDS = WARM_UP_S + REFIT_S + JUDGED_S


def test_named_in_the_settings_it_earns_a_share_of_what_is_written(tmp_path):
    file = tmp_path / "forepath.toml"
    file.write_text(SETTINGS.format(folder=tmp_path))
    settings = load_settings(file)
    store = open_store(settings.database.url)
    config = PredictorConfig(**settings.predictor.model_dump())
    predictor = Predictor(config)
    rates = alternating(1, series=12, cells=SECONDS)[0]
    try:
        for second in range(WARM_UP_S + REFIT_S):
            store.facts.add_communications(spoken(rates, second))
        # The first fit is short, the second has its share of the time since.
        assert fitted(predictor, store, START + WARM_UP_S) == ("lstm",)
        assert fitted(predictor, store, START + WARM_UP_S + REFIT_S) == ("lstm",)
        for second in range(WARM_UP_S + REFIT_S, SECONDS):
            store.facts.add_communications(spoken(rates, second))
            predictor.cycle(store, START + second + 1)
        (blend,) = store.wanted.observed_of(BlendReport)
        assert blend.tier == "fast" and sum(blend.shares.values()) == pytest.approx(1.0, abs=0.01)
        assert blend.shares["lstm"] > 0.2
        batch = store.forecasts.batch(START + SECONDS, 2.0)
        written = batch.value(Subject(SubjectKind.PAIR, "c3", "10.9.0.1"), 5, Quantity.BYTES_MEAN, 0.5)
        assert batch.models[:2] == ("ewma", "lstm") and np.isfinite(written)
    finally:
        predictor.close()
        store.close()


def fitted(predictor: Predictor, store: Store, now: float) -> tuple[str, ...]:
    """Begins a fit at this moment of the tale and waits for it."""
    installed, until = predictor.cycle(store, now).installed, time.monotonic() + PATIENCE_S
    while not installed and time.monotonic() < until:
        time.sleep(0.2)
        installed = predictor.cycle(store, now).installed
    return installed


def spoken(rates: np.ndarray, second: int) -> list[Communication]:
    """What each pair says in the second that ends at START + second + 1."""
    sizes = rates[:, second].astype(int).tolist()
    return [
        Communication(f"c{n}", "10.9.0.1", "vm1", START + second + 1, 1.0, size, 1 + size // 1000, 1)
        for n, size in enumerate(sizes)
    ]


def test_each_tier_has_the_models_that_the_settings_name(tmp_path):
    both = PredictorConfig(models=("ewma", "naive", "lstm"), slow=SlowTier(models=("ewma", "transformer")))
    usual = PredictorConfig(models=("ewma", "naive", "lstm"))
    for config, slow in ((both, ["ewma", "transformer"]), (usual, ["naive", "ewma"])):
        tiers = Tiers(config)
        assert list(tiers.pairs.models) == ["ewma", "naive", "lstm"]
        assert list(tiers.slow["slow"].models) == slow
        assert {name for tier in tiers.fast.values() for name in tier.models} <= {"ewma", "naive", "communications"}
        tiers.close()
    with pytest.raises(ValueError, match="ewma must be among them"):
        SlowTier(models=("lstm",))
