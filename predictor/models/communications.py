"""Forecasts a machine's load from the communications that are forecast to arrive there, not from its own past alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView

# Ridge on standardised arrivals: without it, a quiet past would make an invention of a slope.
RIDGE = 5.0
MIN_CELLS = 20
# The newest cells count most: what one request costs changes with what is asked.
HALF_LIFE_CELLS = 150.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What arrives at each machine of a view, on the view's cells.

    `past` is features x series x cells (rates, NaN = not known); `ahead` features x series x targets x levels: what is
    forecast to arrive in each target's window (NaN = nothing is said).
    """

    past: Floats
    ahead: Floats


class Communications:
    """load = base + slopes x arrivals, refitted each cycle by weighted ridge regression per machine and channel.

    It forecasts that line at the quantiles of the arrivals, spread by the line's own errors; as it is a model
    like the others, a machine whose load has nothing to do with its communications gives it no say.
    """

    name: ClassVar[str] = "communications"
    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = False
    costly: ClassVar[bool] = False

    def __init__(self, spec: ForecastSpec, arrivals: Callable[[SeriesView], Arrivals | None]) -> None:
        self.spec = spec
        self._arrivals = arrivals
        self._predict_last: Floats = spec.empty(1, 0)[0]

    def fit(self, view: SeriesView) -> None:
        """Nothing to learn but what each update does."""

    def update(self, view: SeriesView) -> None:
        """Fits the lines of all machines and makes their forecasts."""
        self._predict_last = self.spec.empty(1, view.series)[0]
        arrivals = self._arrivals(view)
        if arrivals is None:
            return
        for number in range(view.series):
            for channel in range(view.channels):
                line = fitted(view.rates[channel, number], arrivals.past[:, number])
                if line is not None:
                    self._fill(number, channel, line, arrivals.ahead[:, number])

    def _fill(self, number: int, channel: int, line: "Line", ahead: Floats) -> None:
        for place, target in enumerate(self.spec.targets):
            if target.channel == channel and not np.isnan(ahead[:, place]).any():
                self._predict_last[number, place] = line.quantiles(
                    ahead[:, place], self.spec.levels, target.length, target.peak
                )

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model; speaks at the newest cell only, as forecasts of the past's arrivals are not kept."""
        said = self.spec.empty(len(origins), view.series)
        newest = np.flatnonzero(origins == view.cells - 1)
        if len(self._predict_last) == view.population:
            said[newest] = self._predict_last[view.rows]
        return said


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted line: base, slope per feature (not below 0: work does not unload a machine), and its errors (sorted)."""

    base: float
    slopes: Floats
    errors: Floats

    def quantiles(self, ahead: Floats, levels: tuple[float, ...], length: int, peak: bool) -> Floats:
        """Load at each level: arrivals at that level, plus the line's errors; errors of a mean shrink with its length.

        The two spreads are taken as independent and are added in squares about the medians.
        """
        grid = np.asarray(levels)
        middle = int(np.argmin(np.abs(grid - 0.5)))
        through = self.base + self.slopes @ ahead
        errors = np.quantile(self.errors, grid)
        if not peak:
            errors = errors[middle] + (errors - errors[middle]) / np.sqrt(length)
        centre = through[middle] + errors[middle]
        own, theirs = errors - errors[middle], through - through[middle]
        load: Floats = centre + np.sign(grid - grid[middle]) * np.sqrt(own**2 + theirs**2)
        return load


def fitted(load: Floats, arrivals: Floats) -> Line | None:
    """The line of one channel (cells) on arrivals (features x cells); None where too little is known or varies."""
    known = ~np.isnan(load) & ~np.isnan(arrivals).any(axis=0)
    if known.sum() < MIN_CELLS:
        return None
    y, x = load[known].astype(np.float64), arrivals[:, known].astype(np.float64)
    age = np.flatnonzero(known)[-1] - np.flatnonzero(known)
    weight = 0.5 ** (age / HALF_LIFE_CELLS)
    weight /= weight.sum()
    mean_x, mean_y = x @ weight, float(y @ weight)
    spread = np.sqrt(((x - mean_x[:, None]) ** 2) @ weight)
    if not (spread > 0).any():
        return None
    scaled = (x - mean_x[:, None]) / np.where(spread > 0, spread, 1.0)[:, None]
    gram = (scaled * weight) @ scaled.T + RIDGE / known.sum() * np.eye(len(x))
    slopes = np.linalg.solve(gram, (scaled * weight) @ (y - mean_y))
    slopes = np.maximum(slopes, 0.0) / np.where(spread > 0, spread, 1.0)
    errors = np.sort(y - mean_y - slopes @ (x - mean_x[:, None]))
    return Line(mean_y - float(slopes @ mean_x), slopes, errors)
