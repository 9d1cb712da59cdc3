"""Forecasts every series in every cycle within a bounded time: what need not be done at once is done in turn."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cpdb import NO_MODEL
from predictor.data.view import ALL, Floats, ForecastSpec, Ints, Rows, SeriesView
from predictor.ensemble.forecaster import Forecaster
from predictor.ensemble.weights import LossScoreboard
from predictor.models import Model
from predictor.models.quantiles import make_monotone, pinball_loss
from predictor.models.seasonal import SeasonalNaive

# Cells at the end that late rows may still change.
LATE = 8
# A costly model is asked about no more than so many series a cycle where it has a say, the busiest; a model whose fits
# are slow is usually slow in all.
MAX_ASKED, MAX_ASKED_SLOW = 3000, 300
# How busy a series is, is the mean of so many cells.
BUSY_CELLS = 30
NEVER = -(10**12)


@dataclass(slots=True)
class SeriesRecency:
    """When each series was last known, when it last said something (numbers of cells), and how many cells are known."""

    last: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    spoke: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    known: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def update(self, view: SeriesView, rows: Ints) -> None:
        """Looks at the newest cells of all series, and at all cells of new ones and of `rows`."""
        begin, count = len(self.last), view.series
        room = (0, count - begin)
        self.last = np.pad(self.last, room, constant_values=NEVER)
        self.spoke = np.pad(self.spoke, room, constant_values=NEVER)
        self.known = np.pad(self.known, room)
        if begin < count:
            self._look(view, slice(begin, count), view.cells)
        self._look(view, slice(0, begin), min(LATE, view.cells))
        for part in (rows, slice(begin, count)):
            self.known[part] = (~np.isnan(view.rates[0, part])).sum(axis=-1)

    def _look(self, view: SeriesView, part: slice, cells: int) -> None:
        for cell in range(view.cells - cells, view.cells):
            column = view.rates[0, part, cell]
            self.last[part] = np.where(np.isnan(column), self.last[part], view.start + cell)
            self.spoke[part] = np.where(column > 0, view.start + cell, self.spoke[part])


class CostlySchedule:
    """Which models promise what for which series: models x series, and how busy each series is.

    `most` (models) is about how many series each is asked at most where it has a say.
    """

    def __init__(self, most: Ints) -> None:
        self._most = most[:, None]
        self._promising = np.zeros((len(most), 0), dtype=bool)
        self._busy: Floats = np.zeros(0)
        self._asked = self._promising

    def update(self, view: SeriesView, turn: Ints, promising: Ints) -> None:
        """Takes note of what models promise (models x turn) about the series whose turn it is."""
        more = view.series - self._promising.shape[1]
        self._promising = np.pad(self._promising, ((0, 0), (0, more)))
        self._busy = np.pad(self._busy, (0, more))
        self._promising[:, turn] = promising
        self._busy[turn] = np.nan_to_num(view.rates[0, turn, -BUSY_CELLS:]).mean(axis=-1)
        order = np.argsort(-self._busy, kind="stable")
        among = np.cumsum(self._promising[:, order], axis=1) <= self._most
        self._asked = np.zeros_like(self._promising)
        self._asked[:, order] = self._promising[:, order] & among

    def asked(self, number: int, judged: Ints, round_number: int) -> Ints:
        """The series that a costly model (by number) is asked about: where it has a say, and a share of those judged.

        Which share moves on from round to round, so that in the end all are.
        """
        rounds = max(1, -(-len(judged) // int(self._most[number, 0])))
        chosen = self._asked[number].copy()
        chosen[judged[round_number % rounds :: rounds]] = True
        return np.flatnonzero(chosen)


MOMENTS = 32
SPAN = 128


def replay_past(models: Mapping[str, Model], view: SeriesView, spec: ForecastSpec, into: LossScoreboard) -> None:
    """Adds to `into` (fresh, of the view's size) what the replayable models would have lost at up to 32 past moments.

    Each moment sees only the cells before it. Models keep the parameters that they have now.
    """
    span = min(SPAN, view.cells // 2)
    stride = max(1, span // MOMENTS)
    origins = np.arange(view.cells - span - 1, view.cells - 1 - view.lead, stride)
    if not len(origins):
        return
    forecasts = np.full((len(into.contest.models), len(origins), view.series, *_shape(spec)), np.nan, dtype=np.float32)
    for number, name in enumerate(into.contest.models):
        if models[name].replayable:
            forecasts[number] = make_monotone(models[name].predict(view, origins))
    for number, origin in enumerate(origins.tolist()):
        for reach in sorted({target.reach for target in spec.targets}):
            if origin + view.lead + reach < view.cells:
                which = np.flatnonzero([target.reach == reach for target in spec.targets])
                actual = view.truth(spec.targets, which, origin)
                losses = pinball_loss(forecasts[:, number][:, :, which], actual[None], spec.levels)
                into.add(losses, which, ALL, view.start + origin + reach)


def _shape(spec: ForecastSpec) -> tuple[int, int]:
    return len(spec.targets), len(spec.levels)


# So many series have their bands and periods renewed, are judged and are replayed in one cycle; above MAX_ROUND
# times as many a turn grows, as nobody should wait longer for it.
TURN = 500
MAX_ROUND = 40
# What is to be judged has to be kept until its time comes, for every model: series take longer turns here.
MAX_JUDGED_ROUND = 80
# In small sets what moves slowly need not be renewed in each cycle either.
MIN_ROUND = 4
# Series that are worked on together: their forecasts fit into a processor's cache.
CHUNK = 512
# A costly model is asked about a series from this say on.
MIN_SAY = 0.02
# In large sets the past of new series is replayed every so many cycles.
REPLAYED_EVERY = 5
# A series that has been silent for so many times the longest window is looked at in its turn only.
QUIET_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class CostlyAnswer:
    """What a costly model forecasts (series asked about x targets x levels), and the `place` of each series in it.

    A place of -1 means that the model was not asked about the series.
    """

    place: Ints
    forecasts: Floats

    def about(self, rows: Rows) -> Floats | None:
        """Forecasts of `rows`, NaN where the model was not asked; None where it was asked about none."""
        place = self.place[rows]
        asked = place >= 0
        if not asked.any():
            return None
        quantiles = np.full((len(place), *self.forecasts.shape[1:]), np.nan, dtype=np.float32)
        quantiles[asked] = self.forecasts[place[asked]]
        return quantiles


@dataclass(slots=True)
class CycleForecast:
    """All series at one cycle: final forecasts (series x targets x levels) and the heaviest models (series x targets).

    `forecasts` is models x rows x targets x levels of those series (`rows`) that are to be judged.
    """

    final: Floats
    chosen: Ints
    rows: Ints
    forecasts: Floats
    place: Ints  # of each series in `rows`, -1 = is not
    costly: dict[int, CostlyAnswer] = field(default_factory=dict)  # by number of the model


def most_asked(model: Model) -> int:
    """About how many series a costly model is asked in a cycle where it has a say: what it says itself, or as usual."""
    return int(getattr(model, "most_asked", MAX_ASKED_SLOW if model.slow else MAX_ASKED))


class LiveForecaster:
    """A forecaster at work on a live view: who is renewed, asked and judged in which cycle."""

    def __init__(self, forecaster: Forecaster, threads: int = 1) -> None:
        self.forecaster = forecaster
        self.seen = SeriesRecency()
        self._threads = threads
        self._number = 0
        self._renewed: Ints = np.zeros(0, dtype=bool)
        self._schedule = CostlySchedule(np.array([most_asked(model) for model in forecaster.models.values()]))
        self._replayed: Floats = np.zeros(0)
        self._final: Floats = forecaster.spec.empty(1, 0)[0]
        self._chosen: Ints = np.zeros((0, len(forecaster.spec.targets)), dtype=np.uint8)

    @property
    def final(self) -> Floats:
        """Final forecasts of the last cycle: series x targets x levels."""
        return self._final

    def update(self, view: SeriesView, oldest: int) -> SeriesView:
        """Lets models take note of the view, whose `turn` is set here; models that are new to a series of at least
        `oldest` known cells are judged on its past. Returns the view with the turn.
        """
        self._number += 1
        turn = self._turn(view.series)
        view = view.with_turn(turn)
        self.forecaster.composition.resize(view.series)
        self.seen.update(view, turn)
        for model in self.forecaster.models.values():
            model.update(view)
        self._replay(view, oldest)
        promising = self.forecaster.composition.promising(turn, MIN_SAY)
        self._schedule.update(view, turn, promising)
        return view

    def _turn(self, series: int) -> Ints:
        self._renewed = np.pad(self._renewed, (0, series - len(self._renewed)))
        rounds = int(np.clip(series // TURN, MIN_ROUND, MAX_ROUND))
        new = np.flatnonzero(~self._renewed)[:TURN]
        turn = np.union1d(np.arange(self._number % rounds, series, rounds), new)
        self._renewed[turn] = True
        return turn

    def _replay(self, view: SeriesView, oldest: int) -> None:
        """Gives models a record from the past where a series is new or a period has just been found."""
        rhythmic = self._rhythmic(view.series)
        before = np.pad(self._replayed, (0, view.series - len(self._replayed)), constant_values=-1.0)
        news = np.flatnonzero((self.seen.known >= oldest) & (rhythmic > before))[:TURN]
        self._replayed = np.minimum(before, rhythmic)
        if not len(news) or (view.series > TURN and self._number % REPLAYED_EVERY):
            return
        self._replayed[news] = rhythmic[news]
        scoreboard = self.forecaster.composition.scoreboard
        record = LossScoreboard(scoreboard.contest)
        record.resize(len(news))
        replay_past(self.forecaster.models, view.part(news), self.forecaster.spec, record)
        replayable = np.array([model.replayable for model in self.forecaster.models.values()])
        # A record earned in life outweighs a replay, unless it is shorter.
        longer = record.count.min(axis=2) > scoreboard.count[:, news].min(axis=2)
        scoreboard.take_over(record, replayable[:, None] & longer, news)

    def _rhythmic(self, series: int) -> Floats:
        seasonal = self.forecaster.models.get(SeasonalNaive.name)
        if not isinstance(seasonal, SeasonalNaive):
            return np.zeros(series)
        return (~np.isnan(seasonal.periods[:series])).astype(np.float64)

    def forecast_series(self, view: SeriesView, factor: Floats) -> CycleForecast:
        """Final forecasts of all series, each widened by its `factor`, and all models' of those that will be judged."""
        self._make_room(view.series)
        judged = np.arange(self._number % self._stride(view.series), view.series, self._stride(view.series))
        place = np.full(view.series, -1, dtype=np.int64)
        place[judged] = np.arange(len(judged))
        shape = (len(self.forecaster.models), len(judged), *self._final.shape[1:])
        result = CycleForecast(self._final, self._chosen, judged, np.empty(shape, dtype=np.float32), place)
        chunks = list(self._chunks(view, place))
        with self._hands(len(chunks)) as each:
            result.costly |= self._ask_costly(view, judged, each)
            each(lambda rows: self._forecast_chunk(view, rows, factor, result), chunks)
        return result

    @contextmanager
    def _hands(self, chunks: int) -> Iterator[Callable[[Callable[[Any], Any], list[Any]], list[Any]]]:
        """Does something to each of a list, by several threads where there is enough to do."""
        if self._threads > 1 and chunks > 2 * self._threads:
            with ThreadPoolExecutor(self._threads) as pool:
                yield lambda work, items: list(pool.map(work, items))
        else:
            yield lambda work, items: [work(item) for item in items]

    def _ask_costly(self, view: SeriesView, judged: Ints, each: Callable[..., list[Any]]) -> dict[int, CostlyAnswer]:
        answers = {}
        for number, model in enumerate(self.forecaster.models.values()):
            if getattr(model, "costly", False):
                rows = self._schedule.asked(number, judged, self._number // self._stride(view.series))
                parts = np.array_split(rows, -(-len(rows) // CHUNK) or 1)
                forecasts = each(lambda part, model=model: _predict_last(model, view.part(part)), parts)
                place = np.full(view.series, -1, dtype=np.int64)
                place[rows] = np.arange(len(rows))
                answers[number] = CostlyAnswer(place, np.concatenate(forecasts))
        return answers

    def _make_room(self, series: int) -> None:
        more = series - len(self._final)
        if more > 0:
            empty = self.forecaster.spec.empty(1, more)[0]
            self._final = np.concatenate([self._final, empty])
            self._chosen = np.pad(self._chosen, ((0, more), (0, 0)), constant_values=NO_MODEL)

    def _stride(self, series: int) -> int:
        return int(np.clip(-(-series // TURN), 1, MAX_JUDGED_ROUND))

    def _chunks(self, view: SeriesView, place: Ints) -> Iterator[Rows]:
        quiet_since = view.start + view.cells - max(LATE, QUIET_WINDOWS * self.forecaster.spec.reach)
        active = (self.seen.spoke >= quiet_since) | (place >= 0) | np.isnan(self._final[:, 0, 0])
        if active.all():
            yield from (slice(begin, min(begin + CHUNK, view.series)) for begin in range(0, view.series, CHUNK))
        else:
            rows = np.flatnonzero(active)
            yield from (rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK))

    def _forecast_chunk(self, view: SeriesView, rows: Rows, factor: Floats, result: CycleForecast) -> None:
        part = view.part(rows)
        place = result.place[rows]
        judged = np.flatnonzero(place >= 0)
        forecasts: list[Floats | None] = []
        for number, model in enumerate(self.forecaster.models.values()):
            answer = result.costly.get(number)
            quantiles = _predict_last(model, part) if answer is None else answer.about(rows)
            forecasts.append(quantiles)
            result.forecasts[number, place[judged]] = np.nan if quantiles is None else quantiles[judged]
        final, chosen = self.forecaster.composition.blend(forecasts, rows, factor[rows])
        result.final[rows], result.chosen[rows] = final, chosen


def _predict_last(model: Model, part: SeriesView) -> Floats:
    return make_monotone(model.predict(part, part.last)[0])
