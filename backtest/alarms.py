"""Overload alarms: rules that say in time that a machine will exceed a threshold; how right they are and how early."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Bools = NDArray[np.bool_]
# Beyond the outermost quantile the chance of an excess halves with each of these steps, so that all can be ranked.
FADE = np.log(2.0)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched: usage (machines x rows), the threshold, and for how many rows ahead it must hold."""

    usage: Floats
    threshold: float
    ahead: int
    season: int

    def exceeded(self) -> Bools:
        """Machines x rows: whether any of the next `ahead` rows exceeds the threshold; False where they are unknown."""
        over = self.usage > self.threshold
        found = np.zeros_like(over)
        for step in range(1, self.ahead + 1):
            found[:, :-step] |= over[:, step:]
        return found

    def judged(self, first: int) -> Bools:
        """Machines x rows: origins from row `first` on that count: not over already, and all next rows are known."""
        counts = self.usage <= self.threshold
        counts[:, :first] = False
        counts[:, self.usage.shape[1] - self.ahead :] = False
        return counts


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a rule did: rates of true and false alarms, precision, and what became of the onsets of overload.

    `early_share` is the share of onsets with the alarm on at least one row before, `median_lead_rows` how long before
    in the median of those (at most the rows watched ahead).
    """

    true_positive_rate: float
    false_positive_rate: float
    precision: float
    onsets: int
    early_share: float
    median_lead_rows: float

    def to_json(self) -> dict[str, float]:
        """As numbers by name."""
        return {name: float(getattr(self, name)) for name in self.__slots__}


def scores(watch: Watch, smooth: Floats) -> dict[str, Floats]:
    """Simple rules' scores (machines x rows, higher = more alarming), each from that row and those before it.

    `smooth` is an exponentially weighted mean of the usage.
    """
    usage = watch.usage
    rows = usage.shape[1]
    recent = usage.copy()
    for step in range(1, 2 * watch.ahead):
        recent[:, step:] = np.maximum(recent[:, step:], usage[:, :-step])
    yesterday = np.full_like(usage, -np.inf)
    for step in range(1, watch.ahead + 1):
        back = watch.season - step
        if 0 <= back < rows:
            yesterday[:, back:] = np.maximum(yesterday[:, back:], usage[:, : rows - back])
    return {"now": usage, "ewma": smooth, "recent_peak": recent, "same_time_yesterday": yesterday}


def chance(fan: Floats, levels: tuple[float, ...], threshold: float) -> Floats:
    """The chance of an excess that quantiles (... x levels, ascending) give; strictly falling in the threshold."""
    fan = fan.astype(np.float64)
    share = np.asarray(levels)
    place = (fan <= threshold).sum(axis=-1)
    low, high = np.clip(place - 1, 0, len(share) - 1), np.clip(place, 0, len(share) - 1)
    below, above = (np.take_along_axis(fan, side[..., None], axis=-1)[..., 0] for side in (low, high))
    within = np.where(above > below, (threshold - below) / np.maximum(above - below, 1e-9), 0.0)
    inside = 1.0 - (share[low] + within * (share[high] - share[low]))
    spread = np.maximum(fan[..., -1] - fan[..., 0], 1e-6)
    beyond = (1.0 - share[-1]) * np.exp(-FADE * np.maximum(threshold - fan[..., -1], 0.0) / spread)
    before = 1.0 - share[0] * np.exp(-FADE * np.maximum(fan[..., 0] - threshold, 0.0) / spread)
    found: Floats = np.where(place == len(share), beyond, np.where(place == 0, before, inside))
    return found


def level_at(score: Floats, watch: Watch, rows: tuple[int, int], wanted: float) -> float:
    """The least score that gave at most `wanted` false alarms per quiet origin on rows first .. last - 1."""
    counts = watch.judged(rows[0])
    counts[:, rows[1] - watch.ahead :] = False
    quiet = score[counts & ~watch.exceeded()]
    return float(np.quantile(quiet, 1.0 - wanted, method="higher")) if quiet.size else float("inf")


def verdict(alarm: Bools, watch: Watch, first: int) -> Verdict:
    """Judges an alarm (machines x rows) on the origins from row `first` on."""
    counts, label = watch.judged(first), watch.exceeded()
    positive, negative = counts & label, counts & ~label
    right, wrong = float((alarm & positive).sum()), float((alarm & negative).sum())
    leads = _leads(alarm, watch, first)
    early = leads[leads >= 1]
    return Verdict(
        true_positive_rate=right / max(positive.sum(), 1),
        false_positive_rate=wrong / max(negative.sum(), 1),
        precision=right / max(right + wrong, 1.0),
        onsets=len(leads),
        early_share=len(early) / max(len(leads), 1),
        median_lead_rows=float(np.median(early)) if len(early) else 0.0,
    )


def _leads(alarm: Bools, watch: Watch, first: int) -> Floats:
    """For each onset (an excess after `ahead` rows without one): how many rows before it the alarm had been on."""
    over = watch.usage > watch.threshold
    calm = np.ones_like(over)
    held = np.ones_like(over)
    lead = np.zeros(over.shape)
    for step in range(1, watch.ahead + 1):
        calm[:, step:] &= ~over[:, :-step]
        calm[:, :step] = False
        held[:, step:] &= alarm[:, :-step]
        held[:, :step] = False
        lead += held
    onset = over & calm
    onset[:, : first + watch.ahead] = False  # each can be warned of by origins that are judged
    return np.asarray(lead[onset])


def compared(
    rules: Mapping[str, Floats], watch: Watch, tuned: tuple[int, int], rates: tuple[float, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """Each rule's verdict on the rows after `tuned`, at the levels that gave each false alarm rate on `tuned`."""
    return {
        name: {
            f"{rate:g}": verdict(score >= level_at(score, watch, tuned, rate), watch, tuned[1]).to_json()
            for rate in rates
        }
        for name, score in rules.items()
    }
