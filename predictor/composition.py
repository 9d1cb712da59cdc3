"""Makes one fan of all models' fans, and learns from what came: the same live, in replays and in backtests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor.calibration import Calibration
from predictor.choice import Contest, Ledger
from predictor.quantiles import lawful, pinball, widened
from predictor.view import ALL, Floats, Ints, Rows

NOBODY = 255


@dataclass(frozen=True, slots=True)
class Truth:
    """What some windows held that ended at cell number `cell`: `actual` is rows x targets, NaN = not known."""

    actual: Floats
    targets: Ints
    rows: Rows
    cell: int


class Composition:
    """Weights of models and calibration of their blend, per series and target."""

    def __init__(self, contest: Contest, levels: Sequence[float]) -> None:
        self.contest = contest
        self.levels = tuple(levels)
        self.ledger = Ledger(contest)
        self.calibration = Calibration(len(contest.targets), levels)

    def resize(self, series: int) -> None:
        """Makes room for series that have joined."""
        self.ledger.resize(series)
        self.calibration.resize(series)

    def blend(
        self, fans: Sequence[Floats | None], rows: Rows = ALL, factor: Floats | None = None
    ) -> tuple[Floats, Ints]:
        """The final fan (rows x targets x levels) and the position of the model with the most say (NOBODY = none).

        `fans` are the lawful fans of the models in their order, None = was not asked; `factor` (rows) widens.
        """
        shape = next(fan.shape for fan in fans if fan is not None)
        able = np.stack([np.zeros(shape[:-1], bool) if fan is None else ~np.isnan(fan[..., 0]) for fan in fans])
        weights = self.ledger.weights(able, rows)
        total = np.zeros(shape, dtype=np.float32)
        for fan, weight, speaks in zip(fans, weights, able, strict=True):
            if fan is not None:
                total += weight[..., None] * (fan if speaks.all() else np.where(speaks[..., None], fan, 0.0))
        anyone = able.any(axis=0)
        if not anyone.all():
            total[~anyone] = np.nan
        final = self.calibration.apply(total, rows)
        if factor is not None and (factor != 1.0).any():
            final = widened(final, factor[:, None], self.levels)
        return lawful(final), np.where(anyone, weights.argmax(axis=0), NOBODY)

    def learn(self, fans: Floats, final: Floats, truth: Truth) -> tuple[Floats, Floats]:
        """Takes note of truths about fans (models x rows x targets x levels) and the final fan (without models).

        The arrays hold `truth.targets` only. Returns pinball losses of the models and of the final fan.
        """
        losses = pinball(fans, truth.actual[None], self.levels)
        self.ledger.add(losses, truth.targets, truth.rows, truth.cell)
        self.calibration.learn(final, truth.actual, truth.targets, truth.rows)
        return losses, pinball(final, truth.actual, self.levels)

    def promising(self, rows: Rows, least: float) -> Floats:
        """Models x rows: whether a model, if it spoke, would have a say of `least` or more for any target."""
        shape = self.ledger.count[:, rows].shape
        enough: Floats = np.asarray((self.ledger.weights(np.ones(shape, dtype=bool), rows) >= least).any(axis=-1))
        return enough
