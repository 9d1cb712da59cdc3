"""By which rules verdicts change what is planned, and what may act."""

from typing import Annotated

from pydantic import Field

from cpdb import Section


class LearningSettings(Section):
    """How verdicts change what is planned and what may act, by kind of action.

    Margin and earliness are moved by `step` and `step_s` so that a share `broken_share` of promises is broken, within
    bounds: the margin by factors `margin_least` to `margin_most` (never below the forecast itself), the decision by up
    to `earlier_most_s`. Above `fall_back_share` of broken promises
    that eased nothing a kind falls back to advice. With `act = "earned"`
    a kind acts only after `earn_least` verdicts within `earn_over_s` whose gain is above 0 for certain.
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
