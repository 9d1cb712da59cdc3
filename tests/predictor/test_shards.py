"""Pairs are forecast by shards: alone, by several workers, and by others when one of them is killed."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic_traffic import START, Recipe, make

from cpdb import BlendReport, Communication, FlowKey, Store, open_store
from predictor import PredictorConfig, Tiers
from predictor.data.parts import SharedFeed, shard_of
from predictor.service.crew import DaskCrew, place_shards
from predictor.service.duty import ReadyTiers
from predictor.service.shards import NEVER, LocalCrew, ShardAnswer, ShardCopies, ShardHost, ShardTask

SHARDS = 3
CONFIG = PredictorConfig(
    models=("naive", "ewma", "train_mean", "seasonal_naive"),
    slow={"horizons_s": (60,), "history_s": 240}, long={"horizons_s": ()}, shards={"count": SHARDS},
)  # fmt: skip
TRAFFIC = make(3, Recipe(pairs=24, surging=8, seconds=150))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    opened = [open_store(f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]
    yield opened
    for store in opened:
        store.close()


def rows_of(second: int, shard: int | None = None) -> list[Communication]:
    rows = TRAFFIC.rows(second - 1)
    return [row for row in rows if shard is None or shard_of(row.pair, SHARDS) == shard]


def said(store: Store, now: float, tier: str = "fast") -> dict[object, tuple[object, ...]]:
    """All that the newest issue says, by subject."""
    batch = store.forecasts.batch(now, 0.5, tier)
    assert batch is not None
    values = np.asarray(batch.array())
    found = {
        subject: (values[place].tobytes(), batch.active(subject, batch.horizons_s[0]), batch.trust(subject))
        for place, subject in enumerate(batch.subjects)
    }
    assert len(found) == len(batch.subjects)
    return found


def test_a_shard_forecasts_as_a_predictor_does_that_knows_its_pairs_alone(stores):
    whole, part = stores
    sharded, alone = ReadyTiers(CONFIG, background=False), Tiers(CONFIG.for_shard(1), background=False, only=())
    for second in range(1, 131):
        whole.facts.add_communications(rows_of(second))
        part.facts.add_communications(rows_of(second, shard=1))
        if second > 60 and second % 2:
            report = sharded.at_work().cycle(whole, START + second)
            alone.cycle(part, START + second)
    assert report.pairs == len(said(whole, START + 129)) == 24
    for tier, issued in (("fast", 129), ("slow", 121)):
        everybody, mine = (said(store, START + issued, tier) for store in stores)
        assert 0 < len(mine) == len(rows_of(130, shard=1)) < len(everybody)
        assert {subject: everybody[subject] for subject in mine} == mine
    (blend,) = [one for one in whole.wanted.observed_of(BlendReport) if one.tier == "fast"]
    assert sum(blend.shares.values()) == pytest.approx(1.0, abs=0.01)
    (own, *_), (all_, *_) = (store.forecasts.score_batches(0.0) for store in (part, whole))
    for batch in (own, all_):
        single, together = np.frombuffer(batch.count, "<u4").reshape(batch.shape), slice(-1, None)
        assert (single[:-1].sum(axis=0) == single[together][0]).all() and single.any()


@pytest.mark.parametrize(("copies_mb", "more", "killed_at"), [(64.0, ("gradient_boosting",), 99), (0.0, (), 105)])
def test_three_workers_say_what_one_process_says_also_when_one_of_them_is_killed(stores, copies_mb, more, killed_at):
    structlog.reset_defaults()
    one, many = stores
    quick = CONFIG.tuned(models=(*CONFIG.models, *more))
    crews = (
        LocalCrew(quick, background=False),
        DaskCrew(quick.tuned(shards={"workers": 3, "copies_mb": copies_mb}), background=False),
    )
    local, spread = (ReadyTiers(quick, background=False, crew=crew) for crew in crews)
    try:
        with structlog.testing.capture_logs() as logs:
            for second in range(1, 113):
                for store, ready in ((one, local), (many, spread)):
                    store.facts.add_communications(rows_of(second))
                    if second > 75:
                        ready.at_work().cycle(store, START + second)
                if second > 75:
                    assert said(one, START + second) == said(many, START + second)
                if second == killed_at:
                    before = said(one, START + second)
                    gone, moved = kill_one(crews[1])
                    if not copies_mb:
                        # What is moved goes on with what the database keeps, as one process does that forgets it.
                        for store, ready in ((one, local), (many, spread)):
                            ready.tiers.keep(store, START + second)
                        crews[0].host.drop(moved)
                    os.kill(gone, signal.SIGKILL)
    finally:
        spread.close()
        local.close()
    events = {line["event"] for line in logs}
    assert ("shards go on with their copies" in events) == bool(copies_mb)
    assert ("shards go on with what the database keeps, as there is no copy of them" in events) != bool(copies_mb)
    if copies_mb:
        return
    # As far as it was trusted, it is.
    after = said(many, START + killed_at + 1)
    trusted = {subject for subject, (*_, trust) in before.items() if trust.horizon_s}
    lost = {subject for subject in trusted if shard_of(FlowKey(subject.a, subject.b, None), SHARDS) in moved}
    assert lost and sum(after[subject][2].horizon_s > 0 for subject in lost) > 0.7 * len(lost)


def test_a_shard_that_was_being_fitted_goes_on_elsewhere_with_what_came_of_it(stores):
    config = CONFIG.tuned(slow={"horizons_s": ()}, models=("ewma", "arima"), limits={"refit_every_s": 1000})
    first, other = (ShardHost(stores[0], config) for _ in range(2))
    copies, done, seconds = ShardCopies(config.shards, SHARDS), NEVER, iter(range(1, 150))

    def turn(*hosts: ShardHost, **told: object) -> list[ShardAnswer]:
        nonlocal done
        stores[0].facts.add_communications(rows_of(second := next(seconds)))
        task = ShardTask(START + second, stores[0].facts.newest_batch(), {1: done}, anew=False, **told)
        answers = [host.turn(task)[0] for host in hosts]
        if not answers[0].lacks:
            copies.heard(answers[0], task.up_to)
            done = task.now
        return answers

    def until(host: ShardHost, told: Callable[[ShardAnswer], bool], pause_s: float = 0.0) -> None:
        while not told(turn(host)[0]):
            sleep(pause_s)

    try:
        until(first, lambda answer: any(answer.news.free))
        turn(first, room=1 << 24)  # while a fit is running
        (begun,) = copies.of([1], {1: done}).values()
        until(first, lambda answer: any(answer.news.fits), pause_s=0.5)
        until(first, lambda answer: "arima" in answer.issues[0].report.chosen)
        assert turn(other)[0].lacks
        same = turn(first, other, copies=copies.of([1], {1: first.reached[1]}))
        assert same[0].issues == same[1].issues and "arima" in same[0].issues[0].report.chosen
        other.drop([1])
        done = begun.now
        turn(other, copies={1: replace(begun, turns=[])})
        until(other, lambda answer: any(answer.news.fits), pause_s=0.5)  # what was running began again
    finally:
        first.close()
        other.close()


def kill_one(crew: DaskCrew) -> tuple[int, list[int]]:
    """The pid of a worker, and the shards that are there."""
    pids = crew.client.run(os.getpid)
    assert len(set(crew.placed.values())) == len(set(pids.values())) == 3
    worker = crew.placed[1]
    return pids[worker], [shard for shard, place in crew.placed.items() if place == worker]


NAMES = st.sampled_from("abcdefg")


@example({0: "a", 1: "a", 2: "a"}, {*"abcd"}, {*"abcd"}, 3)
@given(
    st.dictionaries(st.integers(0, 15), NAMES), st.sets(NAMES, min_size=1), st.sets(NAMES), st.integers(1, 16)
)  # fmt: skip
def test_every_shard_has_a_worker_that_lives_and_moves_only_for_a_reason(before, workers, settled, count):
    placed = place_shards(before, workers, settled & workers, count)
    assert sorted(placed) == list(range(count)) and set(placed.values()) <= workers
    counts = {worker: list(placed.values()).count(worker) for worker in workers}
    if settled >= workers:
        assert max(counts.values()) - min(counts.values()) <= 1
    for shard, worker in before.items():
        if shard < count and worker in workers and placed[shard] != worker:
            assert placed[shard] in settled  # only who has settled takes from the living
    assert place_shards(placed, workers, settled & workers, count) == placed


def test_each_row_goes_to_its_shard_once(stores):
    rows = [row for second in range(1, 4) for row in rows_of(second)]
    stores[0].facts.add_communications(rows)
    feed, found = SharedFeed(5), []
    feed.begin()
    for shard in range(5):
        part = feed.part(shard)
        for batch in part.batches(stores[0], 0, 0.0):
            for number, size in zip(batch.key_ids, batch.bytes, strict=True):
                flow_key = part.flow_keys(stores[0])[int(number)]
                assert shard_of(flow_key, 5) == shard
                found.append((batch.t, flow_key.source, flow_key.virtual_ip, int(size)))
    assert sorted(found) == sorted((row.t, row.source, row.virtual_ip, row.bytes) for row in rows)
