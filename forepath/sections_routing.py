"""The section about paths: whether and how traffic between switches is split over several of them."""

from typing import Annotated

from pydantic import Field

from forepath.sections import Section, Share


class Routing(Section):
    """Off unless `enabled`. `churn` is the price of moving traffic, `outlook` the weight that forecasts have.

    Nothing moves while the fullest link is expected below `trigger`, or gains less than `min_gain` (shares of 1).
    """

    enabled: bool = False
    every_s: Annotated[float, Field(ge=5, le=3600)] = 30.0
    paths: Annotated[int, Field(ge=2, le=16)] = 4
    churn: Annotated[float, Field(ge=0, le=1)] = 0.002
    outlook: Annotated[float, Field(ge=0, lt=1)] = 0.2
    trigger: Share = 0.5
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.05
    lease_s: Annotated[float, Field(ge=60, le=86400)] = 900.0
