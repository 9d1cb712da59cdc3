"""A shard at work, and copies of it that another process goes on with to the byte."""

import copyreg
import pickle
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import BytesIO
from threading import Thread
from typing import Any, NamedTuple

from pebble import ProcessFuture

from cpdb import Seconds, Store
from predictor.config import PredictorConfig
from predictor.data.parts import SharedFeed
from predictor.data.view import SeriesView
from predictor.models import Model
from predictor.service.cycle import TierTurn
from predictor.service.tiers import Tiers
from predictor.service.workers import FitPool, Fitted

# Copies are compressed by chunks where a sample says that it pays: forecasts, half of them, hardly get smaller.
CHUNK, SAMPLE, PAYS, PLAIN = 1 << 20, 1 << 14, 0.6, b"p"


class TurnNews(NamedTuple):
    """What a turn was told beside rows, and tells again: how often switches renew their counters, what the process for
    fits said each time when asked, and what came of each fit under way (pickled; empty: it failed; None: nothing yet).
    """

    refreshes: Mapping[str, Seconds]
    free: list[bool]
    fits: list[bytes | None]


class PastTurn(NamedTuple):
    """A turn that can be had again, with rows up to the batch `up_to`."""

    now: Seconds
    up_to: int | None
    news: TurnNews


@dataclass(slots=True)
class ShardCopy:
    """All that a shard was after the turn at `now`, in chunks, and its turns since."""

    now: Seconds
    chunks: tuple[bytes, ...]
    turns: list[PastTurn] = field(default_factory=list)

    @property
    def reached(self) -> Seconds:
        """The moment of the last turn."""
        return self.turns[-1].now if self.turns else self.now

    @property
    def size(self) -> int:
        """Bytes, but for a few a turn."""
        return sum(map(len, self.chunks)) + sum(len(fit or b"") for turn in self.turns for fit in turn.news.fits)


@dataclass(slots=True)
class ShardFit:
    """A fit under way: what it is made from, should another process have to begin it again, and who is told of it."""

    task: bytes
    told: "Future[Fitted]"
    answer: "Future[Fitted] | None" = None

    def ended(self) -> bytes | None:
        """What has come of it by now, see TurnNews."""
        if self.answer is None or not self.answer.done():
            return None
        return b"" if self.answer.exception() else pickle.dumps(self.answer.result())


class ShardFits(FitPool):
    """The process for fits as a shard sees it: told when a turn begins, or told again."""

    def __init__(self, pool: FitPool | None) -> None:
        self._of_all = pool
        self._under_way: list[ShardFit] = []
        self._again: TurnNews | None = None
        self.news = TurnNews({}, [], [])

    def begin(self, again: TurnNews | None) -> None:
        """A turn begins, or one that was before."""
        told = [fit.ended() for fit in self._under_way] if again is None else again.fits
        self._again, self.news = again, TurnNews({}, [], told)
        for fit, outcome in zip(self._under_way, told, strict=True):
            if outcome:
                fit.told.set_result(pickle.loads(outcome))
            elif outcome is not None:
                fit.told.set_exception((fit.answer and fit.answer.exception()) or RuntimeError("as it did before"))
        self._under_way = [fit for fit in self._under_way if not fit.told.done()]

    @property
    def free(self) -> bool:
        """See FitPool."""
        assert self._of_all is not None
        said = self._of_all.free if self._again is None else self._again.free[len(self.news.free)]
        self.news.free.append(said)
        return said

    def schedule(self, model: Model, view: SeriesView, cpu_budget_s: float) -> "Future[Fitted]":
        """See FitPool; in a turn that was before nothing begins, as it may have ended since."""
        self._under_way.append(ShardFit(pickle.dumps((model, view, cpu_budget_s)), Future()))
        if self._again is None:
            self.go_on()
        return self._under_way[-1].told

    def go_on(self) -> None:
        """Begins what should be under way."""
        for fit in self._under_way:
            if fit.answer is None and self._of_all is not None:
                fit.answer = self._of_all.schedule(*pickle.loads(fit.task))

    def close(self) -> None:
        """Nothing: it is others' too."""


class HeldShard:
    """A shard in this process. `last` is the moment of its last turn, None when something was done to it since."""

    def __init__(self, config: PredictorConfig, feed: SharedFeed, pool: FitPool | None) -> None:
        self.number, self._feed, self.fits = config.shard, feed, ShardFits(pool)
        self.tiers = Tiers(config, self.fits if pool else False, only=(), feed=feed.part(config.shard))
        self.last: Seconds | None = None

    def turn(self, store: Store, now: Seconds, again: TurnNews | None = None) -> tuple[TierTurn, ...]:
        """What its tiers say, or said. Raises StoreError."""
        self.last = None
        self.fits.begin(again)
        issues = tuple(self.tiers.turns(store, now, None if again is None else again.refreshes))
        self.last = now
        return issues

    def packed(self, most: int) -> tuple[bytes, ...]:
        """All of it in chunks, none where it takes more than `most` bytes or a model cannot be pickled."""
        file = _Bounded()
        file.most = 4 * most  # more than what copies shrink by
        try:
            _Pickler(file, protocol=5).dump((self, self._feed.named, self._feed.keys_of(self.number)))
        except (OverflowError, pickle.PicklingError, TypeError, AttributeError):
            return ()
        whole = file.getbuffer()
        chunks = tuple(_packed(whole[begin : begin + CHUNK]) for begin in range(0, len(whole), CHUNK))
        return chunks if sum(map(len, chunks)) <= most else ()


def resumed(copy: ShardCopy, store: Store, feed: SharedFeed, pool: FitPool | None) -> HeldShard:
    """What was packed, after all its turns since. Raises StoreError, and ValueError where flow keys are others."""
    chunks = (chunk[1:] if chunk.startswith(PLAIN) else zlib.decompress(chunk) for chunk in copy.chunks)
    unpickler = _Unpickler(BytesIO(b"".join(chunks)))
    unpickler.outside = {"feed": feed, "pool": pool}
    shard: HeldShard
    shard, named, keys = unpickler.load()
    feed.name(store, named)
    if not keys.items() <= feed.keys_of(shard.number).items():
        raise ValueError("flow keys are numbered otherwise here")
    for turn in copy.turns:
        feed.begin(turn.up_to)
        shard.turn(store, turn.now, turn.news)
    shard.fits.go_on()
    return shard


class _Bounded(BytesIO):
    most: int

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.most:
            raise OverflowError
        return super().write(data)


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> str | None:
        if isinstance(thing, Thread | ProcessFuture):
            return "nothing"
        return "feed" if isinstance(thing, SharedFeed) else "pool" if type(thing) is FitPool else None

    def reducer_override(self, thing: Any) -> Any:
        """Models leave at home what a fit has no use for: here all goes but views, which they get anew in each turn."""
        if isinstance(thing, Future):
            return Future, ()  # nobody knows yet what comes of it
        if not hasattr(type(thing), "replayable"):
            return NotImplemented
        kept = {name: None if isinstance(value, SeriesView) else value for name, value in vars(thing).items()}
        return copyreg.__newobj__, (type(thing),), kept  # type: ignore[attr-defined]


class _Unpickler(pickle.Unpickler):
    outside: Mapping[str, object]

    def persistent_load(self, name: str) -> object:
        return self.outside.get(name)


def _packed(chunk: memoryview) -> bytes:
    pays = len(zlib.compress(chunk[:SAMPLE], 1)) < PAYS * len(chunk[:SAMPLE])
    return zlib.compress(chunk, 1) if pays else PLAIN + chunk
