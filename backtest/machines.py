"""Replays machines' recorded usage: would forepath have warned of overload, and what would its limits have cost?"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.baselines import TargetRows, TrainingHistory, ewma_of, season_rows
from backtest.reading import Recording, RecordingError
from predictor import (
    MODELS,
    ForecastBlock,
    Forecaster,
    ForecasterOptions,
    ForecastSpec,
    SeriesView,
    Target,
    build_models,
)

Floats = NDArray[Any]
Bools = NDArray[np.bool_]
# Beyond the outermost quantile the chance of an excess halves with each of these steps, so that all can be ranked.
FADE = np.log(2.0)


@dataclass(frozen=True, slots=True)
class OverloadWatch:
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
class AlarmVerdict:
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


def scores(watch: OverloadWatch, smooth: Floats) -> dict[str, Floats]:
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


def chance(quantiles: Floats, levels: tuple[float, ...], threshold: float) -> Floats:
    """The chance of an excess that quantiles (... x levels, ascending) give; strictly falling in the threshold."""
    quantiles = quantiles.astype(np.float64)
    share = np.asarray(levels)
    place = (quantiles <= threshold).sum(axis=-1)
    low, high = np.clip(place - 1, 0, len(share) - 1), np.clip(place, 0, len(share) - 1)
    below, above = (np.take_along_axis(quantiles, side[..., None], axis=-1)[..., 0] for side in (low, high))
    within = np.where(above > below, (threshold - below) / np.maximum(above - below, 1e-9), 0.0)
    inside = 1.0 - (share[low] + within * (share[high] - share[low]))
    spread = np.maximum(quantiles[..., -1] - quantiles[..., 0], 1e-6)
    beyond = (1.0 - share[-1]) * np.exp(-FADE * np.maximum(threshold - quantiles[..., -1], 0.0) / spread)
    before = 1.0 - share[0] * np.exp(-FADE * np.maximum(quantiles[..., 0] - threshold, 0.0) / spread)
    found: Floats = np.where(place == len(share), beyond, np.where(place == 0, before, inside))
    return found


def level_at(score: Floats, watch: OverloadWatch, rows: range, wanted: float) -> float:
    """The least score that gave at most `wanted` false alarms per quiet origin on `rows`."""
    counts = watch.judged(rows.start)
    counts[:, rows.stop - watch.ahead :] = False
    quiet = score[counts & ~watch.exceeded()]
    return float(np.quantile(quiet, 1.0 - wanted, method="higher")) if quiet.size else float("inf")


def verdict(alarm: Bools, watch: OverloadWatch, first: int) -> AlarmVerdict:
    """Judges an alarm (machines x rows) on the origins from row `first` on."""
    counts, label = watch.judged(first), watch.exceeded()
    positive, negative = counts & label, counts & ~label
    right, wrong = float((alarm & positive).sum()), float((alarm & negative).sum())
    leads = _leads(alarm, watch, first)
    early = leads[leads >= 1]
    return AlarmVerdict(
        true_positive_rate=right / max(positive.sum(), 1),
        false_positive_rate=wrong / max(negative.sum(), 1),
        precision=right / max(right + wrong, 1.0),
        onsets=len(leads),
        early_share=len(early) / max(len(leads), 1),
        median_lead_rows=float(np.median(early)) if len(early) else 0.0,
    )


def _leads(alarm: Bools, watch: OverloadWatch, first: int) -> Floats:
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
    rules: Mapping[str, Floats], watch: OverloadWatch, tuned: range, rates: tuple[float, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """Each rule's verdict on the rows after `tuned`, at the levels that gave each false alarm rate on `tuned`."""
    return {
        name: {
            f"{rate:g}": verdict(score >= level_at(score, watch, tuned, rate), watch, tuned.stop).to_json()
            for rate in rates
        }
        for name, score in rules.items()
    }


Ints = NDArray[np.int64]
# A limit below this makes no sense for a machine that is to live, and slack is a share of the limit.
LEAST = 1e-3
BUCKETS = 200
# Kubernetes' Vertical Pod Autoscaler: the 90th percentile of a histogram that halves its memory every 24 h, + 15 %.
VPA_LEVEL, VPA_MARGIN = 0.9, 1.15


@dataclass(frozen=True, slots=True)
class LimitCourse:
    """Usage (machines x rows, at most `most`), set anew every `every` rows from the origin `first` on."""

    usage: Floats
    most: float
    every: int
    first: int
    season: int

    def origins(self) -> Ints:
        """Rows after which a limit is set; each holds for the `every` rows that follow."""
        return np.arange(self.first, self.usage.shape[1] - self.every, self.every)


Rule = Callable[[LimitCourse, Ints], Floats]


def judged(course: LimitCourse, limits: Floats) -> dict[str, float]:
    """Slack (mean share of the limit that lies idle) and throttle rate (share of rows with usage above the limit).

    `limits` is machines x origins.
    """
    origins = course.origins()
    rows = origins[:, None] + np.arange(1, course.every + 1)
    used = course.usage[:, rows]
    limit = np.clip(limits, LEAST, course.most)[..., None]
    slack = np.maximum(limit - used, 0.0) / limit
    return {"slack": float(slack.mean()), "throttle_rate": float((used > limit).mean())}


def fixed(course: LimitCourse, origins: Ints) -> Floats:
    """The most that was ever used while learning, for ever."""
    peak = course.usage[:, : course.first + 1].max(axis=1)
    return np.repeat(peak[:, None], len(origins), axis=1)


def reactive(course: LimitCourse, origins: Ints) -> Floats:
    """A tenth more than the most of the last two periods: it follows what was measured."""
    return _trailing(course.usage, 2 * course.every)[:, origins] * 1.1


def last_day(course: LimitCourse, origins: Ints) -> Floats:
    """The most of the last season."""
    return _trailing(course.usage, course.season)[:, origins]


def decaying_histogram(course: LimitCourse, origins: Ints) -> Floats:
    """The autoscaler's rule, with a half life of one season."""
    machines = np.arange(len(course.usage))
    weights = np.zeros((len(machines), BUCKETS + 1))
    width = course.most / BUCKETS
    bucket = np.clip(np.ceil(course.usage / width), 0, BUCKETS).astype(np.int64)
    wanted, found = set(origins.tolist()), []
    for row in range(int(origins[-1]) + 1):
        weights *= 0.5 ** (1.0 / course.season)
        weights[machines, bucket[:, row]] += 1.0
        if row in wanted:
            share = weights.cumsum(axis=1) / weights.sum(axis=1, keepdims=True)
            found.append((share >= VPA_LEVEL).argmax(axis=1) * width * VPA_MARGIN)
    return np.stack(found, axis=1)


RULES: Mapping[str, Rule] = {
    "fixed": fixed,
    "reactive": reactive,
    "last_day": last_day,
    "decaying_histogram": decaying_histogram,
}


def _trailing(values: Floats, rows: int) -> Floats:
    peak, width = values, 1
    while width < rows:
        step = min(width, rows - width)
        shifted = np.concatenate([np.repeat(peak[:, :1], step, axis=1), peak[:, :-step]], axis=1)
        peak, width = np.maximum(peak, shifted), width + step
    return peak


LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
# Which quantile of the forecast peak becomes a limit: each buys less throttling for more idle room.
LIMIT_LEVELS = (0.75, 0.9, 0.95, 0.99)
FALSE_ALARM_RATES = (0.01, 0.05)
# Levels of alarms are set on this last share of the train rows, by models that have not seen them.
TUNED_SHARE = 0.25
SMOOTHING = 0.2
Say = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What a person asked for: the threshold and full usage in the file's unit, rows ahead, share of train rows."""

    threshold: float = 80.0
    most: float = 100.0
    ahead: int = 6
    train_fraction: float = 0.75
    series: tuple[str, ...] = ()
    models: tuple[str, ...] = MODELS
    seed: int = 1


def replay_machines(recording: Recording, plan: MachinePlan, say: Say | None = None) -> dict[str, Any]:
    """Alarms and limits on the test rows, forepath's beside simple rules. Raises RecordingError."""
    usage, split = _usage(recording, plan)
    season = season_rows(recording.step_s)
    tuned = split - round(TUNED_SHARE * split)
    forecast = np.full((*usage.shape, len(LEVELS)), np.nan, dtype=np.float32)
    # Twice: alarm levels must come from rows that the models had not seen, and then these may be learnt from too.
    for begin, end in ((tuned, split), (split, usage.shape[1])):
        for block in _forecast_peaks(recording, plan, usage, range(begin - 1, end), say):
            forecast[:, block.origins] = block.final[:, :, 0].transpose(1, 0, 2)
    watch = OverloadWatch(usage, plan.threshold, plan.ahead, season)
    rules = {
        "forepath": _spoken(chance(forecast, LEVELS, plan.threshold)),
        **scores(watch, _smooth(usage, split, season)),
    }
    course = LimitCourse(usage, plan.most, plan.ahead, split - 1, season)
    origins = course.origins()
    limits = {name: judged(course, rule(course, origins)) for name, rule in RULES.items()}
    for level in LIMIT_LEVELS:
        limits[f"forepath_q{level * 100:g}"] = judged(course, forecast[:, origins, LEVELS.index(level)])
    label = watch.judged(split)
    return {
        "file": recording.name,
        "machines": len(usage),
        "threshold": plan.threshold,
        "rows_ahead": plan.ahead,
        "train_rows": split,
        "test_rows": usage.shape[1] - split,
        "origins": int(label.sum()),
        "positive": int((label & watch.exceeded()).sum()),
        "alarms": compared(rules, watch, range(tuned, split), FALSE_ALARM_RATES),
        "limits": limits,
    }


def _usage(recording: Recording, plan: MachinePlan) -> tuple[Floats, int]:
    usage = recording.values[recording.positions(plan.series)]
    if np.isnan(usage).any():
        raise RecordingError(f"{recording.name}: usage is missing in places; fill the gaps or leave the series out")
    split = int(plan.train_fraction * usage.shape[1])
    if min(split * TUNED_SHARE, usage.shape[1] - split) < 4 * plan.ahead:
        raise RecordingError(f"{recording.name}: too few rows to look {plan.ahead} rows ahead and to judge that")
    return usage, split


def _forecast_peaks(
    recording: Recording, plan: MachinePlan, usage: Floats, origins: range, say: Say | None
) -> Iterator[ForecastBlock]:
    """Quantiles of each machine's peak over the rows after each origin, learnt from the rows before them alone."""
    ask = ForecastSpec((Target(0, 0, plan.ahead, peak=True),), LEVELS)
    forecaster = Forecaster(ask, build_models(plan.models, ask, plan.seed), ForecasterOptions())
    first = round(recording.start / recording.step_s)
    view = SeriesView(usage[None].astype(np.float32), 0, first, recording.step_s)
    if say:
        say("fitting", 0, 1)
    forecaster.fit(view.until(origins.start + 1))
    for block in forecaster.walk(view.until(origins.stop), np.arange(origins.start, origins.stop)):
        yield block
        if say:
            say("forecasting", int(block.origins[-1]) - origins.start + 1, len(origins))


def _smooth(usage: Floats, split: int, season: int) -> Floats:
    return ewma_of(SMOOTHING)(TrainingHistory(usage, split, season), np.arange(usage.shape[1]), TargetRows(1))


def _spoken(score: Floats) -> Floats:
    # Rows before the first origin have no score; they are never judged.
    return np.nan_to_num(score, nan=-np.inf)
