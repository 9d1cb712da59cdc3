"""Says how far ahead each series can be trusted: steady ones earn a longer horizon, volatile ones lose it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cpdb import RefreshReport
from predictor.data.view import Floats, Ints

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a horizon must keep to be trusted; counts are in cycles.

    `error` bounds twice the mean pinball loss, `width` the distance between the quantiles 0.9 and 0.1, both in units
    of the mean of what was measured. A longer horizon must stay below `ease` times these for `patience` cycles on
    end, a shorter one follows after `haste` cycles above them. `memory` is how many cycles the averages reach back.
    """

    error: float = 0.25
    width: float = 1.5
    ease: float = 0.8
    patience: int = 15
    haste: int = 5
    memory: float = 30.0
    fewest: float = 5.0


@dataclass(frozen=True, slots=True)
class HorizonEvidence:
    """Errors and widths in units of the tolerance's (series x rungs); NaN = too little known to say."""

    error: Floats
    width: Floats


@dataclass(frozen=True, slots=True)
class Rungs:
    """The rung in force of each series (UNKNOWN = none yet), and for how many cycles another has looked better."""

    now: Ints
    better: Ints
    worse: Ints

    @classmethod
    def fresh(cls, series: int) -> "Rungs":
        """Nothing known yet."""
        nought = np.zeros(series, dtype=np.int64)
        return cls(np.full(series, UNKNOWN, dtype=np.int64), nought, nought)

    def resized(self, series: int) -> "Rungs":
        """With room for series that have joined."""
        more = Rungs.fresh(max(0, series - len(self.now)))
        parts = ((self.now, more.now), (self.better, more.better), (self.worse, more.worse))
        return Rungs(*(np.concatenate(part) for part in parts))


def climbed(rungs: Rungs, evidence: HorizonEvidence, tolerance: Tolerance) -> Rungs:
    """One cycle's evidence later: one rung up after long patience, down to the longest sound rung after short haste.

    Greater errors or widths never lead to a longer horizon. Series without evidence stay where they are.
    """
    keeps = _longest(evidence, 1.0)
    rises = _longest(evidence, tolerance.ease)
    told = ~np.isnan(evidence.error).all(axis=1)
    first = told & (rungs.now == UNKNOWN)
    better = np.where(told & (rises > rungs.now) & ~first, rungs.better + 1, 0)
    worse = np.where(told & (keeps < rungs.now), rungs.worse + 1, 0)
    up, down = better >= tolerance.patience, worse >= tolerance.haste
    now = np.where(first, 0, np.where(down, keeps, rungs.now + up))
    return Rungs(now, np.where(up | down, 0, better), np.where(down, 0, worse))


def _longest(evidence: HorizonEvidence, share: float) -> Ints:
    """The longest rung within `share` of tolerance; the shortest where none is: something must be in force."""
    with np.errstate(invalid="ignore"):
        sound = (evidence.error <= share) & (evidence.width <= share)
    rungs = sound.shape[1]
    longest = rungs - 1 - np.argmax(sound[:, ::-1], axis=1)
    return np.where(sound.any(axis=1), longest, 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class HorizonChange:
    """A change of one series' horizon: its position, rungs before (UNKNOWN = none) and after, and why."""

    series: int
    before: int
    after: int
    reason: str


class HorizonLadder:
    """Rolling errors and widths of what was said, per series and rung, and the rung that follows from them."""

    def __init__(self, rungs: int, tolerance: Tolerance = Tolerance()) -> None:
        self.tolerance = tolerance
        self.rungs = Rungs.fresh(0)
        self._keep = 1.0 - 1.0 / tolerance.memory
        # Fading sums of loss, measured, width and number
        self._sums = np.zeros((4, 0, rungs), dtype=np.float32)

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
        news = np.stack([loss, actual, width, np.ones_like(loss)])
        part[...] = np.where(known, self._keep * part + np.where(known, news, 0.0), part)

    def evidence(self) -> HorizonEvidence:
        """What the sums say, in units of the tolerance."""
        loss, actual, width, count = self._sums
        told = (count >= self.tolerance.fewest) & (actual > 0)
        measured = np.where(told, actual, 1.0)
        error = 2.0 * loss / measured / self.tolerance.error
        breadth = width / measured / self.tolerance.width
        return HorizonEvidence(np.where(told, error, np.nan), np.where(told, breadth, np.nan))

    @property
    def series(self) -> int:
        """Number of series that there is room for."""
        return self._sums.shape[1]

    def fall(self, drifted: Floats) -> list[HorizonChange]:
        """Series that have changed (mask) begin again at the shortest rung, with nothing learnt."""
        self._sums[:, drifted] = 0.0
        now = self.rungs.now
        fallen = np.flatnonzero(drifted & (now > 0))
        reason = "drift: losses far above their own mean"
        moves = [HorizonChange(series, int(now[series]), 0, reason) for series in fallen.tolist()]
        keeps = np.where(drifted & (now > 0), 0, now)
        self.rungs = Rungs(keeps, np.where(drifted, 0, self.rungs.better), np.where(drifted, 0, self.rungs.worse))
        return moves

    def climb(self) -> list[HorizonChange]:
        """One cycle later; returns what has changed."""
        evidence = self.evidence()
        before = self.rungs
        self.rungs = climbed(before, evidence, self.tolerance)
        moved = np.flatnonzero(before.now != self.rungs.now)
        return [self._move(int(series), before, evidence) for series in moved]

    def _move(self, series: int, before: Rungs, evidence: HorizonEvidence) -> HorizonChange:
        old, new = int(before.now[series]), int(self.rungs.now[series])
        rung = old if new < old else new
        error = evidence.error[series, rung] * self.tolerance.error
        width = evidence.width[series, rung] * self.tolerance.width
        said = f"error {error:.2f} (tolerated {self.tolerance.error:g}), width {width:.2f} ({self.tolerance.width:g})"
        if old == UNKNOWN:
            return HorizonChange(series, old, new, f"first scores: {said}")
        if new > old:
            return HorizonChange(series, old, new, f"steady for {self.tolerance.patience} cycles: {said}")
        return HorizonChange(series, old, new, f"out of tolerance for {self.tolerance.haste} cycles: {said}")

    def state(self) -> dict[str, Floats]:
        """What was learnt, as arrays."""
        rungs = self.rungs
        return {"sums": self._sums, "now": rungs.now, "better": rungs.better, "worse": rungs.worse}

    def restore(self, state: dict[str, Floats]) -> None:
        """Takes over what `state` gave; raises KeyError or ValueError when it does not fit."""
        sums, now = state["sums"], state["now"]
        if (
            sums.ndim != 3
            or sums.shape[::2] != self._sums.shape[::2]
            or any(state[name].shape != sums.shape[1:2] for name in ("now", "better", "worse"))
        ):
            raise ValueError("horizons: other ladder")
        if now.max(initial=0) >= sums.shape[2] or not np.isfinite(sums).all():
            raise ValueError("horizons: no sound numbers")
        self._sums = sums.astype(np.float32)
        self.rungs = Rungs(*(state[name].astype(np.int64) for name in ("now", "better", "worse")))


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
