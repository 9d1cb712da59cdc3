"""One second of the network: what pairs send, what meters, links and queues let through, and what waits."""

from dataclasses import dataclass, field

import numpy as np

from backtest.whatif.records import Flags, Floats
from backtest.whatif.shares import Crossings, max_min_shares, sum_by
from backtest.whatif.waiting import PATIENCE_S, WaitingLine
from backtest.whatif.wiring import FlowTable, Wiring

# What does not yield to others leaves them this share of a link at least: switches keep room for who answers.
LEAST_SHARE = 0.05
# A link that carries less than this share of its capacity, but for rounding, is not full and drops nothing.
FULL_SHARE = 0.999


@dataclass(frozen=True, slots=True)
class SendOrder:
    """What is asked of the network in one second, by pair: bytes offered anew, and limits (inf: none).

    `streams` do not yield and do not wait: what is not carried at once is lost. `copies` are bytes/s of machines'
    copies over `copy_crossings`; `queued` are the bytes/s that each link keeps for `marked` pairs, 0 without a queue.
    """

    flows: FlowTable
    offered: Floats
    limits: Floats
    streams: Flags
    marked: Flags
    queued: Floats
    copies: Floats
    copy_crossings: Crossings


@dataclass(frozen=True, slots=True)
class SentSecond:
    """What became of it, in bytes: by flow, by pair and by link; `waited_s` is the mean wait of what a pair sent.

    `waiting` is what waits or is given up at the end, `kept` what of it waits on; `entered` is what switches counted,
    `dropped` what full links threw away of streams: what meters at the edge throw away reaches no link.
    """

    by_flow: Floats
    entered: Floats
    sent: Floats
    allowed: Floats
    waiting: Floats
    kept: Floats
    waited_s: Floats
    link_need: Floats
    link_used: Floats
    dropped: Floats


@dataclass(slots=True)
class ReplayNetwork:
    """The state between seconds: bytes of each pair that wait."""

    wiring: Wiring
    pairs: int
    _line: WaitingLine = field(init=False)

    def __post_init__(self) -> None:
        self._line = WaitingLine(self.pairs)

    def carry(self, order: SendOrder) -> SentSecond:
        """One second: streams first, then all others in fair shares; a byte waits `PATIENCE_S` at most."""
        flows, links = order.flows, len(self.wiring.capacities)
        before = self._line.total
        self._line.join(order.offered)
        wanted = np.minimum(self._line.total, order.limits)
        part = np.where(flows.reached, flows.shares, 0.0)
        asked: Floats = wanted[flows.pairs] * part
        flood = order.streams[flows.pairs]
        anew: Floats = np.minimum(order.offered, order.limits)[flows.pairs] * part
        by_flow = self._flooded(flows, np.where(flood, asked, 0.0), np.where(flood, 0.0, anew))
        left = np.maximum(self.wiring.capacities - flows.crossings.load(by_flow, links), 0.0)
        by_flow, copied = self._shared(order, np.where(flood, 0.0, asked), by_flow, left)
        used = flows.crossings.load(by_flow, links) + copied
        sent = sum_by(flows.pairs, by_flow, self.pairs)
        waiting, waited_s = self._served(order, before, sent)
        need = flows.crossings.load(anew, links) + order.copy_crossings.load(order.copies, links)
        allowed = self._allowed(order, by_flow, used)
        # Streams are counted before their meters; others send no more than gets through.
        entered = np.where(flood, order.offered[flows.pairs] * flows.shares, by_flow)
        dropped = flows.crossings.load(np.where(flood, np.maximum(asked - by_flow, 0.0), 0.0), links)
        dropped[used < FULL_SHARE * self.wiring.capacities] = 0.0
        return SentSecond(by_flow, entered, sent, allowed, waiting, self._line.total, waited_s, need, used, dropped)

    def _flooded(self, flows: FlowTable, asked: Floats, beside: Floats) -> Floats:
        """What passes of streams: a full link drops of all that arrives the same share, whoever has sent it."""
        capacities = self.wiring.capacities
        load, others = (flows.crossings.load(one, len(capacities)) for one in (asked, beside))
        share = np.minimum(1.0 - LEAST_SHARE, load / np.maximum(load + others, 1e-9))
        room = np.where(np.isfinite(capacities), capacities * share, np.inf)
        passed = np.where(load > room, room / np.maximum(load, 1e-9), 1.0)
        return np.asarray(asked * np.minimum(flows.crossings.tightest(passed, len(asked)), 1.0))

    def _shared(self, order: SendOrder, asked: Floats, passed: Floats, left: Floats) -> tuple[Floats, Floats]:
        """By flow what passes, and by link what copies take: pairs and copies share what streams leave."""
        flows, count = order.flows, len(asked)
        crossings = Crossings(
            np.concatenate([flows.crossings.flows, order.copy_crossings.flows + count]),
            np.concatenate([flows.crossings.links, order.copy_crossings.links]),
        )
        demands = np.concatenate([asked, order.copies])
        rates = max_min_shares(demands, crossings, left, self._guaranteed(order, demands, crossings, left))
        return passed + rates[:count], order.copy_crossings.load(rates[count:], len(left))

    def _guaranteed(self, order: SendOrder, demands: Floats, crossings: Crossings, left: Floats) -> Floats | None:
        """What queues keep for marked pairs: their fair shares of the queues alone."""
        if not order.marked.any() or not order.queued.any():
            return None
        marked = np.zeros(len(demands), dtype=bool)
        marked[: len(order.flows.pairs)] = order.marked[order.flows.pairs]
        queued = order.queued > 0
        through = np.isfinite(crossings.on(queued).tightest(np.zeros(len(left)), len(demands)))
        room = np.where(queued, np.minimum(order.queued, left), left)
        return max_min_shares(np.where(marked & through, demands, 0.0), crossings, room)

    def _served(self, order: SendOrder, before: Floats, sent: Floats) -> tuple[Floats, Floats]:
        """Bytes that wait or are given up at the end, and how long what was sent has waited on average.

        By Little's law: the mean of what waited at both ends of the second, over what left.
        """
        self._line.serve(sent)
        waiting = self._line.total
        self._line.give_up()
        self._line.ages[:, order.streams] = 0.0
        mean = 0.5 * (before + waiting)
        return waiting, np.where(sent > 0, np.minimum(mean / np.maximum(sent, 1e-9), PATIENCE_S), 0.0)

    def _allowed(self, order: SendOrder, by_flow: Floats, used: Floats) -> Floats:
        """What limits and links left each pair: on its way's tightest link all that others did not take."""
        flows = order.flows
        others = np.maximum(self.wiring.capacities - used, 0.0)
        left = np.where(flows.reached, flows.crossings.tightest(others, len(by_flow)) + by_flow, 0.0)
        return np.minimum(order.limits, sum_by(flows.pairs, left, self.pairs))
