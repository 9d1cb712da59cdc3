"""Draws moments of the past to learn from, some of them with their newest cells hidden, as if rows were missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor.deep.inputs import Calendar, Inputs, Moments, Shape, inputs_of, truths_of
from predictor.deep.past import Past
from predictor.view import Floats, Ints

# Before a series has been seen for so many cells there is nothing to learn from it.
WARM_UP = 24
# Share of moments with a gap before them, and the longest such gap in cells.
GAPS = 0.15
LONGEST_GAP = 40
# The newest part of the past is kept back to judge by.
KEPT_BACK = 0.15
# A series of twice the size counts 2 ** SIZE times as much, but none more than WEIGHTIEST times the mean.
SIZE = 0.5
WEIGHTIEST = 10.0


@dataclass(frozen=True, slots=True)
class Subject:
    """All there is to learn from and what is asked, of which rows."""

    past: Past
    rows: Ints
    shapes: tuple[Shape, ...]
    levels: tuple[float, ...]
    calendar: Calendar

    @property
    def last(self) -> int:
        """The last origin of which at least one window is over."""
        return self.past.cells - 1 - min(shape.reach for shape in self.shapes)

    @property
    def split(self) -> int:
        """The first origin that is kept back."""
        return round(WARM_UP + (1.0 - KEPT_BACK) * (self.last - WARM_UP))

    @property
    def taught(self) -> int:
        """The first origin with a window that reaches into what is kept back."""
        return self.split - max(shape.reach for shape in self.shapes)

    @property
    def moments(self) -> int:
        """How many origins there are, over all series."""
        return len(self.rows) * (self.last - WARM_UP)

    @property
    def enough(self) -> bool:
        """Is there anything to learn from?"""
        return bool(len(self.rows) and self.taught - WARM_UP >= 2 * WARM_UP)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Inputs with what came (n x shapes, in each series' unit, NaN = not known) and how much each counts (n)."""

    inputs: Inputs
    truths: Floats
    weights: Floats


def draw(subject: Subject, span: Sequence[int], count: int, rng: np.random.Generator) -> Lesson:
    """`count` moments whose origins lie in `span` (first, end), all series alike."""
    rows = rng.choice(subject.rows, count)
    cells = rng.integers(span[0], span[1], count)
    hidden = np.where(rng.random(count) < GAPS, rng.integers(1, LONGEST_GAP + 1, count), 0)
    moments = Moments(rows, cells, cells - hidden)
    inputs = inputs_of(subject.past, moments, subject.shapes, subject.calendar)
    truths = truths_of(subject.past, moments, subject.shapes)
    truths[~inputs.known] = np.nan
    size = inputs.unit**SIZE
    return Lesson(
        inputs,
        ((truths - inputs.centre[:, None]) / inputs.unit[:, None]).astype(np.float32),
        np.minimum(size / size.mean(), WEIGHTIEST).astype(np.float32),
    )


def simple_loss(lesson: Lesson) -> float:
    """Mean absolute error of the best of the simple guesses, weighted as the network's is."""
    known = ~np.isnan(lesson.truths)
    error = np.abs(lesson.inputs.guesses - np.where(known, lesson.truths, 0.0)[..., None])
    weight = known * lesson.weights[:, None]
    total = (error * weight[..., None]).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-9)
    return float(total.min())
