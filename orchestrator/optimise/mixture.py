"""Mixes hedged splits that look back differently far by how each would have done lately: networks differ in that."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from orchestrator.optimise.paths import Floats, Tunnels
from orchestrator.optimise.scenarios import (
    MOST_PATHS_FOR_OPTIMUM,
    History,
    MeasuredMatrix,
    Risk,
    history_for,
    of_errors,
)
from orchestrator.optimise.split_strategies import Ewma, Habits, Hedged

# How many matrices a part looks back (None: at all of the past) and the weights of the tail that it is there with.
LOOKS_BACK: tuple[tuple[int | None, tuple[float, ...]], ...] = (
    (None, (0.02, 0.05, 0.1)),
    (240, (0.02, 0.1)),
    (96, (0.05,)),
    (48, (0.05,)),
    (24, (0.05,)),
    (12, (0.05,)),
)
# Parts that look back equally far see different matrices of the past, so that together they fit its noise less; with
# more scenarios than this, each of them half as many as the one before.
MOST_A_PART = 512
# Parts that look for splits in one decision; the others do in the next ones, so that no decision is dear.
AT_ONCE = 4
# The part with forecasts looks back so far.
FORESEEING = 240
# Errors of the newest forecasts that `Drift` expects again.
ERRORS = 8


@dataclass(frozen=True, slots=True)
class Learning:
    """How parts are weighed: by exp(-rate L), L = sum of their losses, a loss `age` matrices ago times memory^age.

    A loss is what `Risk` asks of one matrix, (1 - tail_weight) r + tail_weight (z + max(r - z, 0) / (1 - tail_level)),
    and the price of what the part moved: r is the MLU ratio that its splits had, z the ratio that the mixture's own
    last 1 / (1 - memory) ratios exceed with probability 1 - tail_level. The memory of 200 matrices was taken from the
    first prototype; tail weight and rate were chosen on train rows (docs/results/route.md).
    """

    rate: float = 3.0
    memory: float = 0.995
    tail_weight: float = 0.1
    tail_level: float = 0.95

    def loss(self, ratios: Floats, threshold: float) -> Floats:
        """What each of the ratios costs, moving left out."""
        excess = np.maximum(ratios - threshold, 0.0) / (1 - self.tail_level)
        return np.asarray((1 - self.tail_weight) * ratios + self.tail_weight * (threshold + excess))


@dataclass(slots=True)
class Mixed:
    """The mean of all parts' splits by exponential weights (Hedge: Freund and Schapire, JCSS 55, 1997).

    The MLU is convex in the splits, and so is the loss: the mixture is never worse than the weighted mean of its parts.
    With N parts whose losses are within B of one another at each matrix, for every T and every part i

        sum_t g^(T-t) loss_t(mixture) <= sum_t g^(T-t) loss_t(i) + ln N / rate + rate B^2 / (8 (1 - g)),  g = memory.

    (From one matrix to the next, -ln mean exp(-rate L) grows by no less than g - 1 times itself and rate times the
    weighted mean loss, less Hoeffding's (rate B)^2 / 8; for it is concave in the scale of L.) A rate of 3 is where the
    bound is least for 10 parts within 0.1 of one another: sqrt(8 (1 - g) ln 10) / 0.1. What moves because the weights
    themselves change is not in the bound.
    """

    tunnels: Tunnels
    parts: tuple[Hedged, ...]
    learning: Learning = field(default_factory=Learning)
    drift: "Drift | None" = None
    _loss: Floats | None = None
    _decided: Floats | None = None
    _ratios: deque[float] = field(default_factory=deque)

    @property
    def history(self) -> History:
        """What the part remembers that looks back farthest."""
        return self.parts[0].history

    @property
    def risk(self) -> Risk:
        """What that part minimises."""
        return self.parts[0].risk

    @property
    def solved(self) -> int:
        """How often the first part with a window has looked for splits: those that look back farther seldom do."""
        return next((part for part in self.parts if part.history.window), self.parts[0]).solved

    @property
    def weights(self) -> Floats:
        """Of the parts; they add up to 1."""
        if self._loss is None:
            return np.full(len(self.parts), 1 / len(self.parts))
        found = np.exp(-self.learning.rate * (self._loss - self._loss.min()))
        return np.asarray(found / found.sum())

    def see(self, row: MeasuredMatrix) -> None:
        """Shows the matrix to all parts, and notes how each did on it."""
        if self.drift is not None:
            self.drift.see(row)
        known = len(self.parts) > 1 and all(part.last is not None for part in self.parts)
        for part in self.parts:
            part.see(row)
        if known and self._decided is not None and row.best > 0:
            self._learn(float(self.tunnels.mlu(self._decided, row.demand)[0]) / row.best)

    def _learn(self, ratio: float) -> None:
        learning = self.learning
        self._ratios.append(ratio)
        if len(self._ratios) > 1 / (1 - learning.memory):
            self._ratios.popleft()
        threshold = float(np.quantile(self._ratios, learning.tail_level))
        now = learning.loss(np.array([part.ratio for part in self.parts]), threshold)
        now += self.risk.churn * np.array([part.moved for part in self.parts])
        # The same for all changes no weight: counted from the best.
        self._loss = now - now.min() + (0.0 if self._loss is None else learning.memory * self._loss)

    def take(self, splits: Floats) -> None:
        """These splits are in force: parts that have none yet begin with them."""
        for part in self.parts:
            if part.last is None:
                part.take(splits)

    def decide(self) -> Floats:
        """The mean of what parts decided, after some of those whose time has come have decided anew."""
        for part in self.parts:
            part.moved = 0.0
        due = [part for part in self.parts if part.overdue]
        for part in sorted(due, key=lambda one: one.looked)[:AT_ONCE]:
            part.renew()
        return self._mean()

    def renew(self) -> None:
        """As many parts as one decision renews look for splits of less risk now, in turn."""
        for part in sorted(self.parts, key=lambda one: one.looked)[:AT_ONCE]:
            part.renew()
        self._mean()

    def _mean(self) -> Floats:
        begun = [place for place, part in enumerate(self.parts) if part.last is not None]
        if not begun:
            return self.parts[0].splits
        weights = self.weights[begun]
        shares = np.array([self.parts[place].splits for place in begun])
        self._decided = np.asarray(weights @ shares / weights.sum())
        return self._decided


@dataclass(slots=True)
class Drift:
    """Foresees the next matrix as an exponential mean that errs as it did lately: scenarios without a forecaster."""

    mean: Ewma
    _erred: deque[tuple[Floats, Floats]] = field(default_factory=lambda: deque(maxlen=ERRORS))

    def see(self, row: MeasuredMatrix) -> None:
        """Notes by how much the mean was wrong."""
        if (said := self.mean.value) is not None:
            self._erred.append((row.demand, said))
        self.mean.see(row)

    def __call__(self, _number: int) -> Floats:
        """S x N matrices; none before there are errors."""
        now = self.mean.value
        if now is None or not self._erred:
            return np.empty((0, len(self.mean.tunnels.pairs)))
        truths, said = (np.array(rows) for rows in zip(*self._erred, strict=True))
        return of_errors(now, truths, said)


def mixed(
    tunnels: Tunnels, risk: Risk = Risk(), outlook: float = 0.0, foresee: Callable[[int], Floats] | None = None
) -> Mixed:
    """Parts for all of `LOOKS_BACK` and, with a weight `outlook` of what `foresee` gives (S x N), one that looks ahead.

    Where there are so many paths that no optimum gives ratios their scale, parts cannot be compared: there is one then.
    """
    whole = history_for(tunnels)
    if len(tunnels.paths) > MOST_PATHS_FOR_OPTIMUM:
        return Mixed(tunnels, (Hedged(tunnels, risk, Habits(outlook=outlook), foresee, whole),))
    parts = []
    for window, tails in LOOKS_BACK:
        for place, tail in enumerate(tails):
            most = whole.most >> place if whole.most > MOST_A_PART else whole.most
            history = History(most, whole.recent, window, place)
            parts.append(Hedged(tunnels, replace(risk, tail_weight=tail), history=history))
    if foresee is not None and outlook > 0:
        history = History(whole.most, whole.recent, FORESEEING)
        parts.append(Hedged(tunnels, risk, Habits(outlook=outlook), foresee, history))
    return Mixed(tunnels, tuple(parts))


def auto(tunnels: Tunnels) -> Mixed:
    """The mixture with the default setting, which looks ahead by `Drift`."""
    drift = Drift(Ewma(tunnels))
    found = mixed(tunnels, outlook=OUTLOOK, foresee=drift)
    found.drift = drift
    return found


# Weight of what `Drift` foresees in its part: chosen on train rows.
OUTLOOK = 0.1
