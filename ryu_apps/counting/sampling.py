"""Rows from sampled packets, for switches whose own counters are too slow: sFlow agents that are known by address.

Each sampled packet stands for N. With c samples in a row its bytes are right within about 1.96 * sqrt(1 / c) of their
value, 19 times out of 20 (P. Phaal and S. Panchen, "Packet Sampling Basics", sFlow.org): c = packets / sampling.
"""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, sqrt

import structlog

from cpdb import Batch, Talk
from ryu_apps.counting.accounting import MOST_GROWTH
from ryu_apps.counting.sflow import Datagram, MalformedDatagram, decode
from ryu_apps.pacing import RateLimiter

Seconds = float

# An agent that sends nothing for so long may be dead: its silence is no longer that of the pairs.
ALIVE_S = 30.0
MOST_TALKS = 10_000
_REPORT_EVERY_S = 10.0
_log = structlog.get_logger("ryu_apps.counting.sampling")


def relative_error(samples: float) -> float:
    """Half the width of the 95 % interval of a row made of so many samples, relative to its value."""
    return 1.96 * sqrt(1 / samples) if samples > 0 else inf


@dataclass(slots=True)
class _Agent:
    """What one agent sent since the last rows."""

    since: Seconds
    heard: Seconds
    totals: dict[Talk, list[int]] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    rate: int = 0
    gap: bool = False


class Sampling:
    """Adds up samples by talk. `refused` counts datagrams of strangers or without sense, `lost` missing ones."""

    def __init__(self, agents: Mapping[str, str]) -> None:
        """`agents`: address -> name of the switch that sends from there; nobody else is listened to."""
        self._names = agents
        self._agents: dict[str, _Agent] = {}
        self._brake = RateLimiter()
        self.refused = 0
        self.lost = 0

    def take(self, data: bytes, peer: str, talk_of: Callable[[str, str], Talk | None], now: Seconds) -> None:
        """A datagram from `peer`. `talk_of(source, destination)` is None for packets that are no communication."""
        name = self._names.get(peer)
        if name is None:
            return self._refuse(peer, "not in the list of agents", now)
        try:
            datagram = decode(data)
        except MalformedDatagram as error:
            return self._refuse(peer, str(error), now)
        agent = self._agents.setdefault(name, _Agent(now, now))
        agent.heard = now
        self._count(agent, datagram)
        for packet in datagram.packets:
            talk = talk_of(packet.source, packet.destination)
            # Sources can be made up: there is room for so many at a time.
            if talk is not None and (talk in agent.totals or len(agent.totals) < MOST_TALKS):
                total = agent.totals.setdefault(talk, [0, 0, 0])
                total[0] += packet.bytes * packet.rate
                total[1] += packet.rate
                total[2] += packet.rate if packet.opens else 0
            agent.rate = max(agent.rate, packet.rate)
        return None

    def _count(self, agent: _Agent, datagram: Datagram) -> None:
        before = agent.sequences.get(datagram.sub_agent)
        agent.sequences[datagram.sub_agent] = datagram.sequence
        missing = datagram.sequence - before - 1 if before is not None else 0
        # A restarted agent counts from the beginning.
        if missing > 0:
            self.lost += missing
            agent.gap = True

    def _refuse(self, peer: str, reason: str, now: Seconds) -> None:
        self.refused += 1
        if self._brake.due("refused", _REPORT_EVERY_S, now):
            _log.warning("sFlow datagram refused", peer=peer, reason=reason, refused_in_all=self.refused)

    def tell(self, now: Seconds) -> list[Batch]:
        """What was sampled since last time, a batch for each agent; silence counts only while nothing was lost."""
        batches = []
        for name, agent in self._agents.items():
            if now <= agent.since or (not agent.totals and now - agent.heard > ALIVE_S):
                continue
            sizes, packets, openings = (
                array("q", [min(row[n], MOST_GROWTH) for row in agent.totals.values()]) for n in range(3)
            )
            batches.append(
                Batch(
                    f"sflow/{name}", now, now - agent.since, list(agent.totals), sizes, packets, openings,
                    sampling=max(agent.rate, 1), complete=not agent.gap and now - agent.heard <= ALIVE_S,
                )
            )  # fmt: skip
            agent.since, agent.totals, agent.gap = now, {}, False
        return batches
