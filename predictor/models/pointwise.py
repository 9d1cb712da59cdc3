"""Models that make one guess per window, and the band of uncertainty that their earlier errors give them."""

from typing import ClassVar

import numpy as np
from scipy.signal import lfilter

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, last_known
from predictor.models.quantiles import sample_quantiles

# Cells at the end that may still change, as rows may come late: running states stay behind them.
UNSETTLED = 5


class PointModel:
    """A model whose guess is one rate per window; its forecast is that guess plus the errors that it made before."""

    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    costly: ClassVar[bool] = False
    memory: ClassVar[int] = 900
    # Errors beyond so many add little to a quantile and much to its cost.
    samples: ClassVar[int] = 300

    def __init__(self, spec: ForecastSpec, _seed: int = 0) -> None:
        self.spec = spec
        self._band: Floats | None = None

    def points(self, view: SeriesView, origins: Ints) -> Floats:
        """Rates forecast at some cells of the view: (channels or targets) x series x origins."""
        raise NotImplementedError

    def fit(self, view: SeriesView) -> None:
        """Nothing to learn but the band."""

    def update(self, view: SeriesView) -> None:
        """Renews the band of the series whose turn it is, and gives new ones theirs."""
        band = self._grown_band(view.population)
        sub = view.due()
        band[sub.rows] = self._errors(sub)

    def _grown_band(self, population: int) -> Floats:
        band = self._band
        if band is None or len(band) < population:
            more = self.spec.empty(1, population - (0 if band is None else len(band)))[0]
            self._band = band = more if band is None else np.concatenate([band, more])
        return band

    def _errors(self, view: SeriesView) -> Floats:
        """Quantiles of the errors at origins of the last `memory` cells: series x targets x levels."""
        band: Floats = self.spec.empty(1, view.series)[0]
        reach = min(view.cells, self.memory + self.spec.reach + view.lead)
        origins = np.arange(view.cells - 1, view.cells - 1 - reach, -max(1, -(-reach // self.samples)))[::-1]
        guesses = self.points(view, origins)
        for number, target in enumerate(self.spec.targets):
            begins = view.begins(target, origins)
            over = begins + target.length <= view.cells
            guess = guesses[number if len(guesses) == len(self.spec.targets) else target.channel]
            error = view.target(target)[:, begins[over]] - guess[:, over]
            here = sample_quantiles(error, self.spec.levels) if over.any() else np.nan
            # A young series has seen no window as far away as this: what it errs over nearer ones is the best guess.
            nearer = self._nearer(number)
            band[:, number] = here if nearer is None else np.where(np.isnan(here), band[:, nearer], here)
        return band

    def _nearer(self, number: int) -> int | None:
        own = self.spec.targets[number]
        alike = [
            n for n, one in enumerate(self.spec.targets[:number]) if (one.channel, one.peak) == (own.channel, own.peak)
        ]
        return alike[-1] if alike else None

    def predict(self, view: SeriesView, origins: Ints) -> Floats:
        """See Model."""
        if self._band is None or len(self._band) < view.population:
            return self.spec.empty(len(origins), view.series)
        guess = self.points(view, origins)
        if len(guess) != len(self.spec.targets):
            guess = guess[self.spec.channels]
        quantiles: Floats = guess.transpose(2, 1, 0)[..., None].astype(np.float32, copy=False) + self._band[view.rows]
        return quantiles

    def adopt(self, old: "PointModel") -> None:
        """Keeps the bands of the predecessor until their turn comes."""
        self._band = old._band

    def __getstate__(self) -> dict[str, object]:
        # The fitting process has no use for what is known about each series.
        return {**self.__dict__, "_band": None}


class RecursiveModel(PointModel):
    """A PointModel whose guess at a cell follows from a small state and that cell: no history is read in a cycle.

    The state (parts x channels x series) stays UNSETTLED cells behind, from where it is run again each time.
    """

    parts: ClassVar[int]

    def __init__(self, spec: ForecastSpec, seed: int = 0) -> None:
        super().__init__(spec, seed)
        self._state: Floats | None = None
        self._next = 0  # number of the first cell that the state does not know yet

    def begin(self, channels: int, series: int) -> Floats:
        """The state before the first cell."""
        return np.zeros((self.parts, channels, series))

    def advance(self, state: Floats, column: Floats) -> None:
        """Takes one more cell (channels x series, NaN = missing) into the state, in place."""
        raise NotImplementedError

    def guess(self, state: Floats) -> Floats:
        """Channels x series: the guess that follows from the state, NaN before the first known cell."""
        raise NotImplementedError

    def history(self, view: SeriesView) -> Floats:
        """What is forecast at every cell of the view (channels x series x cells), without the running state."""
        raise NotImplementedError

    def update(self, view: SeriesView) -> None:
        """See PointModel; also moves the state on."""
        super().update(view)
        self._follow(view)
        assert self._state is not None
        until = view.start + view.cells - UNSETTLED
        for cell in range(max(self._next, view.start), until):
            self.advance(self._state, view.rates[..., cell - view.start])
        self._next = max(self._next, until)

    def _follow(self, view: SeriesView) -> None:
        state = self._state
        if state is None:
            self._state, self._next = self.begin(view.channels, view.population), view.start
        elif state.shape[2] < view.population:
            more = self._caught_up(view, state.shape[2])
            self._state = np.concatenate([state, more], axis=2)

    def _caught_up(self, view: SeriesView, known: int) -> Floats:
        fresh = self.begin(view.channels, view.population - known)
        for cell in range(view.start, min(self._next, view.start + view.cells)):
            self.advance(fresh, view.rates[:, known:, cell - view.start])
        return fresh

    def points(self, view: SeriesView, origins: Ints) -> Floats:
        """See PointModel; from the running state where it is near enough."""
        first = self._next - view.start
        if len(origins) > 1 or self._state is None or not 0 <= origins[0] + 1 - first <= 2 * UNSETTLED:
            return self.history(view)[..., origins]
        state = self._state[..., : view.population][..., view.rows].copy()
        for cell in range(first, int(origins[0]) + 1):
            self.advance(state, view.rates[..., cell])
        return self.guess(state)[..., None]

    def adopt(self, old: "PointModel") -> None:
        """Keeps state and bands of the predecessor."""
        super().adopt(old)
        if isinstance(old, RecursiveModel):
            self._state, self._next = old._state, old._next

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_state": None}


class Naive(RecursiveModel):
    """The last known rate, with the band of its earlier errors."""

    name: ClassVar[str] = "naive"
    parts: ClassVar[int] = 1

    def begin(self, channels: int, series: int) -> Floats:
        """See RecursiveModel."""
        return np.full((1, channels, series), np.nan)

    def advance(self, state: Floats, column: Floats) -> None:
        """See RecursiveModel."""
        np.copyto(state[0], column, where=~np.isnan(column))

    def guess(self, state: Floats) -> Floats:
        """See RecursiveModel."""
        return np.asarray(state[0])

    def history(self, view: SeriesView) -> Floats:
        """See RecursiveModel."""
        return last_known(view.rates)


def ewma(values: Floats, alpha: float) -> Floats:
    """Weighted mean of all known values so far along the last axis, weights falling by (1 - alpha) per cell.

    s = sum (1 - a)^k y / sum (1 - a)^k over known cells, so a gap adds nothing; NaN before the first value.
    """
    known = ~np.isnan(values)
    keep = [1.0, alpha - 1.0]
    total: Floats = lfilter([1.0], keep, np.where(known, values, 0.0), axis=-1)
    weight: Floats = lfilter([1.0], keep, known.astype(np.float64), axis=-1)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


class ExponentialAverage(RecursiveModel):
    """EWMA of the rate with alpha 0.2, with the band of its earlier errors."""

    name: ClassVar[str] = "ewma"
    parts: ClassVar[int] = 2
    alpha: ClassVar[float] = 0.2

    def advance(self, state: Floats, column: Floats) -> None:
        """See RecursiveModel; the parts are the two sums of `ewma`."""
        known = ~np.isnan(column)
        state *= 1.0 - self.alpha
        state[0] += np.where(known, column, 0.0)
        state[1] += known

    def guess(self, state: Floats) -> Floats:
        """See RecursiveModel."""
        total, weight = state
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)

    def history(self, view: SeriesView) -> Floats:
        """See RecursiveModel."""
        return ewma(view.rates, self.alpha)


class SlowExponentialAverage(ExponentialAverage):
    """EWMA with alpha 0.05: the level of the last minute rather than of the last seconds."""

    name: ClassVar[str] = "ewma_slow"
    alpha: ClassVar[float] = 0.05


# From so many cells on, old ones begin to fade: a mean that nothing can move any more is of no use.
MAX_MEAN_CELLS = 100_000


class TrainMean(RecursiveModel):
    """Mean rate up to each cell; its band makes the forecast that of all windows seen."""

    name: ClassVar[str] = "train_mean"
    parts: ClassVar[int] = 2
    memory: ClassVar[int] = 3000

    def advance(self, state: Floats, column: Floats) -> None:
        """See RecursiveModel; the parts are the mean and how many cells it is of."""
        mean, count = state
        known = ~np.isnan(column)
        count += known
        np.minimum(count, MAX_MEAN_CELLS, out=count)
        mean += np.where(known, (column - mean) / np.maximum(count, 1.0), 0.0)

    def guess(self, state: Floats) -> Floats:
        """See RecursiveModel."""
        mean, count = state
        return np.where(count > 0, mean, np.nan)

    def history(self, view: SeriesView) -> Floats:
        """See RecursiveModel."""
        known = ~np.isnan(view.rates)
        count = np.cumsum(known, axis=-1)
        total = np.cumsum(np.where(known, view.rates, 0.0), axis=-1, dtype=np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)
