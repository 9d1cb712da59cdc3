"""Requests of pairs on their way into machines: the CPU that they cost, and when they have been served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.whatif.machines import WorkedSecond
from backtest.whatif.network import SentSecond
from backtest.whatif.records import Floats, RequestCost
from backtest.whatif.shares import sum_by
from backtest.whatif.waiting import PATIENCE_S
from backtest.whatif.wiring import FlowTable

MS_PER_S, BYTES_PER_MB = 1e3, 1e6


@dataclass(frozen=True, slots=True)
class Delivery:
    """By pair: bytes that were carried and served in a second, and how long they took on average."""

    bytes: Floats
    delay_s: Floats


@dataclass(slots=True)
class RequestLine:
    """State by pair: core-seconds of requests whose bytes still wait, and bytes that wait for a core.

    `per_connection` and `per_byte` are core-seconds by machine, a last 0 for whoever is none.
    """

    per_connection: Floats
    per_byte: Floats
    pairs: int
    _work: Floats = field(init=False)
    _inside: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._work, self._inside = np.zeros(self.pairs), np.zeros(self.pairs)

    @classmethod
    def of(cls, costs: Mapping[str, RequestCost], machines: Sequence[str], pairs: int) -> "RequestLine":
        """Nothing on its way."""
        known = [costs.get(name, RequestCost()) for name in machines]
        connection = [one.cpu_ms_per_connection / MS_PER_S for one in known]
        size = [one.cpu_ms_per_mb / MS_PER_S / BYTES_PER_MB for one in known]
        return cls(np.array([*connection, 0.0]), np.array([*size, 0.0]), pairs)

    def cost(self, flows: FlowTable, offered: Floats, connections: Floats) -> Floats:
        """Core-seconds by flow of what is offered anew."""
        connecting = self.per_connection[flows.vms] * connections[flows.pairs]
        return np.asarray(flows.shares * (connecting + self.per_byte[flows.vms] * offered[flows.pairs]))

    def arrive(self, flows: FlowTable, cost: Floats, sent: SentSecond) -> Floats:
        """Core-seconds that come to each machine with the bytes sent; a request without bytes comes at once."""
        work = self._work + sum_by(flows.pairs, cost, self.pairs)
        every = sent.sent + sent.waiting
        reached = sum_by(flows.pairs, flows.reached * flows.shares, self.pairs)
        arriving = work * np.where(every > 0, sent.sent / np.maximum(every, 1e-9), reached)
        kept = np.where(sent.waiting > 0, sent.kept / np.maximum(sent.waiting, 1e-9), 0.0)
        self._work = (work - arriving) * kept
        machines = len(self.per_byte)
        return sum_by(flows.vms, _part(flows, sent) * arriving[flows.pairs], machines)

    def deliver(self, flows: FlowTable, sent: SentSecond, worked: WorkedSecond) -> Delivery:
        """What is delivered; what costs no CPU is, as soon as it has been carried."""
        costly = (self.per_connection + self.per_byte)[flows.vms] > 0
        part = _part(flows, sent)

        def mean(values: Floats, free: float) -> Floats:
            told = np.where(costly, np.append(values, free)[flows.vms], free)
            return sum_by(flows.pairs, part * told, self.pairs)

        served, lost = np.minimum(mean(worked.served, 1.0), 1.0), mean(worked.lost, 0.0)
        self._inside += sent.sent
        done = self._inside * served
        self._inside *= np.clip(1.0 - served - lost, 0.0, 1.0)
        return Delivery(done, np.minimum(sent.waited_s + mean(worked.waited_s, 0.0), 2 * PATIENCE_S))


def _part(flows: FlowTable, sent: SentSecond) -> Floats:
    """What share of its pair each flow carried; as declared where nothing was."""
    total = sent.sent[flows.pairs]
    return np.where(total > 0, sent.by_flow / np.maximum(total, 1e-9), flows.shares)
