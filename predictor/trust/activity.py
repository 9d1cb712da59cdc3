"""Says how probable it is that a series is active at all in the next window: who, before how much."""

from collections import deque
from collections.abc import Mapping

import numpy as np

from predictor.data.view import Floats, Ints

# Shares of a cell in the running averages of activity: from the last seconds to the last minutes.
ALPHAS = np.array([0.5, 0.2, 0.05, 0.01], dtype=np.float32)
SIZE_ALPHAS = np.array([0.2, 0.02], dtype=np.float32)
# What has been learnt fades this slowly per cell; half is left after 7,000 cells.
KEEP = 0.9999
RIDGE = 5.0
# So many series a cell teach; more would cost time and say little new.
TEACHERS = 1024
# All series of one cell together count as no more than so many witnesses: they are not independent.
WITNESSES = 256.0
GAPS_REMEMBERED = 20.0
MIN_GAPS = 2
PRIOR_CELLS = 0.02
COLUMNS = 5 + len(ALPHAS) + 3


class ActivityState:
    """Running state of each series: how often it spoke, since when it is quiet, how long its silences last."""

    def __init__(self) -> None:
        self.spoke = np.zeros((0, len(ALPHAS)), dtype=np.float32)
        self.weight = np.zeros((0, len(ALPHAS)), dtype=np.float32)
        self.quiet, self.talking = (np.zeros(0, dtype=np.float32) for _ in range(2))
        # Cells known and cells spoken; mean, variance and number of the logarithms of silences; log sizes
        self.seen = np.zeros((0, 2), dtype=np.float32)
        self.gaps = np.zeros((0, 3), dtype=np.float32)
        self.sizes = np.zeros((0, len(SIZE_ALPHAS)), dtype=np.float32)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        more = series - len(self.quiet)
        if more > 0:
            for name, value in vars(self).items():
                setattr(self, name, np.pad(value, ((0, more),) + ((0, 0),) * (value.ndim - 1)))

    def step(self, rates: Floats) -> None:
        """One cell more: rates per series, NaN = not known, which changes nothing."""
        known = ~np.isnan(rates)
        active = known & (rates > 0)
        share = known[:, None] * ALPHAS
        self.spoke += share * (active[:, None] - self.spoke)
        self.weight += share * (1.0 - self.weight)
        self._silence_ends(active & (self.quiet > 0) & (self.seen[:, 1] > 0))
        self._sizes(active, rates)
        self.quiet = np.where(active, 0.0, self.quiet + known).astype(np.float32)
        self.talking = np.where(active, self.talking + 1.0, np.where(known, 0.0, self.talking)).astype(np.float32)
        self.seen += np.stack([known, active], axis=1)

    def _silence_ends(self, begun: Floats) -> None:
        # Welford's running mean and variance, over about the last 20 silences
        step = np.where(begun, 1.0 / np.minimum(self.gaps[:, 2] + 1.0, GAPS_REMEMBERED), 0.0)
        off = np.log(np.maximum(self.quiet, 1.0)) - self.gaps[:, 0]
        self.gaps[:, 0] += step * off
        self.gaps[:, 1] += step * (off**2 * (1.0 - step) - self.gaps[:, 1])
        self.gaps[:, 2] += begun

    def _sizes(self, active: Floats, rates: Floats) -> None:
        size = np.log(np.where(active, rates, 1.0)).astype(np.float32)[:, None]
        begun = self.seen[:, 1:] > 0
        moved = self.sizes + SIZE_ALPHAS * (size - self.sizes)
        self.sizes = np.where(active[:, None], np.where(begun, moved, size), self.sizes)

    def features(self, horizons: Ints) -> Floats:
        """Series x horizons x COLUMNS: a 1, is it talking, log odds by each average, runs, silences, sizes."""
        base = (self.seen[:, 1:] + 0.5) / (self.seen[:, :1] + 1.0)
        often = (self.spoke + PRIOR_CELLS * base) / (self.weight + PRIOR_CELLS)
        rate = np.clip(np.concatenate([often, base], axis=1), 1e-6, 1 - 1e-6)[:, None]
        # If cells were independent, the window would be silent with (1 - rate)^horizon.
        silent = horizons[:, None] * np.log1p(-rate)
        odds = np.clip(np.log(-np.expm1(silent)) - silent, -7.0, 7.0)
        alone = np.stack([np.ones_like(self.quiet), self.quiet == 0, np.log1p(self.quiet), np.log1p(self.talking)], 1)
        alone = np.concatenate([alone, self._relative_sizes()], axis=1)
        everywhere = np.broadcast_to(alone[:, None], (len(alone), len(horizons), alone.shape[1]))
        due = self._due(horizons)[..., None]
        return np.concatenate([everywhere, odds, due], axis=-1).astype(np.float32)

    def _relative_sizes(self) -> Floats:
        begun = self.seen[:, 1] > 0
        usual = self.sizes[begun, 1].mean() if begun.any() else 0.0
        among = np.clip(self.sizes[:, 0] - usual, -10.0, 10.0) / 5.0
        lately = np.clip(self.sizes[:, 0] - self.sizes[:, 1], -3.0, 3.0)
        relative: Floats = np.where(begun[:, None], np.stack([among, lately], axis=1), 0.0)
        return relative

    def _due(self, horizons: Ints) -> Floats:
        """Log odds that a silence that has lasted so long ends in the window, silences being lognormal."""
        from scipy.special import ndtr  # only here: it takes a sixth of a second to import

        spread = np.sqrt(self.gaps[:, 1] + 0.05)[:, None]
        so_far = np.maximum(self.quiet, 0.5)[:, None]
        reached = ndtr((np.log(so_far) - self.gaps[:, :1]) / spread)
        by_end = ndtr((np.log(so_far + horizons) - self.gaps[:, :1]) / spread)
        ends = np.clip((by_end - reached) / np.maximum(1.0 - reached, 1e-4), 0.006, 0.994)
        told = (self.quiet > 0) & (self.gaps[:, 2] >= MIN_GAPS)
        due: Floats = np.where(told[:, None], np.log(ends / (1.0 - ends)), 0.0)
        return due


class ActivityModel:
    """Logistic regression over all series and one horizon each, learnt online.

    Each step is one of Newton's on the log loss, with the curvature summed up so far (the extended Kalman filter for
    a logistic observation; Fahrmeir 1992), so it needs no learning rate. A label is used when its window is over.
    """

    def __init__(self, horizons: tuple[int, ...], seed: int = 1) -> None:
        self._horizons = np.array(horizons, dtype=np.int64)
        self._rng = np.random.default_rng(seed)
        self.pulse = ActivityState()
        self.cells = 0
        self.weights = np.zeros((len(horizons), COLUMNS))
        # Before anything is learnt: the middle averages of activity say it.
        self.weights[:, 7], self.weights[:, 8] = 0.6, 0.4
        self.curvature = np.repeat(np.eye(COLUMNS)[None] * RIDGE, len(horizons), axis=0)
        self._recent: deque[Floats] = deque(maxlen=max(horizons))
        self._lessons: deque[tuple[Ints, Floats]] = deque(maxlen=max(horizons) + 1)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined; they have said nothing yet."""
        self.pulse.resize(series)

    def step(self, rates: Floats) -> None:
        """One cell more (rates per series, NaN = not known); learns from the windows that end with it."""
        self.resize(len(rates))
        self._recent.append(np.where(np.isnan(rates), -1, rates > 0).astype(np.int8))
        self._learn()
        self.pulse.step(np.asarray(rates, dtype=np.float32))
        self.cells += 1
        teachers = self._teachers(len(rates))
        self._lessons.append((teachers, self._part(teachers).features(self._horizons)))

    def _teachers(self, series: int) -> Ints:
        if series <= TEACHERS:
            return np.arange(series)
        return self._rng.integers(0, series, TEACHERS)

    def _part(self, chosen: Ints) -> ActivityState:
        if len(chosen) == len(self.pulse.quiet):
            return self.pulse
        part = ActivityState()
        for name, value in vars(self.pulse).items():
            setattr(part, name, value[chosen])
        return part

    def _learn(self) -> None:
        for number, horizon in enumerate(self._horizons.tolist()):
            if len(self._lessons) < horizon or len(self._recent) < horizon:
                continue
            teachers, inputs = self._lessons[-horizon]
            columns = list(self._recent)[-horizon:]
            window = [column[teachers] for column in columns if len(column) > teachers.max(initial=-1)]
            if len(window) == horizon and len(teachers):
                self._move(number, inputs[:, number], np.stack(window))

    def _move(self, number: int, inputs: Floats, window: Floats) -> None:
        spoke: Floats = np.asarray((window > 0).any(axis=0))
        known: Floats = np.asarray(spoke | (window >= 0).all(axis=0))
        if not known.any():
            return
        inputs, spoke = inputs[known].astype(np.float64), spoke[known]
        said = _logistic(inputs @ self.weights[number])
        # Neighbouring windows overlap, so one cell brings less than one window's worth of news.
        worth = min(1.0, WITNESSES / len(spoke)) / np.sqrt(len(window))
        old = KEEP * self.curvature[number] + (1.0 - KEEP) * RIDGE * np.eye(COLUMNS)
        self.curvature[number] = old + worth * (inputs * (said * (1.0 - said))[:, None]).T @ inputs
        self.weights[number] += np.linalg.solve(self.curvature[number], worth * (inputs.T @ (spoke - said)))

    def probabilities(self) -> Floats:
        """Series x horizons: probability to be active in the window after the last cell; NaN while never known."""
        inputs = self.pulse.features(self._horizons)
        said = _logistic(np.einsum("shc,hc->sh", inputs, self.weights.astype(np.float32)))
        probable: Floats = np.where(self.pulse.seen[:, :1] > 0, said, np.nan).astype(np.float32)
        return probable

    def state(self) -> dict[str, Floats]:
        """What was learnt and what is running, as arrays; series keep their order."""
        return {"weights": self.weights, "curvature": self.curvature, **vars(self.pulse)}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave. Raises KeyError or ValueError, and changes nothing, when it does not fit."""
        series = len(state["quiet"])
        for name, value in self.state().items():
            learnt = name in ("weights", "curvature")
            shape = value.shape if learnt else (series, *value.shape[1:])
            if state[name].shape != shape or not np.isfinite(state[name]).all():
                raise ValueError(f"activity: {name} is of other horizons or holds no sound numbers")
        self.weights, self.curvature = state["weights"].copy(), state["curvature"].copy()
        for name in vars(self.pulse):
            setattr(self.pulse, name, state[name].astype(np.float32))
        self._recent.clear()
        self._lessons.clear()


def rolling_probabilities(rates: Floats, horizons: tuple[int, ...], seed: int = 1) -> Floats:
    """Horizons x series x cells: what `ActivityModel` would have said after each cell (rates: series x cells).

    What is said at a cell was learnt from that cell and those before it alone.
    """
    model = ActivityModel(horizons, seed)
    said = np.empty((len(horizons), *rates.shape), dtype=np.float32)
    for cell in range(rates.shape[1]):
        model.step(rates[:, cell])
        said[:, :, cell] = model.probabilities().T
    return said


def _logistic(values: Floats) -> Floats:
    from scipy.special import expit  # as above

    found: Floats = expit(values)
    return found
