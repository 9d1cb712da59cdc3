"""How far forecasts are believed: which quantile is a need, with how much room, and how verdicts correct that."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from cpdb import AboveZero, NotNegative, Seconds, Section, ShareOf1

# A longer horizon that is trusted stands for one that is not up to so many times its length: farther ones would hold
# for most of the time what nobody needs.
FARTHEST_INSTEAD = 4
# Forecasts of minutes are made of longer cells and less often: so much of their horizon is surely left.
SLOW_SHARE = 0.8


def critical_level(short_to_idle: float) -> float:
    """The quantile to provide for when a unit short costs `short_to_idle` times as much as one that idles (> 0).

    The newsvendor's critical ratio, short / (short + idle): Arrow, Harris and Marschak, Optimal Inventory Policy, 1951.
    """
    return short_to_idle / (1.0 + short_to_idle)


class DemandSettings(Section):
    """Which quantile of a forecast counts as the need, with how much room to be wrong, and when it is believed.

    `cost_of_short` is what being short costs, in units of what idling costs; it decides which quantile of a forecast
    counts as the need, unless `level` names that quantile itself. `margin` is a factor; `chance_sigmas` is how far a
    peak second may exceed a mean m of arrivals by chance, in units of sqrt(m). Without `horizons_s` and
    `slow_horizons_s` of its own the orchestrator looks at those of the predictor.
    """

    cost_of_short: Annotated[float, Field(ge=1, le=1000)] = 9.0
    level: ShareOf1 = 0.9
    margin: float = 1.15
    chance_sigmas: NotNegative = 2.5
    max_forecast_age_s: AboveZero = 5.0
    max_slow_forecast_age_s: AboveZero = 120.0
    max_interval_ratio: AboveZero = 100.0
    horizons_s: Annotated[tuple[int, ...], Field(min_length=1)] = (5, 15, 30)
    slow_horizons_s: tuple[int, ...] = ()

    @field_validator("margin")
    @classmethod
    def _check_margin(cls, value: float) -> float:
        if value < 1:
            raise ValueError(f"{value} would ask for less than is forecast; write 1.2 for 20 % more")
        return value

    @field_validator("horizons_s", "slow_horizons_s")
    @classmethod
    def _check_horizons(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if sorted({0, *value}) != [0, *value]:
            raise ValueError(f"{value} must ascend from above 0, e.g. (5, 15, 30)")
        return value

    @cached_property
    def every_horizon_s(self) -> tuple[int, ...]:
        """All horizons, ascending; one that both tiers have belongs to the fast one."""
        return tuple(sorted({*self.horizons_s, *self.slow_horizons_s}))

    @cached_property
    def instead_of(self) -> Mapping[int, tuple[int, ...]]:
        """Each horizon, and those that may stand for it where it is not trusted itself, the nearest first."""
        every = self.every_horizon_s
        return {one: tuple(far for far in every if one <= far <= FARTHEST_INSTEAD * one) for one in every}

    def horizon_for(self, lead_s: Seconds) -> int | None:
        """The shortest horizon that leaves time for what takes so long; None when there is none."""
        left_s = ((one, one if one in self.horizons_s else SLOW_SHARE * one) for one in self.every_horizon_s)
        return next((one for one, seconds in left_s if lead_s <= seconds), None)

    def max_age_s(self, horizon_s: int) -> Seconds:
        """How old a forecast so far ahead may be."""
        return self.max_forecast_age_s if horizon_s in self.horizons_s else self.max_slow_forecast_age_s

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if "cost_of_short" in self.model_fields_set:
            if "level" in self.model_fields_set:
                raise ValueError("level and cost_of_short say the same in two ways; give one of them")
            self.__dict__["level"] = critical_level(self.cost_of_short)
        return self


class LearningSettings(Section):
    """How verdicts change what is planned and what may act, by kind of action.

    Margin and earliness are moved by `step` and `step_s` so that a share `broken_share` of promises is broken, within
    bounds: the margin by factors `margin_least` to `margin_most` (never below the forecast itself), the decision by up
    to `earlier_most_s`. Above `fall_back_share` of promises made ahead that were broken and eased nothing a kind falls
    back to advice. With `act = "earned"` a kind acts only after `earn_least` verdicts within `earn_over_s` whose gain
    is above 0 for certain, by replays of what was recorded where there are enough. They run while not all may act, for
    `replay_s` at a time and with at most `replay_share` of one core; 0 turns them off.
    """

    enabled: bool = True
    broken_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    step: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    margin_least: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    margin_most: Annotated[float, Field(ge=1, le=4)] = 1.5
    step_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    earlier_most_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    fall_back_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    earn_over_s: Annotated[float, Field(ge=60)] = 86_400.0
    earn_least: Annotated[int, Field(ge=1)] = 10
    replay_s: Annotated[float, Field(ge=120)] = 900.0
    replay_share: Annotated[float, Field(ge=0, le=1)] = 0.25
