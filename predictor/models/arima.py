"""ARIMA by statsmodels: parameters estimated now and then for a few series, state carried on every cycle for all."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from predictor.data.view import Floats, ForecastSpec, Ints, SeriesView, last_known
from predictor.models.pointwise import PointModel


class ArimaOrder(NamedTuple):
    """How many autoregressive terms, differences and moving averages."""

    p: int
    d: int
    q: int


# Which one is used is decided by one-step errors on history that the candidates were not fitted to.
ORDERS = tuple(
    ArimaOrder(*order) for order in ((1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 0, 1), (2, 0, 1), (0, 1, 1), (1, 1, 1))
)
MEMORY = 30
HISTORY = 300
SHORTEST = 60
SAMPLED = 4
# Estimates per fit bound its cost (about 15 ms each); series that resemble each other share the median of theirs.
ESTIMATES = 12
# Pasts that are laid out at a time: MEMORY values each.
CHUNK = 60_000
# So many of the newest estimates of a group are remembered.
KEPT = 24
# Series are grouped by how much a cell tells about the next one: bounds of the autocorrelation at lag 1.
GROUPS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


class Arima(PointModel):
    """Every ARIMA is, but for a remainder, a weighted sum of its last values: 30 weights per group say it all.

    So new cells cost one product per series and no filter has to be run again (Box and Jenkins' pi weights).
    """

    name: ClassVar[str] = "arima"
    slow: ClassVar[bool] = True
    replayable: ClassVar[bool] = False

    def __init__(self, spec: ForecastSpec, seed: int = 0) -> None:
        super().__init__(spec, seed)
        self.order: ArimaOrder | None = None
        self._estimates: dict[tuple[int, int], list[Floats]] = {}
        self._next = 0
        self._weights: dict[tuple[int, int], Floats] = {}  # by (lead, group): MEMORY x targets
        self._mean: Floats = np.zeros((0, 0), dtype=np.float32)  # series x channels
        self._group: Ints = np.zeros((0, 0), dtype=np.int64)

    def fit(self, view: SeriesView) -> None:
        """Chooses the order on a sample of series, then estimates a few series in turn."""
        lively = np.flatnonzero(np.nanmax(np.nan_to_num(view.rates[0]), axis=-1, initial=0.0) > 0)
        if view.cells < SHORTEST or not len(lively):
            return
        self._weights = {}
        sample = lively[np.linspace(0, len(lively) - 1, SAMPLED).astype(np.int64)]
        self.order = _choose_order(list(_standardised(view.rates[0, sample]))) or self.order
        if self.order is None:
            return
        chosen = lively[(self._next + np.arange(min(ESTIMATES, len(lively)))) % len(lively)]
        self._next = int((self._next + ESTIMATES) % len(lively))
        for channel in range(view.channels):
            series = _standardised(view.rates[channel, chosen])
            for one, group in zip(series, _grouped(series), strict=True):
                weights = _estimate(one, self.order)
                if weights is not None:
                    known = self._estimates.setdefault((channel, int(group)), [])
                    self._estimates[channel, int(group)] = [*known, weights][-KEPT:]

    def update(self, view: SeriesView) -> None:
        """See PointModel; nothing before the first fit."""
        if not self._estimates:
            return
        more = view.population - len(self._mean)
        if more > 0 or not self._mean.shape[1]:
            self._mean = np.concatenate([self._mean.reshape(-1, view.channels), np.zeros((more, view.channels))])
            self._group = np.concatenate(
                [self._group.reshape(-1, view.channels), np.zeros((more, view.channels), dtype=np.int64)]
            )
        sub = view.due()
        known = ~np.isnan(sub.rates)
        total = np.where(known, sub.rates, 0.0).sum(axis=-1, dtype=np.float64)
        self._mean[sub.rows] = (total / np.maximum(known.sum(axis=-1), 1)).T
        for channel in range(view.channels):
            self._group[sub.rows, channel] = _grouped(_standardised(sub.rates[channel]))
        super().update(view)

    def points(self, view: SeriesView, origins: Ints) -> Floats:
        """See PointModel: mean of the path forecast over each window, targets x series x origins."""
        result = np.zeros((len(self.spec.targets), view.series, len(origins)), dtype=np.float32)
        means, groups = self._mean[view.rows], self._group[view.rows]
        for channel in range(view.channels):
            which = np.flatnonzero(self.spec.channels == channel)
            if len(which):
                for group in np.unique(groups[:, channel]).tolist():
                    weights = self._window_weights(channel, group, view.lead)[:, which]
                    members = np.flatnonzero(groups[:, channel] == group)
                    for rows in np.array_split(members, -(-len(members) * len(origins) // CHUNK)):
                        past = _past(view.rates[channel, rows], means[rows, channel], origins)
                        result[which[:, None], rows] = np.moveaxis(past @ weights, -1, 0)
                result[which] += means[None, :, channel, None]
        return result

    def _window_weights(self, channel: int, group: int, lead: int) -> Floats:
        groups = [of for at, of in self._estimates if at == channel]
        if not groups:
            return np.zeros((MEMORY, len(self.spec.targets)), dtype=np.float32)
        nearest = min(groups, key=lambda one: abs(one - group))
        key = (lead, channel * (len(GROUPS) + 1) + nearest)
        if key not in self._weights:
            steps = path_weights(np.median(self._estimates[channel, nearest], axis=0), lead + self.spec.reach)
            windows = [steps[lead + target.first : lead + target.reach].mean(axis=0) for target in self.spec.targets]
            self._weights[key] = np.stack(windows, axis=-1).astype(np.float32)
        return self._weights[key]

    def state(self) -> dict[str, Floats]:
        """Order and estimates, for the next start to go on with."""
        if self.order is None:
            return {}
        found = {f"{channel}/{group}": np.stack(known) for (channel, group), known in self._estimates.items()}
        return {"order": np.array(self.order), **found}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave. Raises KeyError or ValueError, changing nothing, when it does not fit."""
        order = ArimaOrder(*(int(part) for part in state["order"]))
        estimates = {}
        for name, known in state.items():
            if name != "order":
                channel, group = (int(part) for part in name.split("/"))
                if known.ndim != 2 or known.shape[1] != MEMORY or not np.isfinite(known).all():
                    raise ValueError("arima: estimates of another shape")
                estimates[channel, group] = list(known.astype(np.float64))
        self.order, self._estimates, self._weights = order, estimates, {}

    def adopt(self, old: "PointModel") -> None:
        """Keeps means, groups and bands of the predecessor."""
        super().adopt(old)
        if isinstance(old, Arima):
            self._mean, self._group = old._mean, old._group

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_mean": self._mean[:0], "_group": self._group[:0], "_weights": {}}


def _past(rates: Floats, mean: Floats, origins: Ints) -> Floats:
    """Series x origins x MEMORY: the last values at each origin without their mean, newest first, gaps bridged."""
    low = max(0, int(origins.min()) + 1 - 2 * MEMORY)
    filled = np.nan_to_num(last_known(rates[:, low : int(origins.max()) + 1]) - mean[:, None])
    padded = np.pad(filled.astype(np.float32, copy=False), ((0, 0), (MEMORY, 0)))
    return sliding_window_view(padded, MEMORY, axis=-1)[:, origins - low + 1, ::-1]


def _grouped(series: Floats) -> Ints:
    """Group of each standardised series (any number x cells)."""
    near = (series[:, 1:] * series[:, :-1]).mean(axis=-1) if series.shape[1] > 1 else np.zeros(len(series))
    return np.searchsorted(GROUPS, near)


def pi_weights(ar: Floats, ma: Floats, d: int) -> Floats:
    """Weights of the last MEMORY values in the next one: 1 - (1 - B)^d ar(B) / ma(B), newest first."""
    top = np.concatenate([[1.0], -np.asarray(ar)])
    for _ in range(d):
        top = np.convolve(top, [1.0, -1.0])
    impulse = np.zeros(MEMORY + 1)
    impulse[0] = 1.0
    expansion: Floats = lfilter(top, np.concatenate([[1.0], np.asarray(ma)]), impulse)
    return -expansion[1:]


def path_weights(pi: Floats, steps: int) -> Floats:
    """Weights of known values in each of the next steps: steps x (shape of pi); a step builds on those before it."""
    path = np.zeros((steps, *pi.shape))
    for step in range(steps):
        reach = min(step, MEMORY)
        path[step, ..., : MEMORY - reach] = pi[..., reach:] if step < MEMORY else 0.0
        for back in range(reach):
            path[step] += pi[..., back : back + 1] * path[step - 1 - back]
    return path


def _standardised(rates: Floats) -> Floats:
    values = np.nan_to_num(last_known(rates)[..., -HISTORY:]).astype(np.float64)
    spread = values.std(axis=-1, keepdims=True)
    scaled: Floats = (values - values.mean(axis=-1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return scaled


def _estimate(series: Floats, order: ArimaOrder) -> Floats | None:
    # Deferred: statsmodels takes seconds to import, and only the fitting process needs it.
    from statsmodels.tsa.arima.model import ARIMA

    if not series.std():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Hannan-Rissanen needs no search, so its cost is known beforehand.
            result: Any = ARIMA(series, order=order, trend="n").fit(method="hannan_rissanen")
        except (ValueError, np.linalg.LinAlgError):
            return None
    weights = pi_weights(result.arparams, result.maparams, order.d)
    explodes = not np.isfinite(weights).all() or np.abs(weights).sum() > 4.0
    return None if explodes else weights


def _choose_order(sample: list[Floats]) -> ArimaOrder | None:
    losses = {order: np.mean([_one_step_error(series, order) for series in sample]) for order in ORDERS}
    best = min(losses, key=lambda order: losses[order])
    return best if np.isfinite(losses[best]) else None


def _one_step_error(series: Floats, order: ArimaOrder) -> float:
    split = 2 * len(series) // 3
    weights = _estimate(series[:split], order)
    if weights is None:
        return float("inf")
    guess = np.convolve(series, weights)[split - 1 : len(series) - 1]
    return float(np.mean((series[split:] - guess) ** 2))
