"""The forecast bench's peers: what mlforecast with LightGBM and statsforecast's ARIMA do on the same series."""

import importlib
import importlib.util
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SURGING_SHARE = 0.25
SURGE_FACTOR, SURGE_S = 6.0, 8.0
PERIOD_S = (20.0, 40.0)
# How far the level moves in a second (standard deviation of its logarithm), and how strongly it is drawn back.
WANDERING, DRAWN_BACK = 0.1, 0.02
BYTES_PER_PACKET, BYTES_PER_CONNECTION = 900.0, 20_000.0


@dataclass(slots=True)
class SyntheticTraffic:
    """Seconds of traffic, one after the other; the same for the same seed and number of pairs."""

    pairs: int
    seed: int
    _rng: np.random.Generator = field(init=False)
    _base: Floats = field(init=False)
    _level: Floats = field(init=False)
    _phase: Floats = field(init=False)
    _period: Floats = field(init=False)
    _surging: NDArray[np.bool_] = field(init=False)
    _second: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._base = self._rng.lognormal(8.0, 1.5, self.pairs)
        self._level = np.zeros(self.pairs)
        self._phase = self._rng.uniform(0.0, PERIOD_S[1], self.pairs)
        self._period = self._rng.uniform(*PERIOD_S, self.pairs)
        self._surging = self._rng.random(self.pairs) < SURGING_SHARE

    def second(self) -> Floats:
        """Bytes, packets and connections of the next second: 3 x pairs, whole numbers."""
        self._level += -DRAWN_BACK * self._level + self._rng.normal(0.0, WANDERING, self.pairs)
        surge = self._surging & ((self._second + self._phase) % self._period < SURGE_S)
        mean = self._base * np.exp(self._level) * np.where(surge, SURGE_FACTOR, 1.0)
        size = mean * self._rng.gamma(4.0, 0.25, self.pairs)
        connections = self._rng.poisson(np.minimum(size / BYTES_PER_CONNECTION, 1000.0))
        self._second += 1
        amounts: Floats = np.floor(np.stack([size, np.ceil(size / BYTES_PER_PACKET), connections]))
        return amounts

    def seconds(self, count: int) -> Floats:
        """Bytes of the next `count` seconds: pairs x count."""
        return np.stack([self.second()[0] for _ in range(count)], axis=1)


PEERS = ("mlforecast", "lightgbm", "statsforecast")
LEVELS = (0.1, 0.5, 0.9)
LAGS = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40)
TREES = 100
TRAINED_PAIRS = 2000
ARIMA_ORDER = (1, 0, 1)


@dataclass(frozen=True, slots=True)
class PeerJob:
    """What is asked of everyone: bytes (pairs x seconds) are history up to `until`; windows of `horizons` follow."""

    bytes: Floats
    until: int
    horizons: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What a peer said (pairs x horizons x LEVELS, NaN = nothing; mean bytes/s of each window) and what it cost.

    `refresh_cpu_s` is one refresh of all pairs: taking in one more second and forecasting. `fit_cpu_s` came before.
    """

    fan: Floats
    refresh_cpu_s: float
    refresh_s: float
    fit_cpu_s: float
    pairs: int


def missing() -> str | None:
    """One line that says what to install, None when every peer is there."""
    absent = [name for name in PEERS if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)}: not installed; in a checkout: .venv/bin/pip install -e '.[bench]'" if absent else None


def mlforecast(job: PeerJob) -> PeerAnswer:
    """One LightGBM per level on lags and rolling means, fitted on a sample of pairs, steps fed back into lags."""
    lightgbm = importlib.import_module("lightgbm")
    library = importlib.import_module("mlforecast")
    transforms = importlib.import_module("mlforecast.lag_transforms")
    models = {
        f"q{level}": lightgbm.LGBMRegressor(
            objective="quantile", alpha=level, n_estimators=TREES, num_leaves=31, learning_rate=0.08, verbosity=-1
        )
        for level in LEVELS
    }
    rolling = [transforms.RollingMean(5), transforms.RollingMean(15), transforms.RollingMean(30)]
    forecaster = library.MLForecast(models=models, freq=1, lags=list(LAGS), lag_transforms={1: rolling})
    began = time.process_time()
    sample = np.linspace(0, len(job.bytes) - 1, min(TRAINED_PAIRS, len(job.bytes))).astype(np.int64)
    forecaster.fit(_frame(job.bytes[sample], 0, job.until - 1, sample), static_features=[])
    fitted = dict(forecaster.models_)
    forecaster.preprocess(_frame(job.bytes, 0, job.until - 1), static_features=[])
    forecaster.models_ = fitted
    fit_cpu_s = time.process_time() - began
    cpu, wall = time.process_time(), time.perf_counter()
    forecaster.update(_frame(job.bytes, job.until - 1, job.until))
    said = forecaster.predict(max(job.horizons))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    steps = np.stack([said[f"q{level}"].to_numpy().reshape(len(job.bytes), -1) for level in LEVELS], axis=-1)
    fan = np.sort(np.stack([steps[:, :horizon].mean(axis=1) for horizon in job.horizons], axis=1), axis=-1)
    return PeerAnswer(np.maximum(fan, 0.0), cpu, wall, fit_cpu_s, len(job.bytes))


def statsforecast(job: PeerJob, pairs: int) -> PeerAnswer:
    """An ARIMA fitted to each of the first `pairs`: it keeps no state, so a refresh is a fit."""
    library = importlib.import_module("statsforecast")
    kinds = importlib.import_module("statsforecast.models")
    frame = _frame(job.bytes[:pairs], 0, job.until)
    cpu, wall = time.process_time(), time.perf_counter()
    # Some fits end in an error of their own; the mean of history stands in for these.
    models, fallback = [kinds.ARIMA(order=ARIMA_ORDER)], kinds.HistoricAverage()
    forecaster = library.StatsForecast(models=models, freq=1, n_jobs=1, fallback_model=fallback)
    said = forecaster.forecast(df=frame, h=max(job.horizons), level=[80])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    columns = ("ARIMA-lo-80", "ARIMA", "ARIMA-hi-80")
    steps = np.stack([said[name].to_numpy().reshape(pairs, -1) for name in columns], axis=-1)
    fan = np.stack([steps[:, :horizon].mean(axis=1) for horizon in job.horizons], axis=1)
    return PeerAnswer(np.maximum(fan, 0.0), cpu, wall, 0.0, pairs)


def _frame(values: Floats, first: int, until: int, names: Any = None) -> Any:
    """The long table that both libraries read: one row a pair and second."""
    pandas = importlib.import_module("pandas")
    seconds = np.arange(first, until)
    ids = np.arange(len(values)) if names is None else names
    return pandas.DataFrame(
        {
            "unique_id": np.repeat(ids, len(seconds)),
            "ds": np.tile(seconds, len(values)),
            "y": values[:, first:until].astype(np.float32).reshape(-1),
        }
    )
