"""Says how far ahead each series can be trusted: steady ones earn a longer horizon, volatile ones lose it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import RefreshReport
from predictor.data.view import Floats, Ints

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a horizon must keep to be trusted; counts are in cycles.

    `error` bounds twice the mean pinball loss, `width` the distance between the quantiles 0.9 and 0.1, both in units
    of the mean of what was measured over the last `usual` cycles: a quiet phase of a rhythm is no reason to doubt it,
    nor a surge one to believe. A horizon must stay below `ease` times these for `patience` cycles on end to be trusted,
    and is no longer after `haste` cycles above them. `memory` is how many cycles the averages reach back, and `fewest`
    from how many windows on they say anything; for a window of n cells these are at least n and n / 6, since windows
    that begin one after the other are almost the same.
    """

    error: float = 0.25
    width: float = 1.5
    ease: float = 0.8
    patience: int = 15
    haste: int = 5
    memory: float = 30.0
    fewest: float = 5.0
    usual: float = 300.0


@dataclass(frozen=True, slots=True)
class HorizonEvidence:
    """Errors and widths in units of the tolerance's (series x rungs); NaN = too little known to say."""

    error: Floats
    width: Floats


@dataclass(frozen=True, slots=True)
class Rungs:
    """Series x rungs: which are trusted, and for how many cycles on end each has kept well or not kept at all."""

    trusted: Floats
    good: Floats
    bad: Floats

    @classmethod
    def fresh(cls, series: int, rungs: int) -> "Rungs":
        """Nothing trusted yet."""
        nought = np.zeros((series, rungs), dtype=np.int16)
        return cls(nought > 0, nought, nought)

    @property
    def now(self) -> Ints:
        """The longest trusted rung of each series, NOTHING where there is none."""
        return np.asarray(self.trusted.sum(axis=1, dtype=np.int64) - 1)

    def resized(self, series: int) -> "Rungs":
        """With room for series that have joined."""
        more = Rungs.fresh(max(0, series - len(self.trusted)), self.trusted.shape[1])
        parts = ((self.trusted, more.trusted), (self.good, more.good), (self.bad, more.bad))
        return Rungs(*(np.concatenate(part) for part in parts))

    def shortest(self, series: Floats) -> "Rungs":
        """With nothing but the shortest trusted of these (mask), as far as that was."""
        left = ~series[:, None] | (np.arange(self.trusted.shape[1]) == 0)
        return Rungs(self.trusted & left, self.good * left, self.bad * left)


def climbed(rungs: Rungs, evidence: HorizonEvidence, tolerance: Tolerance) -> Rungs:
    """One cycle's evidence later: up after long patience, down after short haste, each rung by its own counts.

    A rung keeps when it or a longer one is within tolerance. Greater errors or widths never lead to a longer horizon.
    Series without evidence stay where they are.
    """
    places = np.arange(evidence.error.shape[1])
    told: Floats = np.asarray(~np.isnan(evidence.error).all(axis=1))[:, None]
    keeps_well = told & (_longest(evidence, tolerance.ease)[:, None] >= places)
    breaks = told & (_longest(evidence, 1.0)[:, None] < places)
    good = np.where(keeps_well, np.minimum(rungs.good + 1, tolerance.patience), 0).astype(np.int16)
    bad = np.where(breaks, np.minimum(rungs.bad + 1, tolerance.haste), 0).astype(np.int16)
    return Rungs((rungs.trusted | (good >= tolerance.patience)) & (bad < tolerance.haste), good, bad)


def _longest(evidence: HorizonEvidence, share: float) -> Ints:
    """The longest rung within `share` of tolerance, NOTHING where none is."""
    with np.errstate(invalid="ignore"):
        sound = (evidence.error <= share) & (evidence.width <= share)
    longest = sound.shape[1] - 1 - np.argmax(sound[:, ::-1], axis=1)
    return np.where(sound.any(axis=1), longest, NOTHING).astype(np.int64)


@dataclass(frozen=True, slots=True)
class HorizonChange:
    """A change of one series' horizon: its position, rungs before and after (NOTHING = none trusted), and why."""

    series: int
    before: int
    after: int
    reason: str


class HorizonLadder:
    """Rolling errors and widths of what was said, per series and rung, and the rungs that are trusted for that."""

    def __init__(self, cells: Sequence[int], tolerance: Tolerance = Tolerance()) -> None:
        """`cells` are the lengths of the horizons, ascending."""
        self.tolerance = tolerance
        self.rungs = Rungs.fresh(0, len(cells))
        keep = 1.0 - 1.0 / np.maximum(tolerance.memory, cells)
        self._fewest = np.maximum(tolerance.fewest, np.asarray(cells) / 6.0)
        # Fading sums of loss, width and number; of what was measured, and its number
        self._sums = np.zeros((5, 0, len(cells)), dtype=np.float32)
        usual = np.maximum(1.0 - 1.0 / tolerance.usual, keep)
        self._fade = np.stack([keep, keep, keep, usual, usual]).astype(np.float32)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        more = series - self._sums.shape[1]
        if more > 0:
            self._sums = np.pad(self._sums, ((0, 0), (0, more), (0, 0)))
            self.rungs = self.rungs.resized(series)

    def learn(self, rung: int, loss: Floats, actual: Floats, width: Floats) -> None:
        """Takes note of one window of one rung: pinball loss, what was measured, forecast width (per series, NaN)."""
        part = self._sums[:, : len(loss), rung]
        known = ~(np.isnan(loss) | np.isnan(actual) | np.isnan(width))
        one = np.ones_like(loss)
        news = np.stack([loss, width, one, actual, one])
        part[...] = np.where(known, self._fade[:, rung, None] * part + np.where(known, news, 0.0), part)

    def evidence(self) -> HorizonEvidence:
        """What the sums say, in units of the tolerance."""
        loss, width, count, actual, number = self._sums
        told = (count >= self._fewest) & (actual > 0)
        measured = np.where(told, actual / np.maximum(number, 1.0) * count, 1.0)
        error = 2.0 * loss / measured / self.tolerance.error
        breadth = width / measured / self.tolerance.width
        return HorizonEvidence(np.where(told, error, np.nan), np.where(told, breadth, np.nan))

    @property
    def series(self) -> int:
        """Number of series that there is room for."""
        return self._sums.shape[1]

    def fall(self, drifted: Floats) -> list[HorizonChange]:
        """Of series that have changed (mask) no more than the shortest is trusted, until they have been scored anew."""
        self._sums[:3, drifted, 1:] = 0.0
        # What was usual before counts little from now on.
        self._sums[3:, drifted] *= self.tolerance.memory / self.tolerance.usual
        now = self.rungs.now
        fallen = np.flatnonzero(drifted & (now > 0))
        reason = "drift: losses far above their own mean"
        moves = [HorizonChange(series, int(now[series]), 0, reason) for series in fallen.tolist()]
        self.rungs = self.rungs.shortest(drifted)
        return moves

    def climb(self) -> list[HorizonChange]:
        """One cycle later; returns what has changed."""
        evidence, before = self.evidence(), self.rungs.now
        self.rungs = climbed(self.rungs, evidence, self.tolerance)
        after = self.rungs.now
        moved = np.flatnonzero(before != after)
        return [self._move(int(series), int(before[series]), int(after[series]), evidence) for series in moved]

    def _move(self, series: int, old: int, new: int, evidence: HorizonEvidence) -> HorizonChange:
        rung = old if new < old else new
        error = evidence.error[series, rung] * self.tolerance.error
        width = evidence.width[series, rung] * self.tolerance.width
        said = f"error {error:.2f} (tolerated {self.tolerance.error:g}), width {width:.2f} ({self.tolerance.width:g})"
        if new > old:
            return HorizonChange(series, old, new, f"steady for {self.tolerance.patience} cycles: {said}")
        return HorizonChange(series, old, new, f"out of tolerance for {self.tolerance.haste} cycles: {said}")

    def doubts(self) -> Floats:
        """Series x 2: error and width, in units of what was measured, of the first rung that is not trusted, or of the
        longest one where all are; NaN = too few scores.
        """
        evidence, rows = self.evidence(), np.arange(self.series)
        rung = np.minimum(self.rungs.now + 1, self._sums.shape[2] - 1)
        error, width = evidence.error[rows, rung], evidence.width[rows, rung]
        return np.stack([error * self.tolerance.error, width * self.tolerance.width], axis=1).astype(np.float32)

    def state(self) -> dict[str, Floats]:
        """What was learnt, as arrays."""
        rungs = self.rungs
        return {"sums": self._sums, "trusted": rungs.trusted.astype(np.int16), "good": rungs.good, "bad": rungs.bad}

    def restore(self, state: dict[str, Floats]) -> None:
        """Takes over what `state` gave; raises KeyError or ValueError when it does not fit."""
        sums, counts = state["sums"], [state[name] for name in ("trusted", "good", "bad")]
        if (
            sums.ndim != 3
            or sums.shape[::2] != self._sums.shape[::2]
            or any(count.shape != sums.shape[1:] for count in counts)
        ):
            raise ValueError("horizons: other ladder")
        if not np.isfinite(sums).all():
            raise ValueError("horizons: no sound numbers")
        self._sums = sums.astype(np.float32)
        trusted, good, bad = (count.astype(np.int16) for count in counts)
        self.rungs = Rungs(trusted > 0, good, bad)


Seconds = float

# A forecast needs at least this many values within its horizon to be judged by.
REFRESHES = 3
# What was measured longer ago belongs to a switch that is gone.
FRESH_S = 120.0


def refreshes(reports: Iterable[RefreshReport], now: Seconds) -> dict[str, Seconds]:
    """Seconds between distinct counter values of each switch that was measured lately."""
    return {report.switch: report.refresh_s for report in reports if 0 <= now - report.observed_at <= FRESH_S}


def usable(horizons_s: Sequence[int], known: Mapping[str, Seconds]) -> tuple[int, ...]:
    """The horizons that are at least three refreshes of every switch long."""
    least = REFRESHES * max(known.values(), default=0.0)
    return tuple(horizon for horizon in horizons_s if horizon >= least)


def too_short(horizons_s: Sequence[int], known: Mapping[str, Seconds]) -> str | None:
    """One line that says which horizons are refused and why; None when all can be forecast."""
    refused = [horizon for horizon in horizons_s if horizon not in usable(horizons_s, known)]
    if not refused:
        return None
    slowest = max(known, key=lambda name: known[name])
    names = ", ".join(f"{horizon} s" for horizon in refused)
    return (
        f"horizons_s: {names} refused: switch {slowest} renews its counters every {known[slowest]:.1f} s and a horizon "
        f"needs {REFRESHES} refreshes, at least {REFRESHES * known[slowest]:.0f} s"
    )
