"""Keeps what was foreseen until its time has come, and then says how far off each model was."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from predictor.panel import Panel
from predictor.quantiles import pinball
from predictor.view import Floats, Ints, window_targets

# Rows of a window arrive a little after its end.
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Issue:
    """All forecasts of one cycle.

    `fans` is models x pairs x horizons x quantities x levels, `final` the same without models: what was written,
    `chosen` the number of the model with the most say in it; `spoken` tells which pairs were written at all.
    """

    issued_at: float
    start: int
    fans: Floats
    final: Floats
    chosen: Ints
    spoken: Floats


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one window of one issue turned out to be; `horizon` is a position, arrays are pairs x quantities."""

    issue: Issue
    horizon: int
    actual: Floats
    losses: Floats
    final_loss: Floats


class Issues:
    """Issues whose windows have not all been scored yet, oldest first."""

    def __init__(self, horizons: tuple[int, ...], levels: tuple[float, ...]) -> None:
        self._horizons = horizons
        self._levels = levels
        self._waiting: tuple[deque[Issue], ...] = tuple(deque() for _ in horizons)

    def add(self, issue: Issue) -> None:
        """Waits for every horizon of this issue."""
        for queue in self._waiting:
            queue.append(issue)

    def due(self, panel: Panel, now: float) -> Iterator[Verdict]:
        """Verdicts on all windows that ended at least GRACE_S before `now`; each window is judged once."""
        reached = panel.first_cell_after(now - GRACE_S)
        for number, (horizon, queue) in enumerate(zip(self._horizons, self._waiting, strict=True)):
            while queue and queue[0].start + horizon <= reached:
                yield self._judge(queue.popleft(), number, panel)

    def _judge(self, issue: Issue, number: int, panel: Panel) -> Verdict:
        horizon = self._horizons[number]
        rates = panel.window(issue.start, horizon)[:, : issue.final.shape[0]]
        actual = window_targets(rates, horizon)[:, :, 0].T
        return Verdict(
            issue=issue,
            horizon=number,
            actual=actual,
            losses=pinball(
                issue.fans[:, :, number], np.broadcast_to(actual, (len(issue.fans), *actual.shape)), self._levels
            ),
            final_loss=pinball(issue.final[:, number], actual, self._levels),
        )
