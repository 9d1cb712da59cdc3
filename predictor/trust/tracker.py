"""Follows the forecasts of one tier: who will be active, how far to trust, what has drifted, how good it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import HorizonMove, ScoreBatch, Seconds, Subject, nearest_level
from predictor.data.view import Floats, Ints, SeriesView
from predictor.trust.activity import ActivityModel
from predictor.trust.horizon import NOTHING, HorizonChange, HorizonLadder, Tolerance
from predictor.trust.scores import BLENDED, ScoreRollup, ScoreShape

# Page's cumulative sum (1954) in Hinkley's form for a rise of the mean: loss in units of its own running mean, less 1,
# less SLACK, summed while above 0. One outlier counts at most CAP, so that it alone is no drift.
SLACK = 0.5
CAP = 6.0
LIMIT = 6.0
USUAL_ALPHA = 0.02
# While a rise is suspected, the running mean learns slower, or it would get used to what is to be found.
SUSPECTING = 0.2
# The running mean must rest on something before it is held against anyone.
MIN_LOSSES = 30.0


class DriftDetector:
    """One-sided test per series, on losses of windows that are `overlap` cells long and begin at every cell.

    Neighbouring windows share cells, so the limit grows with `overlap`. After an alarm a series counts as changed for
    `aftermath` cycles.
    """

    def __init__(self, overlap: int, aftermath: int = 60) -> None:
        self._limit = LIMIT * overlap
        self._aftermath = aftermath
        self.total = 0
        self._usual, self._count, self._sum, self._changed = (np.zeros(0, dtype=np.float32) for _ in range(4))

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        more = series - len(self._sum)
        if more > 0:
            grown = [np.pad(array, (0, more)) for array in self.state().values()]
            self._usual, self._count, self._sum, self._changed = grown

    def step(self, losses: Floats) -> Floats:
        """One window's loss per series (NaN = none); a mask of those that drifted: their usual loss begins anew."""
        self.resize(len(losses))
        known = ~np.isnan(losses)
        loss = np.where(known, losses, 0.0)
        ratio = np.minimum(loss / np.maximum(self._usual, 1e-12), CAP)
        ready = known & (self._count >= MIN_LOSSES)
        self._sum = np.where(ready, np.maximum(self._sum + ratio - 1.0 - SLACK, 0.0), self._sum)
        drifted = ready & (self._sum > self._limit)
        # The mean learns quickly while young, and slowly from outliers.
        slow = np.where(self._sum > 0.2 * self._limit, SUSPECTING * USUAL_ALPHA, USUAL_ALPHA)
        alpha = np.where(known, np.maximum(slow, 1.0 / (self._count + 1.0)), 0.0)
        tamed = np.where(self._count >= MIN_LOSSES, np.minimum(loss, CAP * self._usual), loss)
        self._usual = np.where(drifted, 0.0, self._usual + alpha * (tamed - self._usual)).astype(np.float32)
        self._count = np.where(drifted, 0.0, self._count + known).astype(np.float32)
        self._sum = np.where(drifted, 0.0, self._sum).astype(np.float32)
        self._changed = np.where(drifted, self._aftermath, np.maximum(self._changed - 1.0, 0.0)).astype(np.float32)
        self.total += int(drifted.sum())
        return np.asarray(drifted)

    @property
    def changed(self) -> Floats:
        """Mask of series that drifted lately: their old scores should fade sooner."""
        return self._changed > 0

    def state(self) -> dict[str, Floats]:
        """What is running, as arrays."""
        return {"usual": self._usual, "count": self._count, "sum": self._sum, "changed": self._changed}

    def restore(self, state: dict[str, Floats]) -> None:
        """Takes over what `state` gave; raises KeyError or ValueError when it does not fit."""
        arrays = [state[name].astype(np.float32) for name in ("usual", "count", "sum", "changed")]
        if any(array.shape != (len(arrays[0]),) or not np.isfinite(array).all() for array in arrays):
            raise ValueError("drift: no sound numbers")
        self._usual, self._count, self._sum, self._changed = arrays


# Rows arrive a little late; cells are taken for complete this long after the last that anyone knows.
SETTLED_CELLS = 1
# A start with a long history is caught up with only as far as it costs less than a second or two.
MAX_CAUGHT_UP = 2_000_000
SCORES_EVERY_S = 60.0
# Moves beyond so many in one cycle are made but not recorded one by one.
MAX_MOVES = 200


@dataclass(frozen=True, slots=True)
class JudgedWindows:
    """Windows that are over: `forecasts` (models x rows x targets x levels) and `final` (without models) for the
    targets at positions `targets`, their pinball losses, and what was measured (rows x targets, NaN = not known).
    """

    forecasts: Floats
    final: Floats
    losses: Floats
    final_loss: Floats
    actual: Floats
    targets: Ints
    rows: Ints


class TrustTracker:
    """Gives each series its probabilities and horizon; is told cells and verdicts in the order of time.

    Horizons are judged channel by channel, by its peak; drift by the first channel's. On the ladder, the channels of a
    series stand beside one another.
    """

    def __init__(self, shape: ScoreShape, horizons: tuple[int, ...], levels: Sequence[float]) -> None:
        self.shape = shape
        self._channels = len(shape.quantities) // 2
        self.activity = ActivityModel(horizons)
        self.horizons = HorizonLadder(horizons, Tolerance())
        self.drift = DriftDetector(overlap=horizons[0])
        self._board = ScoreRollup(shape, SCORES_EVERY_S)
        self._upper, self._lower = nearest_level(levels, 0.9), nearest_level(levels, 0.1)
        self._next: int | None = None
        self._drifted: Ints = np.zeros(0, dtype=np.int64)

    def cells(self, view: SeriesView) -> None:
        """Takes note of cells that were not seen yet."""
        until = view.start + view.cells - SETTLED_CELLS
        earliest = max(view.start, until - MAX_CAUGHT_UP // max(1, view.series))
        first = earliest if self._next is None else max(self._next, earliest)
        for cell in range(first, until):
            self.activity.step(view.rates[0, :, cell - view.start])
        self._next = max(first, until)
        self.activity.resize(view.series)
        self.horizons.resize(view.series * self._channels)
        self.drift.resize(view.series)

    def judged(self, verdicts: JudgedWindows) -> Floats:
        """Takes note of windows that are over; returns a mask of series that have drifted just now."""
        self._note_scores(verdicts)
        series = self.horizons.series // self._channels
        drifted = np.zeros(series, dtype=bool)
        rows = np.arange(series)[verdicts.rows]
        for column, target in enumerate(verdicts.targets.tolist()):
            rung, quantity = divmod(target, len(self.shape.quantities))
            if quantity % 2:
                continue  # a mean
            width = verdicts.final[:, column, self._upper] - verdicts.final[:, column, self._lower]
            loss, places = verdicts.final_loss[:, column], rows * self._channels + quantity // 2
            known = (loss, verdicts.actual[:, column], width)
            self.horizons.learn(rung, *(_spread(places, one, self.horizons.series) for one in known))
            if target == 0:
                drifted |= self.drift.step(_spread(rows, loss, series))
        self._drifted = np.union1d(self._drifted, np.flatnonzero(drifted))
        return drifted

    def _note_scores(self, verdicts: JudgedWindows) -> None:
        actual = verdicts.actual
        losses = np.concatenate([verdicts.losses, verdicts.final_loss[None]])
        upper = np.concatenate([verdicts.forecasts[..., self._upper], verdicts.final[None, ..., self._upper]])
        self._board.add(losses, upper >= actual, verdicts.targets, verdicts.rows)

    def moves(self, now: Seconds, subjects: Sequence[Subject]) -> list[HorizonMove]:
        """One cycle later: which horizons have changed. What has drifted falls to the shortest at once."""
        fallen = self.horizons.fall(np.isin(np.arange(self.horizons.series), self._drifted * self._channels))
        self._drifted = np.zeros(0, dtype=np.int64)
        return [self._named(move, now, subjects) for move in [*fallen, *self.horizons.climb()][:MAX_MOVES]]

    def _named(self, move: HorizonChange, now: Seconds, subjects: Sequence[Subject]) -> HorizonMove:
        before, after = (0 if rung == NOTHING else self.shape.horizons_s[rung] for rung in (move.before, move.after))
        series, channel = divmod(move.series, self._channels)
        named = self.shape.quantities[2 * channel].value.removesuffix("_peak")
        return HorizonMove(now, subjects[series], before, after, f"{named}: {move.reason}")

    def scores(self, now: Seconds, subjects: Sequence[Subject]) -> ScoreBatch | None:
        """The roll-up of scores when it is due."""
        return self._board.due(now, subjects, self.activity.pulse.sizes[:, 1] * (self.activity.pulse.quiet < 60))

    def trusted(self) -> Ints:
        """Trusted horizons (series x channels), seconds, 0 = nothing is trusted (yet)."""
        ladder = np.array([*self.shape.horizons_s, 0], dtype=np.int64)
        return ladder[self.horizons.rungs.now].reshape(-1, self._channels)

    def doubts(self) -> Floats:
        """Series x channels x 2: error and width of the first horizon that is not trusted; NaN = too few scores."""
        return self.horizons.doubts().reshape(-1, self._channels, 2)

    def state(self) -> dict[str, Floats]:
        """What was learnt, as arrays; series keep their order."""
        parts = (("activity", self.activity), ("horizons", self.horizons), ("drift", self.drift))
        found = {name: value for key, part in parts for name, value in prefixed(key, part.state()).items()}
        return {**found, "next": np.array([-1 if self._next is None else self._next])}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Takes over what `state` gave; raises KeyError or ValueError when it does not fit."""
        for key, part in (("activity", self.activity), ("horizons", self.horizons), ("drift", self.drift)):
            part.restore(section(state, key))
        following = int(state["next"][0])
        self._next = None if following < 0 else following


def _spread(places: Ints, values: Floats, among: int) -> Floats:
    whole = np.full(among, np.nan, dtype=np.float32)
    whole[places] = values
    return whole


def score_shape(
    models: Sequence[str], horizons_s: Sequence[int], quantities: Sequence[object], tier: str
) -> ScoreShape:
    """The shape of scores: the models, and what was really said as the last."""
    return ScoreShape((*models, BLENDED), tuple(horizons_s), tuple(quantities), tier)  # type: ignore[arg-type]


def section(arrays: Mapping[str, Floats], prefix: str) -> dict[str, Floats]:
    """The arrays whose names begin with `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(prefix + "/")}


def prefixed(prefix: str, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """The same arrays under names that begin with `prefix/`."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}
