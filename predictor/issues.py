"""Keeps what was foreseen until its time has come, and then says what came instead."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from predictor.composition import Truth
from predictor.intake import Source
from predictor.view import Ask, Floats, Ints, window_values

# Rows of a window arrive a little after its end.
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Issue:
    """Forecasts of one cycle that are to be judged: those of `rows` (places of series).

    `start` is the number of the first cell that they are about. `fans` is models x rows x targets x levels, `final` the
    same without models: what was written, `chosen` (rows x targets) the position of the model with the most say in
    it; `spoken` tells which rows were written at all.
    """

    issued_at: float
    start: int
    rows: Ints
    fans: Floats
    final: Floats
    chosen: Ints
    spoken: Floats


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the windows of some targets of one issue turned out to be.

    `losses` is models x rows x targets, `final_loss` rows x targets: mean pinball loss, NaN = not known.
    """

    issue: Issue
    truth: Truth
    losses: Floats
    final_loss: Floats


class Issues:
    """Issues whose windows have not all been judged yet. Targets that end together are judged together."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        reaches = np.array([target.reach for target in ask.targets])
        self._waiting = {
            reach: (np.flatnonzero(reaches == reach), deque[Issue]()) for reach in np.unique(reaches).tolist()
        }

    def add(self, issue: Issue) -> None:
        """Waits for every target of this issue."""
        for _, queue in self._waiting.values():
            queue.append(issue)

    def due(self, source: Source, now: float) -> Iterator[tuple[Issue, Truth]]:
        """Truths about all windows that ended at least GRACE_S before `now`; each is told once."""
        reached = round((now - GRACE_S) / source.step_s)
        for reach, (targets, queue) in self._waiting.items():
            while queue and queue[0].start + reach <= reached:
                issue = queue.popleft()
                yield issue, Truth(self._actual(issue, targets, source), targets, issue.rows, issue.start + reach)

    def _actual(self, issue: Issue, targets: Ints, source: Source) -> Floats:
        actual = np.full((len(issue.rows), len(targets)), np.nan, dtype=np.float32)
        chosen = [self._ask.targets[number] for number in targets]
        first = min(one.first for one in chosen)
        rates = source.window(issue.start + first, chosen[0].reach - first, issue.rows)
        for number, one in enumerate(chosen):
            window = rates[one.channel][:, one.first - first :]
            actual[:, number] = window_values(window, one.length, one.peak)[:, 0]
        return actual
