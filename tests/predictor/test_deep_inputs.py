"""What the networks read comes from the past only, and is the same for a small series as for a large one."""

import numpy as np
import pytest
from deep_series import alternating
from hypothesis import given
from hypothesis import strategies as st

from predictor.models.deep.inputs import (
    MAX_GAP,
    Calendar,
    Inputs,
    Moments,
    NetworkTask,
    PrefixSums,
    Spans,
    SpanStatistics,
    WindowShape,
    draw_batch,
    network_inputs,
    peaks,
    prefix_sums,
    window_truths,
)

SHAPES = (WindowShape(0, 1), WindowShape(2, 5), WindowShape(0, 6, peak=True))


def moments(rows: int, cell: int, seen: int | None = None) -> Moments:
    every = np.arange(rows)
    return Moments(every, np.full(rows, cell), np.full(rows, cell if seen is None else seen))


def with_period(rates: np.ndarray, period: float = 12.0) -> PrefixSums:
    return prefix_sums(rates, np.full(rates.shape[1], period))


def parts(inputs: Inputs) -> tuple[np.ndarray, ...]:
    return inputs.steps, inputs.guesses, inputs.statics, inputs.centre, inputs.unit


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e9, width=32)), min_size=1, max_size=30),
    st.integers(-5, 30),
    st.integers(1, 30),
    st.integers(0, 40),
)
def test_running_sums_agree_with_looking_at_every_cell(values, first, length, seen):
    row = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    past = prefix_sums(row[None, None], np.array([np.nan]))
    spans = Spans(*(np.array([part]) for part in (0, first, length, seen)))
    inside = row[max(first, 0) : max(0, min(first + length, seen + 1))].astype(float)
    known = inside[~np.isnan(inside)]
    found = SpanStatistics(past, spans)
    assert found.share[0] == pytest.approx(len(known) / length)
    assert found.mean[0] == pytest.approx(known.mean() if len(known) else 0.0, rel=1e-6, abs=1e-3)
    assert peaks(past, spans, length)[0] == (known.max() if len(known) else 0.0)


@pytest.mark.parametrize("cell", [30, 100, 300])
def test_nothing_that_a_network_reads_comes_from_the_future(cell):
    rates = np.concatenate([alternating(1), alternating(2), alternating(3)])
    corrupted = rates.copy()
    corrupted[..., cell + 1 :] = 1e12
    asked = moments(rates.shape[1], cell)
    before, after = (network_inputs(with_period(one), asked, SHAPES, Calendar()) for one in (rates, corrupted))
    for one, other in zip(parts(before), parts(after), strict=True):
        assert np.array_equal(one, other)


def test_hidden_cells_are_as_good_as_missing():
    rates = alternating(4)
    gap = rates.copy()
    gap[..., 195:] = np.nan
    hidden = network_inputs(with_period(rates), moments(12, 200, 194), SHAPES, Calendar())
    missing = network_inputs(with_period(gap), moments(12, 200), SHAPES, Calendar())
    for one, other in zip(parts(hidden), parts(missing), strict=True):
        assert one == pytest.approx(other)


def test_a_series_a_million_times_as_large_looks_the_same():
    rates = alternating(5)
    small, large = (
        network_inputs(with_period(one), moments(12, 250), SHAPES, Calendar())
        for one in (rates, rates * np.float32(2**20))
    )
    assert large.steps == pytest.approx(small.steps, abs=1e-4)
    assert large.guesses == pytest.approx(small.guesses, abs=1e-3)
    assert large.unit == pytest.approx(small.unit * 2**20, rel=1e-4)


def test_the_guess_from_the_cycle_before_is_that_window():
    rates = np.tile(np.arange(12.0, dtype=np.float32), 20)[None, None]
    rates[..., 188:] *= 2
    inputs = network_inputs(with_period(rates), moments(1, 199), SHAPES, Calendar())
    said = inputs.guesses[0, :, -1] * inputs.unit[0] + inputs.centre[0]
    upcoming = rates[0, 0, 200:220]
    assert said == pytest.approx([upcoming[0], upcoming[2:7].mean(), upcoming[:6].max()], abs=1e-3)


def test_truths_are_what_came_and_unknown_where_it_has_not_come_yet():
    rates = np.arange(50, dtype=np.float32)[None, None]
    truths = window_truths(
        prefix_sums(rates, np.array([np.nan])),
        Moments(*(np.array(part) for part in ([0, 0], [40, 45], [40, 45]))),
        SHAPES,
    )
    assert truths[0] == pytest.approx([41, 45, 46])
    assert truths[1, 0] == 46
    assert np.isnan(truths[1, 1:]).all()


def test_lessons_keep_their_distance_from_what_is_kept_back():
    past = with_period(alternating(6))
    subject = NetworkTask(past, np.arange(12), SHAPES, (0.5,), Calendar())
    assert subject.taught + max(shape.reach for shape in SHAPES) <= subject.split
    assert subject.split < subject.last < past.cells - 1
    lesson = draw_batch(subject, range(subject.split, subject.last + 1), 500, np.random.default_rng(1))
    assert 0 < np.isnan(lesson.truths).mean() < 0.2
    assert (lesson.inputs.statics[:, 2] < 1.0).mean() > 0.05  # some with a gap of up to MAX_GAP before them
    assert lesson.inputs.statics[:, 2].min() > 0.5 - MAX_GAP / 280
