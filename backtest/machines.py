"""Replays machines' recorded usage: would forepath have warned of overload, and what would its limits have cost?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.alarms import Floats, Watch, chance, compared, scores
from backtest.baselines import Past, Window, ewma_of, season_rows
from backtest.limits import RULES, Course, judged
from backtest.reading import Recording, RecordingError
from predictor import MODELS, Ask, Forecaster, Options, Target, View, build

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
# Which quantile of the foreseen peak becomes a limit: each buys less throttling for more idle room.
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
    foreseen = np.full((*usage.shape, len(LEVELS)), np.nan, dtype=np.float32)
    # Twice: alarm levels must come from rows that the models had not seen, and then these may be learnt from too.
    for begin, end in ((tuned, split), (split, usage.shape[1])):
        _foresee(recording, plan, (usage, begin, end), foreseen, say)
    watch = Watch(usage, plan.threshold, plan.ahead, season)
    rules = {
        "forepath": _spoken(chance(foreseen, LEVELS, plan.threshold)),
        **scores(watch, _smooth(usage, split, season)),
    }
    course = Course(usage, plan.most, plan.ahead, split - 1, season)
    origins = course.origins()
    limits = {name: judged(course, rule(course, origins)) for name, rule in RULES.items()}
    for level in LIMIT_LEVELS:
        limits[f"forepath_q{level * 100:g}"] = judged(course, foreseen[:, origins, LEVELS.index(level)])
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
        "alarms": compared(rules, watch, (tuned, split), FALSE_ALARM_RATES),
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


def _foresee(
    recording: Recording, plan: MachinePlan, part: tuple[Floats, int, int], into: Floats, say: Say | None
) -> None:
    """Fills in the fan of each machine's peak over the next rows, for origins begin - 1 .. end - 1."""
    usage, begin, end = part
    ask = Ask((Target(0, 0, plan.ahead, peak=True),), LEVELS)
    forecaster = Forecaster(ask, build(plan.models, ask, plan.seed), Options())
    first = round(recording.start / recording.step_s)
    view = View(usage[None].astype(np.float32), 0, first, recording.step_s)
    if say:
        say("fitting", 0, 1)
    forecaster.fit(view.until(begin))
    for block in forecaster.walk(view.until(end), np.arange(begin - 1, end)):
        into[:, block.origins] = block.final[:, :, 0].transpose(1, 0, 2)
        if say:
            say("foreseeing", int(block.origins[-1]) - begin + 2, end - begin + 1)


def _smooth(usage: Floats, split: int, season: int) -> Floats:
    return ewma_of(SMOOTHING)(Past(usage, split, season), np.arange(usage.shape[1]), Window(1))


def _spoken(score: Floats) -> Floats:
    # Rows before the first origin have no score; they are never judged.
    return np.nan_to_num(score, nan=-np.inf)
