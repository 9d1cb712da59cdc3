"""What switches would have counted in a second, as the controller writes it down."""

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.whatif.records import Floats
from backtest.whatif.shares import Places, sum_by
from backtest.whatif.wiring import FlowTable, Wiring
from cpdb import Batch, FlowKey, LinkLoad, Pair, Seconds, Store

BYTES_PER_PACKET = 1000
OBSERVER = "edge"
STEP_S = 1.0
# How late rows are while telemetry is late, in seconds: more than the orchestrator's guards accept.
LATE_S = 8


@dataclass(frozen=True, slots=True)
class CountedSecond:
    """Bytes that entered the network by flow, new connections by pair so far, and by link bytes carried and lost."""

    flows: FlowTable
    entered: Floats
    connections: Floats
    carried: Floats
    dropped: Floats


@dataclass(slots=True)
class TelemetryWriter:
    """Writes each second's rows, in time or late; connections are counted whole, fractions of them wait."""

    store: Store
    wiring: Wiring
    pairs: Sequence[Pair]
    machines: Sequence[str]
    _said: Floats = field(init=False)
    _table: FlowTable | None = None
    _keys: list[FlowKey] = field(default_factory=list)
    _key_of: Places = field(init=False)
    _pair_of: Places = field(init=False)
    _waiting: deque[tuple[Seconds, Batch, list[LinkLoad]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._said = np.zeros(len(self.pairs))

    def write(self, second: CountedSecond, now: Seconds, late: bool) -> None:
        """Rows of the second that ends at `now`, and of earlier ones whose time has come."""
        self._waiting.append((now + LATE_S if late else now, self._batch(second, now), self._loads(second, now)))
        while self._waiting and self._waiting[0][0] <= now:
            _, batch, loads = self._waiting.popleft()
            self.store.facts.add_batches([batch])
            self.store.facts.add_loads(loads)

    def _batch(self, second: CountedSecond, now: Seconds) -> Batch:
        if second.flows is not self._table:
            self._name(second.flows)
        whole = np.floor(second.connections + 1e-9)
        fresh, self._said = whole - self._said, whole
        size = np.floor(sum_by(self._key_of, second.entered, len(self._keys)) + 1e-6)
        new = fresh[self._pair_of]
        spoke = np.flatnonzero((size > 0) | (new > 0))
        packets = np.ceil(size[spoke] / BYTES_PER_PACKET)
        keys = [self._keys[one] for one in spoke.tolist()]
        sizes, parts, fresh_ones = (
            array("q", one.astype(np.int64).tolist()) for one in (size[spoke], packets, new[spoke])
        )
        return Batch(OBSERVER, now, STEP_S, keys, sizes, parts, fresh_ones, complete=True)

    def _name(self, flows: FlowTable) -> None:
        """Flow keys of a table: where connections are placed one by one, no row names a machine."""
        made: dict[FlowKey, int] = {}
        numbers, pairs = [], []
        for pair, vm, share in zip(flows.pairs.tolist(), flows.vms.tolist(), flows.shares.tolist(), strict=True):
            one, named = self.pairs[pair], share == 1.0 and vm < len(self.machines)
            key = FlowKey(one.source, one.virtual_ip, self.machines[vm] if named else None)
            if key not in made:
                pairs.append(pair)
            numbers.append(made.setdefault(key, len(made)))
        self._table, self._keys = flows, list(made)
        self._key_of, self._pair_of = np.array(numbers, dtype=np.int64), np.array(pairs, dtype=np.int64)

    def _loads(self, second: CountedSecond, now: Seconds) -> list[LinkLoad]:
        """What the ports of switches sent: nobody counts at the other ends."""
        loads = []
        for number in np.flatnonzero(self.wiring.switched).tolist():
            size, lost = second.carried[number], second.dropped[number]
            packets, drops = int(size / BYTES_PER_PACKET), int(lost / BYTES_PER_PACKET)
            loads.append(LinkLoad(*self.wiring.ends[number], now, STEP_S, int(size), packets, drops))
        return loads
