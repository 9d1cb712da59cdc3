"""Forecasts pairs shard by shard, wherever the shards are, and publishes what they say as one issue a tier."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
import structlog

from cpdb import BlendReport, ForecastBatch, ScoreBatch, Seconds, Store, TrustArrays
from predictor.config import PredictorConfig, ShardLimits
from predictor.data.parts import SharedFeed
from predictor.service.copies import HeldShard, PastTurn, ShardCopy, TurnNews, resumed
from predictor.service.cycle import PredictorReport, TierTurn
from predictor.service.tiers import Tiers
from predictor.service.workers import FitPool
from predictor.trust.tracker import MAX_MOVES

log = structlog.get_logger(__name__)

NEVER = -inf
# Who gets the shard of one that died does up to so many turns again.
COPIED_EVERY = 15


def rotated(numbers: Collection[int], turn: int) -> list[int]:
    """In this turn's order: each is the first to find the process for fits free now and then."""
    ordered = sorted(numbers)
    first = turn % max(1, len(ordered))
    return ordered[first:] + ordered[:first]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A turn of some shards, of all or not: everybody reads up to the same batch.

    `done` are the shards asked for, with the last moment of which an answer of each was heard (NEVER: none). One that
    is not here goes on from its copy, or from what was kept of it if it may (`anew`). A copy is wanted of as many bytes
    at most as `room` says.
    """

    now: Seconds
    up_to: int | None
    done: Mapping[int, Seconds]
    anew: bool = True
    copies: Mapping[int, ShardCopy] = field(default_factory=dict)
    room: int = 0


class ShardAnswer(NamedTuple):
    """What the tiers of one shard said at a moment; it `lacks` what it was where it did nothing for want of that.

    `after` is the turn before, where nothing was between; `copy` is empty where there was no room for it.
    """

    shard: int
    now: Seconds
    issues: tuple[TierTurn, ...] = ()
    lacks: bool = False
    after: Seconds | None = None
    news: TurnNews | None = None
    copy: tuple[bytes, ...] | None = None


class ShardHost:
    """The shards that are in this process: a predictor core each; one reader and one process for fits for all."""

    def __init__(self, store: Store, config: PredictorConfig, background: bool = True) -> None:
        self.config = config
        self._store = store
        self._feed = SharedFeed(config.shard_count)
        self._fits = FitPool() if background else None
        self._held: dict[int, HeldShard] = {}
        self.reached: dict[int, Seconds] = {}  # the last moment of each shard here
        self._number = 0
        self._reads: Seconds = NEVER  # the moment of the turn that the feed reads for

    def turn(self, task: ShardTask) -> list[ShardAnswer]:
        """Answers of all shards asked for, in the order of their numbers.

        Raises StoreError. One that is not here, or that has missed what another worker did with it, goes on as the task
        says.
        """
        if task.now != self._reads:
            self._feed.begin(task.up_to)
            self._reads = task.now
        self._number += 1
        answers = [self._answer(number, task) for number in rotated(task.done, self._number)]
        return sorted(answers, key=lambda answer: answer.shard)

    def _answer(self, number: int, task: ShardTask) -> ShardAnswer:
        if self.reached.get(number, NEVER) < task.done[number]:
            self.drop([number])
            if (copy := task.copies.get(number)) is not None:
                self._held[number] = resumed(copy, self._store, self._feed, self._fits)
                self.reached[number] = copy.reached
                self._feed.begin(task.up_to)
            elif not task.anew:
                return ShardAnswer(number, task.now, lacks=True)
        if task.now <= self.reached.get(number, NEVER):
            return ShardAnswer(number, task.now)  # was done for somebody who did not hear of it
        held = self._here(number)
        after, issues = held.last, held.turn(self._store, task.now)
        self.reached[number] = task.now
        news = held.fits.news._replace(refreshes=held.tiers.refreshes)
        copied = held.packed(task.room) if task.room else None
        return ShardAnswer(number, task.now, issues, after=after, news=news, copy=copied)

    def follow(self, numbers: Collection[int], now: Seconds) -> None:
        """These take up what was learnt and what is measured, and forecast nothing. Raises StoreError."""
        self._feed.begin()
        for number in numbers:
            self._here(number).last = None
            self._here(number).tiers.follow(self._store, now)

    def keep(self, numbers: Collection[int], now: Seconds) -> None:
        """Writes down all that these have learnt, as far as they are here."""
        for number in numbers:
            if number in self._held:
                self._held[number].tiers.keep(self._store, now)

    def drop(self, numbers: Collection[int]) -> None:
        """Forgets these shards here."""
        for number in numbers:
            self.reached.pop(number, None)
            if (held := self._held.pop(number, None)) is not None:
                held.tiers.close()

    def release(self, numbers: Collection[int], now: Seconds) -> None:
        """Keeps and forgets: another goes on with them."""
        self.keep(numbers, now)
        self.drop(numbers)

    def close(self) -> None:
        """Forgets all, and ends the process for fits."""
        self.drop(list(self._held))
        if self._fits is not None:
            self._fits.close()

    def _here(self, number: int) -> HeldShard:
        if number not in self._held:
            self._held[number] = HeldShard(self.config.for_shard(number), self._feed, self._fits)
        return self._held[number]


class ShardCopies:
    """Of each shard a copy, and what it was told since, as far as there is room: who publishes has them."""

    def __init__(self, limits: ShardLimits, count: int) -> None:
        self._most = int(1e6 * limits.copies_mb / count)
        self._copies: dict[int, ShardCopy] = {}
        self._without: set[int] = set()

    def room(self, shard: int, turn: int) -> int:
        """Bytes that a copy may take in this turn of the crew, 0 while none is wanted; shards take turns."""
        copy = self._copies.get(shard)
        due = (turn + shard) % COPIED_EVERY == 0 if copy is None else len(copy.turns) >= COPIED_EVERY
        return self._most if due and shard not in self._without else 0

    def heard(self, answer: ShardAnswer, up_to: int | None) -> None:
        """Takes note of a turn. A copy of which a turn is not known is none any more."""
        copy = self._copies.pop(answer.shard, None)
        if answer.copy:
            self._copies[answer.shard] = ShardCopy(answer.now, answer.copy)
        elif answer.copy is not None:
            self._without.add(answer.shard)
            log.warning("no copies of a shard: too large for predictor.shards.copies_mb", shard=answer.shard)
        elif copy is not None and answer.news is not None and answer.after == copy.reached:
            copy.turns.append(PastTurn(answer.now, up_to, answer.news))
            if copy.size <= self._most:
                self._copies[answer.shard] = copy

    def of(self, shards: Collection[int], done: Mapping[int, Seconds]) -> dict[int, ShardCopy]:
        """Copies of these shards as they were when they were heard of last, as far as there are any."""
        return {shard: copy for shard, copy in self._copies.items() if shard in shards and copy.reached == done[shard]}

    def forget(self, shards: Collection[int]) -> None:
        """Those of these shards are of no use."""
        for shard in shards:
            self._copies.pop(shard, None)


class ShardCrew(Protocol):
    """Who does the work of all shards."""

    def turn(self, store: Store, now: Seconds) -> list[ShardAnswer]:
        """One turn of every shard, as far as somebody answers. Raises StoreError."""

    def follow(self, store: Store, now: Seconds) -> None:
        """Keeps ready. Raises StoreError."""

    def keep(self, store: Store, now: Seconds) -> None:
        """Has all that was learnt written down."""

    def renew(self) -> None:
        """Another predictor has worked meanwhile: what is known here is out of date."""

    def close(self) -> None:
        """Ends everything."""


class LocalCrew:
    """This process alone does it, one shard after the other."""

    def __init__(self, config: PredictorConfig, background: bool = True) -> None:
        self._config, self._background = config, background
        self.host: ShardHost | None = None
        self._done = dict.fromkeys(range(config.shard_count), NEVER)

    def turn(self, store: Store, now: Seconds) -> list[ShardAnswer]:
        """See ShardCrew."""
        return self._at(store).turn(ShardTask(now, None, self._done))

    def follow(self, store: Store, now: Seconds) -> None:
        """See ShardCrew."""
        self._at(store).follow(self._done, now)

    def keep(self, store: Store, now: Seconds) -> None:
        """See ShardCrew."""
        self._at(store).keep(self._done, now)

    def renew(self) -> None:
        """See ShardCrew."""
        if self.host is not None:
            self.host.close()
        self.host = None

    close = renew

    def _at(self, store: Store) -> ShardHost:
        if self.host is None:
            self.host = ShardHost(store, self._config, self._background)
        return self.host


class ShardedTiers:
    """As `Tiers`, with pairs by shards; sums, links and machines are forecast here."""

    def __init__(self, config: PredictorConfig, background: bool, crew: ShardCrew) -> None:
        self._crew = crew
        self._rest = Tiers(config, background, feed=None)

    def cycle(self, store: Store, now: Seconds) -> PredictorReport:
        """See Tiers."""
        report = publish(store, self._crew.turn(store, now))
        self._rest.cycle(store, now)
        return report or PredictorReport(now)

    def follow(self, store: Store, now: Seconds) -> None:
        """See Tiers."""
        self._crew.follow(store, now)
        self._rest.follow(store, now)

    def keep(self, store: Store, now: Seconds) -> None:
        """See Tiers."""
        self._crew.keep(store, now)
        self._rest.keep(store, now)

    def close(self) -> None:
        """See Tiers; who does the work of the shards stays."""
        self._crew.renew()
        self._rest.close()


def publish(store: Store, answers: Sequence[ShardAnswer]) -> PredictorReport | None:
    """Writes one issue a tier from the answers of all shards; returns the first tier's report. Raises StoreError."""
    by_tier: dict[str, list[TierTurn]] = defaultdict(list)
    for answer in answers:
        for issue in answer.issues:
            by_tier[issue.tier].append(issue)
    wholes = [merge_issues(issues) for issues in by_tier.values()]
    for whole in wholes:
        whole.write(store)
    return wholes[0].report if wholes else None


def merge_issues(issues: Sequence[TierTurn]) -> TierTurn:
    """What the shards of one tier say as what the tier says, in the order of the shards."""
    batches = [issue.batch for issue in issues if issue.batch is not None]
    rolled_up = [issue.rolled_up for issue in issues if issue.rolled_up is not None]
    blends = [(issue.blend, issue.report.pairs) for issue in issues if issue.blend is not None]
    return TierTurn(
        issues[0].tier,
        _merge_reports([issue.report for issue in issues]),
        _merge_batches(batches) if batches else None,
        tuple(chain.from_iterable(issue.moves for issue in issues))[:MAX_MOVES],
        tuple(chain.from_iterable(issue.scores for issue in issues)),
        _merge_scores(rolled_up) if rolled_up else None,
        _merge_blends(blends) if blends else None,
    )


def _merge_reports(reports: Sequence[PredictorReport]) -> PredictorReport:
    names = ("rows", "pairs", "forecasts", "scores", "failed_fits", "drifted")
    sums = {name: sum(getattr(report, name) for report in reports) for name in names}
    chosen: Counter[str] = Counter()
    for report in reports:
        chosen.update(report.chosen)
    installed = tuple(chain.from_iterable(report.installed for report in reports))
    return PredictorReport(reports[0].now, installed=installed, chosen=chosen, **sums)


def _merge_batches(batches: Sequence[ForecastBatch]) -> ForecastBatch:
    trusts = [batch.trusts for batch in batches]
    return replace(
        batches[0],
        subjects=tuple(chain.from_iterable(batch.subjects for batch in batches)),
        chosen=b"".join(batch.chosen for batch in batches),
        quantiles=b"".join(batch.quantiles for batch in batches),
        activity=b"".join(batch.activity for batch in batches),
        trusts=TrustArrays(
            b"".join(one.horizon_s for one in trusts), b"".join(one.doubts for one in trusts), trusts[0].allowed
        ),
    )


def _merge_scores(batches: Sequence[ScoreBatch]) -> ScoreBatch:
    """Rows of single subjects stay as they are; the last, of all together, are means weighted by their counts."""
    counts = [np.frombuffer(batch.count, "<u4").reshape(batch.shape) for batch in batches]
    count = np.concatenate([*(one[:-1] for one in counts), sum(one[-1:].astype(np.uint64) for one in counts)])
    merged = {"count": count.astype("<u4").tobytes()}
    for name in ("pinball", "covered"):
        means = [np.frombuffer(getattr(batch, name), "<f4").reshape(batch.shape) for batch in batches]
        total = sum(np.nan_to_num(mean[-1:].astype(float)) * of[-1:] for mean, of in zip(means, counts, strict=True))
        whole = np.where(count[-1:] > 0, total / np.maximum(count[-1:], 1), np.nan)
        merged[name] = np.concatenate([*(mean[:-1] for mean in means), whole]).astype("<f4").tobytes()
    own = chain.from_iterable(batch.subjects[:-1] for batch in batches)
    return replace(batches[0], subjects=(*own, batches[0].subjects[-1]), **merged)  # type: ignore[arg-type]


def _merge_blends(blends: Sequence[tuple[BlendReport, int]]) -> BlendReport:
    whole = max(1, sum(pairs for _, pairs in blends))
    shares = {name: sum(one.shares[name] * pairs for one, pairs in blends) / whole for name in blends[0][0].shares}
    return replace(blends[0][0], shares=shares)
