"""What may be set of the predictor: the table [predictor], with defaults that suit one-second samples."""

from collections.abc import Mapping
from math import ceil
from re import fullmatch
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from cpdb import Section
from predictor.models import IN_THE_BOX, REFERENCE, known_models

MODELS = tuple(IN_THE_BOX)
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# A window holds at least so many of the longest horizon: fewer teach nothing about how that far ahead differs.
MIN_WINDOWS = 4
# Where several workers forecast and nothing is said; more than workers, so that those of a dead one can be shared out.
SHARDS = 16
ROOM = 1.2
AboveZero = Annotated[float, Field(gt=0)]
Level = Annotated[float, Field(gt=0, lt=1)]
Horizon = Annotated[int, Field(ge=1, le=43_200)]


def _check_window(name: str, window_s: float, horizons_s: tuple[int, ...]) -> None:
    if window_s < MIN_WINDOWS * max(horizons_s, default=0):
        raise ValueError(f"{name}: {window_s:g} must be at least {MIN_WINDOWS} times the longest horizon")


def _check_models(names: tuple[str, ...]) -> tuple[str, ...]:
    if set(names) - set(known_models()):
        raise ValueError(f"known are {', '.join(known_models())}; got {', '.join(names)}")
    if REFERENCE not in names:
        raise ValueError(f"{REFERENCE} must be among them, the others are measured against it")
    return names


class WorkLimits(Section):
    """How much work forecasting may cost.

    Fits in the background of one tier plan with `fit_share` of a core, less where the machine is busy;
    `fit_budget_s` is the CPU time that one fit of one model may take before it is ended, `max_pairs` a bound on memory
    as is `grid_mb`: beyond, less of the past of each pair is remembered; `threads` share the work of a cycle when there
    are thousands of pairs.
    """

    refit_every_s: AboveZero = 60.0
    fit_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    fit_budget_s: AboveZero = 30.0
    max_pairs: Annotated[int, Field(ge=1)] = 120_000
    grid_mb: AboveZero = 390.0
    threads: Annotated[int, Field(ge=1)] = 2


class HistoryLimits(Section):
    """How much of the past counts, in seconds.

    Models learn from the last `window_s` and say nothing before `min_s` are known; scores lose half of their weight in
    the choice of a model after `half_life_s`; a pair without rows is still forecast, ever wider, for `max_stale_s`.
    """

    window_s: AboveZero = 900.0
    min_s: Annotated[float, Field(ge=0)] = 20.0
    half_life_s: AboveZero = 60.0
    max_stale_s: Annotated[float, Field(ge=0)] = 60.0


class SlowTier(Section):
    """The horizons of slow actions, in cells of `step_s`, forecast anew as often; no horizons = no such tier.

    `models` are those of pairs; without, they are those of the table above that need no fitting.
    """

    horizons_s: Annotated[tuple[Horizon, ...], Field(max_length=16)] = (60, 120, 300, 600)
    step_s: Annotated[float, Field(ge=2, le=60)] = 10.0
    history_s: Annotated[float, Field(ge=240)] = 3600.0
    models: tuple[str, ...] | None = None

    @field_validator("models")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names if names is None else _check_models(names)

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.horizons_s and min(self.horizons_s) < self.step_s:
            raise ValueError(f"horizons_s: none may be below step_s, which is {self.step_s:g} s")
        _check_window("history_s", self.history_s, self.horizons_s)
        return self


class LongTier(SlowTier):
    """The same for pairs up to hours ahead, in cells of a minute; without `models` ARIMA is among them."""

    horizons_s: Annotated[tuple[Horizon, ...], Field(max_length=16)] = (1200, 3600, 7200)
    step_s: Annotated[float, Field(ge=2, le=60)] = 60.0
    history_s: Annotated[float, Field(ge=240)] = 28_800.0


class ShardLimits(Section):
    """How pairs are shared out to workers of Dask Distributed.

    A pair belongs to one of `count` shards by its name, and what is learnt is learnt within a shard: the number changes
    forecasts, who computes them does not. None: 1 where this process does it alone, else SHARDS. `workers` above 1 are
    processes of this machine; with `scheduler` all workers of that cluster take part. Copies of shards, with which
    others go on where a worker dies, take `copies_mb` at most in the process that publishes.
    """

    count: Annotated[int, Field(ge=1, le=4096)] | None = None
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    scheduler: str | None = None
    copies_mb: Annotated[float, Field(ge=0)] = 512.0

    @property
    def alone(self) -> bool:
        """Whether this process forecasts all pairs itself."""
        return self.workers == 1 and self.scheduler is None

    @field_validator("scheduler")
    @classmethod
    def _an_address(cls, address: str | None) -> str | None:
        if address is not None and not fullmatch(r"(tcp|tls)://[^\s/]+:\d+", address):
            raise ValueError(f"{address} is no address: write tls://HOST:PORT, or tcp://HOST:PORT within one machine")
        return address

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.workers > 1 and self.scheduler is not None:
            raise ValueError("workers: are those of the cluster where a scheduler is named; leave one of the two out")
        return self


class PredictorSection(Section):
    """What is forecast, how often, and from how much history; `seed` moves whatever is random in the models."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "history_s": "predictor.history.window_s",
        "refit_every_s": "predictor.limits.refit_every_s",
        "slow_horizons_s": "predictor.slow.horizons_s",
        "slow_step_s": "predictor.slow.step_s",
        "slow_history_s": "predictor.slow.history_s",
    }

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    models: tuple[str, ...] = MODELS
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=32)] = LEVELS
    horizons_s: Annotated[tuple[Horizon, ...], Field(min_length=1, max_length=16)] = (5, 15, 30)
    seed: int = 1
    history: HistoryLimits = HistoryLimits()
    limits: WorkLimits = WorkLimits()
    slow: SlowTier = SlowTier()
    long: LongTier = LongTier()
    shards: ShardLimits = ShardLimits()

    @field_validator("levels", "horizons_s")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if sorted(set(values)) != list(values):
            raise ValueError(f"{values} must ascend, e.g. 0.1, 0.5, 0.9 or 5, 15, 30")
        return values

    @field_validator("models")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _check_models(names)

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        _check_window("history.window_s", self.history.window_s, self.horizons_s)
        return self


class PredictorConfig(PredictorSection):
    """What the predictor of one tier is told: cells of `step_s`, and the name under which forecasts are written.

    `shard` of `of_shards` is its part of the pairs.
    """

    step_s: AboveZero = 1.0
    tier: str = "fast"
    shard: int = 0
    of_shards: int = 1

    @model_validator(mode="after")
    def _fine_enough(self) -> Self:
        if min(self.horizons_s) < self.step_s:
            raise ValueError(f"horizons_s: none may be below step_s, which is {self.step_s:g} s")
        return self

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons in cells of the grid."""
        return tuple(max(1, round(horizon / self.step_s)) for horizon in self.horizons_s)

    @property
    def shard_count(self) -> int:
        """How many shards the pairs fall into."""
        return self.shards.count or (1 if self.shards.alone else SHARDS)

    @property
    def shard_mark(self) -> str:
        """What tells memories of one shard from those of the others, nothing where there is one only."""
        return "" if self.of_shards == 1 else f"/{self.shard} of {self.of_shards}"

    def for_shard(self, number: int) -> Self:
        """The same for one shard: its share of what all may take, and some room as no hash is quite even."""
        count, limits = self.shard_count, self.limits
        if count == 1:
            return self
        most = ceil(ROOM * limits.max_pairs / count)
        shares = {"fit_share": limits.fit_share / count, "grid_mb": limits.grid_mb / count, "max_pairs": most}
        return self.tuned(shard=number, of_shards=count, limits=shares)
