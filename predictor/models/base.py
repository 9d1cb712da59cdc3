"""Says what a model has to offer, and gives the models that make one guess per window their band of uncertainty."""

from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from predictor.quantiles import sample_quantiles
from predictor.view import Ask, Floats, Ints, View

# Cells at the end that may still change, as rows may come late: running states stay behind them.
UNSETTLED = 5


class Model(Protocol):
    """A forecaster over all series at once. A view may show some of them only: see `View.rows`.

    `slow` fits run in another process on a copy, which then takes the place of the original, so a model must be
    picklable. `replayable` models may be judged on the past with what they know today, because they learn so
    little (a period, a band) that this flatters them hardly. A `costly` model is asked only about series for which
    it has earned a say or may do so.
    """

    name: ClassVar[str]
    slow: ClassVar[bool]
    replayable: ClassVar[bool]
    costly: ClassVar[bool]

    def fit(self, view: View) -> None:
        """Learns parameters from the whole view, which may show a sample of the series."""

    def update(self, view: View) -> None:
        """Takes note of new cells and of new series; called before each prediction with all series, cheap."""

    def predict(self, view: View, origins: Ints) -> Floats:
        """Origins x series x targets x levels (float32), NaN where the model has nothing to say.

        What is said at origin k (a cell of the view) may depend on cells <= k only; parameters are those of the last
        fit or update. Values may cross or be negative: the composition mends that.
        """


@runtime_checkable
class Adopting(Protocol):
    """A model that, fitted elsewhere, takes over what its predecessor knew about each series."""

    def adopt(self, old: Self) -> None:
        """Called once, when this model takes the place of `old`."""


class PointBand:
    """A model whose guess is one rate per window; its fan is that guess plus the errors that it made before."""

    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    costly: ClassVar[bool] = False
    memory: ClassVar[int] = 900
    # Errors beyond so many add little to a quantile and much to its cost.
    samples: ClassVar[int] = 300

    def __init__(self, ask: Ask, _seed: int = 0) -> None:
        self.ask = ask
        self._band: Floats | None = None

    def points(self, view: View, origins: Ints) -> Floats:
        """Rates foreseen at some cells of the view: (channels or targets) x series x origins."""
        raise NotImplementedError

    def fit(self, view: View) -> None:
        """Nothing to learn but the band."""

    def update(self, view: View) -> None:
        """Renews the band of the series whose turn it is, and gives new ones theirs."""
        band = self._roomy(view.population)
        sub = view.due()
        band[sub.rows] = self._errors(sub)

    def _roomy(self, population: int) -> Floats:
        band = self._band
        if band is None or len(band) < population:
            more = self.ask.empty(1, population - (0 if band is None else len(band)))[0]
            self._band = band = more if band is None else np.concatenate([band, more])
        return band

    def _errors(self, view: View) -> Floats:
        """Quantiles of the errors at origins of the last `memory` cells: series x targets x levels."""
        band: Floats = self.ask.empty(1, view.series)[0]
        reach = min(view.cells, self.memory + self.ask.reach + view.lead)
        origins = np.arange(view.cells - 1, view.cells - 1 - reach, -max(1, -(-reach // self.samples)))[::-1]
        guesses = self.points(view, origins)
        for number, target in enumerate(self.ask.targets):
            begins = view.begins(target, origins)
            over = begins + target.length <= view.cells
            guess = guesses[number if len(guesses) == len(self.ask.targets) else target.channel]
            error = view.target(target)[:, begins[over]] - guess[:, over]
            here = sample_quantiles(error, self.ask.levels) if over.any() else np.nan
            # A young series has seen no window as far away as this: what it errs over nearer ones is the best guess.
            nearer = self._nearer(number)
            band[:, number] = here if nearer is None else np.where(np.isnan(here), band[:, nearer], here)
        return band

    def _nearer(self, number: int) -> int | None:
        own = self.ask.targets[number]
        alike = [
            n for n, one in enumerate(self.ask.targets[:number]) if (one.channel, one.peak) == (own.channel, own.peak)
        ]
        return alike[-1] if alike else None

    def predict(self, view: View, origins: Ints) -> Floats:
        """See Model."""
        if self._band is None or len(self._band) < view.population:
            return self.ask.empty(len(origins), view.series)
        guess = self.points(view, origins)
        if len(guess) != len(self.ask.targets):
            guess = guess[self.ask.channels]
        fan: Floats = guess.transpose(2, 1, 0)[..., None].astype(np.float32, copy=False) + self._band[view.rows]
        return fan

    def adopt(self, old: "PointBand") -> None:
        """Keeps the bands of the predecessor until their turn comes."""
        self._band = old._band

    def __getstate__(self) -> dict[str, object]:
        # The fitting process has no use for what is known about each series.
        return {**self.__dict__, "_band": None}


class Running(PointBand):
    """A PointBand whose guess at a cell follows from a small state and that cell: no history is read in a cycle.

    The state (parts x channels x series) stays UNSETTLED cells behind, from where it is run again each time.
    """

    parts: ClassVar[int]

    def __init__(self, ask: Ask, seed: int = 0) -> None:
        super().__init__(ask, seed)
        self._state: Floats | None = None
        self._next = 0  # number of the first cell that the state does not know yet

    def begin(self, channels: int, series: int) -> Floats:
        """The state before the first cell."""
        return np.zeros((self.parts, channels, series))

    def advance(self, state: Floats, column: Floats) -> None:
        """Takes one more cell (channels x series, NaN = missing) into the state, in place."""
        raise NotImplementedError

    def guess(self, state: Floats) -> Floats:
        """Channels x series: what the state foresees, NaN before the first known cell."""
        raise NotImplementedError

    def history(self, view: View) -> Floats:
        """What is foreseen at every cell of the view (channels x series x cells), without the running state."""
        raise NotImplementedError

    def update(self, view: View) -> None:
        """See PointBand; also moves the state on."""
        super().update(view)
        self._follow(view)
        assert self._state is not None
        until = view.start + view.cells - UNSETTLED
        for cell in range(max(self._next, view.start), until):
            self.advance(self._state, view.rates[..., cell - view.start])
        self._next = max(self._next, until)

    def _follow(self, view: View) -> None:
        state = self._state
        if state is None:
            self._state, self._next = self.begin(view.channels, view.population), view.start
        elif state.shape[2] < view.population:
            more = self._caught_up(view, state.shape[2])
            self._state = np.concatenate([state, more], axis=2)

    def _caught_up(self, view: View, known: int) -> Floats:
        fresh = self.begin(view.channels, view.population - known)
        for cell in range(view.start, min(self._next, view.start + view.cells)):
            self.advance(fresh, view.rates[:, known:, cell - view.start])
        return fresh

    def points(self, view: View, origins: Ints) -> Floats:
        """See PointBand; from the running state where it is near enough."""
        first = self._next - view.start
        if len(origins) > 1 or self._state is None or not 0 <= origins[0] + 1 - first <= 2 * UNSETTLED:
            return self.history(view)[..., origins]
        state = self._state[..., : view.population][..., view.rows].copy()
        for cell in range(first, int(origins[0]) + 1):
            self.advance(state, view.rates[..., cell])
        return self.guess(state)[..., None]

    def adopt(self, old: "PointBand") -> None:
        """Keeps state and bands of the predecessor."""
        super().adopt(old)
        if isinstance(old, Running):
            self._state, self._next = old._state, old._next

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_state": None}
