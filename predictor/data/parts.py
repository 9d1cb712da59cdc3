"""Gives each shard of the pairs its part of what the store holds, while the store is read once for all shards here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from zlib import crc32

import numpy as np

from cpdb import FlowKey, Pair, Seconds, Store, StoredBatch
from predictor.data.view import Ints

NOBODY = -1


def shard_of(pair: Pair | FlowKey, shards: int) -> int:
    """The shard of a pair, or of a flow key's pair, among `shards`: the same in every process and on every machine."""
    return crc32(f"{pair.source}\t{pair.virtual_ip}".encode()) % shards


class Feed(Protocol):
    """Where series of communications get their batches from."""

    def batches(self, store: Store, after_id: int, since: Seconds) -> Sequence[StoredBatch]:
        """What was written after the batch `after_id`, with t > `since`. Raises StoreError."""

    def flow_keys(self, store: Store) -> Mapping[int, FlowKey]:
        """Flow keys by the numbers that these batches call them by, from 1 on. Raises StoreError."""

    def owns(self, pair: Pair) -> bool:
        """Whether a pair is of this feed."""


class WholeFeed:
    """Everything, as the store has it."""

    def batches(self, store: Store, after_id: int, since: Seconds) -> Sequence[StoredBatch]:
        """See Feed."""
        return store.facts.batches(after_id, since)

    def flow_keys(self, store: Store) -> Mapping[int, FlowKey]:
        """See Feed."""
        return store.facts.flow_keys()

    def owns(self, _pair: Pair) -> bool:
        """See Feed."""
        return True


WHOLE = WholeFeed()


@dataclass(frozen=True, slots=True)
class SplitBatch:
    """A batch whose rows lie shard by shard, each in the order in which it had them."""

    batch: StoredBatch
    begins: Ints

    def part(self, shard: int) -> StoredBatch:
        """Rows of one shard, maybe none: that it says nothing of anybody may be news as well."""
        rows, whole = slice(self.begins[shard], self.begins[shard + 1]), self.batch
        return replace(
            whole,
            key_ids=whole.key_ids[rows],
            bytes=whole.bytes[rows],
            packets=whole.packets[rows],
            connections=whole.connections[rows],
            flags=None if whole.flags is None else whole.flags[rows],
        )


@dataclass(slots=True)
class SharedFeed:
    """What all shards in one process read, once for all that ask for the same. Call `begin` before each turn."""

    shards: int
    _up_to: int | None = None
    _read: dict[object, list[SplitBatch]] = field(default_factory=dict)
    # By number of the flow key: its shard, and what it is called there
    _shard: Ints = field(default_factory=lambda: np.full(1, NOBODY, dtype=np.int32))
    _local: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.uint32))
    _keys: list[dict[int, FlowKey]] = field(init=False)

    def __post_init__(self) -> None:
        self._keys = [{} for _ in range(self.shards)]

    def begin(self, up_to: int | None = None) -> None:
        """A new turn, in which everybody reads as far as the batch `up_to` (None: as far as there is)."""
        self._read.clear()
        self._up_to = up_to

    def part(self, shard: int) -> "ShardFeed":
        """The feed of one shard."""
        return ShardFeed(self, shard)

    def split(self, store: Store, after_id: int, since: Seconds) -> list[SplitBatch]:
        """The batches that are asked for, read anew only when nobody has asked for them in this turn."""
        asked = after_id, since
        if asked not in self._read:
            found = store.facts.batches(after_id, since)
            most = max((int(np.asarray(batch.key_ids).max(initial=0)) for batch in found), default=0)
            self.name(store, most)
            fresh = [batch for batch in found if self._up_to is None or batch.id <= self._up_to]
            self._read[asked] = [self._split(batch) for batch in fresh]
        return self._read[asked]

    def keys_of(self, shard: int) -> Mapping[int, FlowKey]:
        """Flow keys of one shard by what they are called there."""
        return self._keys[shard]

    @property
    def named(self) -> int:
        """Up to which number flow keys have been given to shards."""
        return len(self._shard) - 1

    def name(self, store: Store, most: int) -> None:
        """Gives flow keys up to a number to their shards. Raises StoreError."""
        begin = len(self._shard)
        if most < begin:
            return
        known = store.facts.flow_keys()
        shard = np.full(most + 1 - begin, NOBODY, dtype=np.int32)
        local = np.zeros(most + 1 - begin, dtype=np.uint32)
        for place, number in enumerate(range(begin, most + 1)):
            if (flow_key := known.get(number)) is not None:
                shard[place] = shard_of(flow_key, self.shards)
                own = self._keys[shard[place]]
                local[place] = len(own) + 1
                own[len(own) + 1] = flow_key
        self._shard, self._local = np.concatenate([self._shard, shard]), np.concatenate([self._local, local])

    def _split(self, batch: StoredBatch) -> SplitBatch:
        numbers = np.asarray(batch.key_ids)
        shard = self._shard[numbers]
        order = np.argsort(shard, kind="stable")
        begins = np.searchsorted(shard[order], np.arange(self.shards + 1)).astype(np.int64)
        columns = {
            name: None if column is None else np.asarray(column)[order]
            for name, column in (
                ("bytes", batch.bytes), ("packets", batch.packets), ("connections", batch.connections),
                ("flags", batch.flags),
            )
        }  # fmt: skip
        return SplitBatch(replace(batch, key_ids=self._local[numbers][order], **columns), begins)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ShardFeed:
    """One shard's part of a shared feed."""

    shared: SharedFeed
    shard: int

    def batches(self, store: Store, after_id: int, since: Seconds) -> Sequence[StoredBatch]:
        """See Feed."""
        return [split.part(self.shard) for split in self.shared.split(store, after_id, since)]

    def flow_keys(self, _store: Store) -> Mapping[int, FlowKey]:
        """See Feed."""
        return self.shared.keys_of(self.shard)

    def owns(self, pair: Pair) -> bool:
        """See Feed."""
        return shard_of(pair, self.shared.shards) == self.shard
