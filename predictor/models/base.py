"""Says what a model has to offer, and gives the models that make one guess per window their band of uncertainty."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from predictor.quantiles import sample_quantiles
from predictor.view import CHANNEL_OF, QUANTITIES, Floats, View


@dataclass(frozen=True, slots=True)
class Ask:
    """What every model is asked for: horizons in cells and quantile levels, both ascending."""

    horizons: tuple[int, ...]
    levels: tuple[float, ...]

    def empty(self, pairs: int) -> Floats:
        """A fan (pairs x horizons x quantities x levels) that says nothing yet."""
        return np.full((pairs, len(self.horizons), len(QUANTITIES), len(self.levels)), np.nan, dtype=np.float32)


class Model(Protocol):
    """A forecaster over all pairs at once. Rows of the view are pairs and keep their place; new ones are appended.

    `slow` fits run in another process on a copy, which then takes the place of the original, so a model must be
    picklable. `replayable` models may be judged on the past with what they know today, because they learn so
    little (a period, a band) that this flatters them hardly.
    """

    name: ClassVar[str]
    slow: ClassVar[bool]
    replayable: ClassVar[bool]

    def fit(self, view: View) -> None:
        """Learns parameters from the whole view."""

    def update(self, view: View) -> None:
        """Takes note of new cells; called each cycle, cheap."""

    def predict(self, view: View) -> Floats:
        """Pairs x horizons x quantities x levels for the windows that begin `view.lead` cells after the view's end.

        NaN where the model has nothing to say. Values may cross or be negative; the composition mends that.
        """


class PointBand:
    """A model whose guess is one rate per window; its fan is that guess plus the errors it made before."""

    slow: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    memory: ClassVar[int] = 300
    renew_every: ClassVar[int] = 4

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._band: Floats | None = None
        self._age = 0

    def points(self, view: View, tail: int) -> Floats:
        """Rates foreseen at each of the view's last `tail` cells: channels x pairs x (horizons or 1) x tail."""
        raise NotImplementedError

    def fit(self, view: View) -> None:
        """Nothing to learn but the band."""
        self._band = self._errors(view)

    def update(self, view: View) -> None:
        """Renews the band of errors every few cycles, and at once when pairs have joined."""
        self._age += 1
        if self._band is None or len(self._band) != view.pairs or self._age >= self.renew_every:
            self._age = 0
            self._band = self._errors(view)

    def _errors(self, view: View) -> Floats:
        band = self.ask.empty(view.pairs)
        tail = min(view.cells, self.memory + self.ask.horizons[-1] + view.lead)
        guesses = self.points(view, tail)
        for number, horizon in enumerate(self.ask.horizons):
            guess = guesses[:, :, min(number, guesses.shape[2] - 1), :][CHANNEL_OF]
            ahead = 1 + view.lead
            if tail <= ahead:
                continue
            # The window foreseen at cell t begins at t + 1 + lead.
            error = view.targets(horizon)[..., view.cells - tail + ahead :] - guess[..., : tail - ahead]
            here = sample_quantiles(error, self.ask.levels).transpose(1, 0, 2)
            # A young pair has seen no window as long as this: what it errs over shorter ones is the best guess.
            band[:, number] = np.where(np.isnan(here) & (number > 0), band[:, number - 1], here)
        return band

    def predict(self, view: View) -> Floats:
        """See Model."""
        if self._band is None or len(self._band) != view.pairs:
            return self.ask.empty(view.pairs)
        guess = self.points(view, 1)[..., -1]  # channels x pairs x (horizons or 1)
        fan: Floats = guess[CHANNEL_OF].transpose(1, 2, 0)[..., None] + self._band
        return fan
