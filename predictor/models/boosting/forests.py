"""Grows trees within a budget: what scikit-learn's gradient boosting needs around it to be quick and steady."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import ndtri

from predictor.data.view import Floats, Ints
from predictor.models.quantiles import make_monotone

FITTED = (0.1, 0.5, 0.9)
MIN_ROWS = 300
# CPU seconds of one round of boosting: for the tree itself, and for each row (75 features; measured on a busy machine).
ROUND_S, ROW_ROUND_S = 1.5e-3, 3e-7
# Each tree sees this share of the rows at hand, so that weights can choose; where rows are few, several forests
# that saw different ones are steadier than one.
SHARE, MAX_MEMBERS = 0.4, 4
MAX_ROWS = 250_000
BINS, BINNED_ROWS = 63, 20_000
ROWS_A_ROUND = 600
MIN_ROUNDS, MAX_ROUNDS = 40, 300
# Rounds times learning rate, and the rates. Rows of one moment are no independent witnesses, so how far trees
# may follow them depends on the number of moments: all the way after so many.
PACES, RATES, MOMENTS = (8.0, 24.0), (0.05, 0.14), 300
# Leaves of a tree: one for so many rows and for so many moments.
LEAVES, LEAF_ROWS, LEAF_MOMENTS = (12, 127), 600, 50
# The outer quantiles need fewer rounds than the median, on which the point forecast rests.
OUTER_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows x features, what came of each, and how much each counts; taken from so many moments."""

    inputs: Floats
    truths: Floats
    weights: Floats
    moments: int


@dataclass(frozen=True, slots=True)
class BoostingEffort:
    """How much one fit may do for each group of targets."""

    rows: int
    rounds: int
    members: int

    @classmethod
    def within(cls, budget_s: float, rows: int) -> "BoostingEffort":
        """What `budget_s` of CPU allows for one group of `rows` rows."""
        each_s = budget_s / (1.0 + 2 * OUTER_SHARE)
        # Rows and rounds grow together: twice the budget is for 1.4 times of each.
        most = (each_s / MIN_ROUNDS - ROUND_S) / ROW_ROUND_S
        kept = int(min(SHARE * rows, MAX_ROWS, max(MIN_ROWS, min(most, np.sqrt(each_s / ROW_ROUND_S * ROWS_A_ROUND)))))
        round_s = ROUND_S + kept * ROW_ROUND_S
        wanted = int(np.clip(kept / ROWS_A_ROUND, 60, MAX_ROUNDS))
        rounds = int(np.clip(each_s / round_s, MIN_ROUNDS, wanted))
        return cls(kept, rounds, int(np.clip(each_s / (round_s * rounds), 1, MAX_MEMBERS)))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast trees follow the rows."""

    rounds: int
    rate: float
    leaves: int


@dataclass(frozen=True, slots=True)
class Bins:
    """Edges between which a feature's values count as equal. Found once for all trees of a group.

    scikit-learn would look for them in every fit, which takes about as long as the trees do.
    """

    edges: tuple[Floats, ...]

    @classmethod
    def of(cls, inputs: Floats, rng: np.random.Generator) -> "Bins":
        """Quantiles of a sample of rows x features."""
        sample = inputs[rng.choice(len(inputs), BINNED_ROWS)] if len(inputs) > BINNED_ROWS else inputs
        edges = np.quantile(sample, np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
        return cls(tuple(np.unique(column) for column in edges.T))

    def apply(self, inputs: Floats) -> Floats:
        """Numbers of bins, same shape."""
        columns = [np.searchsorted(edges, column) for edges, column in zip(self.edges, inputs.T, strict=True)]
        return np.array(columns, dtype=np.float64).T


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees of one group of targets: for each fitted level its members."""

    bins: Bins
    members: dict[float, tuple[Any, ...]]

    def predict_changes(self, inputs: Floats) -> Floats:
        """Changes from the level in units of the scale: rows x fitted levels."""
        binned = self.bins.apply(inputs)
        means = [np.mean([trees.predict(binned) for trees in self.members[level]], axis=0) for level in FITTED]
        return np.stack(means, axis=-1)


def grow_forest(lesson: TrainingRows, effort: BoostingEffort, seed: int) -> Forest:
    """Trees for each fitted level and member, on rows drawn with their weights."""
    rng = np.random.default_rng(seed)
    bins = Bins.of(lesson.inputs, rng)
    binned = bins.apply(lesson.inputs)
    draws = _draws(lesson.weights, effort, rng)
    pace = float(np.clip(lesson.moments / MOMENTS, *PACES))
    leaves = int(np.clip(min(effort.rows / LEAF_ROWS, lesson.moments / LEAF_MOMENTS), *LEAVES))
    members: dict[float, tuple[Any, ...]] = {}
    for level in FITTED:
        rounds = effort.rounds if level == 0.5 else max(20, round(OUTER_SHARE * effort.rounds))
        rate = float(np.clip(pace / rounds, *RATES))
        members[level] = tuple(
            _boost_trees(binned[drawn], lesson.truths[drawn], level, Pace(rounds, rate, leaves), seed + number)
            for number, drawn in enumerate(draws)
        )
    return Forest(bins, members)


def _draws(weights: Floats, effort: BoostingEffort, rng: np.random.Generator) -> list[Ints]:
    # scikit-learn is many times slower with weights than without.
    rows, chance = min(effort.rows, len(weights)), weights / weights.sum()
    return [rng.choice(len(weights), rows, replace=False, p=chance) for _ in range(effort.members)]


def _boost_trees(inputs: Floats, truths: Floats, level: float, pace: Pace, seed: int) -> Any:
    # Deferred: scikit-learn takes a second to import, and only the fitting process needs it at once.
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=pace.rounds,
        learning_rate=pace.rate,
        max_leaf_nodes=pace.leaves,
        min_samples_leaf=int(np.clip(len(truths) / 200, 20, 100)),
        max_bins=BINS,
        early_stopping=False,
        random_state=seed,
    )
    return trees.fit(inputs, truths)


def interpolate_levels(fitted: Floats, levels: Sequence[float]) -> Floats:
    """Fitted levels to all levels, linear in the normal score; the outer pieces go on straight."""
    fitted = make_monotone(fitted)
    known, wanted = ndtri(np.array(FITTED)), ndtri(np.array(levels))
    pieces = list(pairwise(range(len(FITTED))))
    which = np.clip(np.searchsorted(known, wanted) - 1, 0, len(pieces) - 1)
    share = (wanted - known[which]) / (known[which + 1] - known[which])
    values: Floats = fitted[..., which] + share * (fitted[..., which + 1] - fitted[..., which])
    return values
