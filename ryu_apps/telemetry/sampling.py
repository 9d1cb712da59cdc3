"""Adds up what sampled packets stand for, whatever brought them, and tells it as rows."""

import socket
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt

import structlog

from cpdb import Batch, FlowKey, ForepathError, SettingsError
from ryu_apps.framework import sleep
from ryu_apps.pacing import RateLimiter
from ryu_apps.telemetry.rows import MAX_GROWTH


class MalformedDatagram(ForepathError):
    """Something that cannot be what it is sent as."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sampled packets of one source and destination, with their bytes: each stands for `rate` of them."""

    source: str
    destination: str
    bytes: int
    rate: int
    opens: bool = False
    input: int = 0
    packets: int = 1


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """What one datagram tells, and how much before it never arrived."""

    packets: Sequence[Sampled]
    lost: int = 0


Decoder = Callable[[bytes, str], SampleBatch]


Seconds = float

# An agent that sends nothing for so long may be dead: its silence is no longer that of the pairs.
ALIVE_S = 30.0
MAX_FLOW_KEYS = 10_000
_REPORT_EVERY_S = 10.0
_log = structlog.get_logger("ryu_apps.telemetry.sampling")


def relative_error(samples: float) -> float:
    """Half the width of the 95 % interval of a row made of so many samples, relative to its value."""
    return 1.96 * sqrt(1 / samples) if samples > 0 else inf


@dataclass(slots=True)
class _Agent:
    """What one agent sent since the last rows."""

    since: Seconds
    heard: Seconds
    totals: dict[FlowKey, list[int]] = field(default_factory=dict)
    rate: int = 0
    gap: bool = False


# The flow key of a sampled packet that came in where an agent is; None for one that is told nowhere
TalkOf = Callable[[Sampled, str], FlowKey | None]


class Sampling:
    """Adds up samples by talk. `refused` counts datagrams of strangers or without sense, `lost` missing ones."""

    def __init__(self, agents: Mapping[str, str], decoder: Decoder, kind: str) -> None:
        """`agents`: address -> name of the switch that sends from there; nobody else is listened to. `kind` is told."""
        self._names, self._decode, self.kind = agents, decoder, kind
        self._agents: dict[str, _Agent] = {}
        self._brake = RateLimiter()
        self.refused = 0
        self.lost = 0

    def take(self, data: bytes, peer: str, talk_of: TalkOf, now: Seconds) -> None:
        """A datagram from `peer`."""
        name = self._names.get(peer)
        if name is None:
            return self._refuse(peer, "not in the list of agents", now)
        try:
            samples = self._decode(data, name)
        except MalformedDatagram as error:
            return self._refuse(peer, str(error), now)
        agent = self._agents.setdefault(name, _Agent(now, now))
        agent.heard = now
        self.lost += samples.lost
        agent.gap |= samples.lost > 0
        for packet in samples.packets:
            talk = talk_of(packet, name)
            # Sources can be made up: there is room for so many at a time.
            if talk is not None and (talk in agent.totals or len(agent.totals) < MAX_FLOW_KEYS):
                total = agent.totals.setdefault(talk, [0, 0, 0])
                total[0] += packet.bytes * packet.rate
                total[1] += packet.packets * packet.rate
                total[2] += packet.rate if packet.opens else 0
            agent.rate = max(agent.rate, packet.rate)
        return None

    def _refuse(self, peer: str, reason: str, now: Seconds) -> None:
        self.refused += 1
        if self._brake.due("refused", _REPORT_EVERY_S, now):
            _log.warning("datagram refused", kind=self.kind, peer=peer, reason=reason, refused_in_all=self.refused)

    def counts(self) -> dict[tuple[str, str], int]:
        """What went wrong so far, by kind and reason."""
        return {("refused", self.kind): self.refused, ("lost", f"{self.kind} datagrams"): self.lost}

    def make_batches(self, now: Seconds) -> list[Batch]:
        """What was sampled since last time, a batch for each agent; silence counts only while nothing was lost."""
        batches = []
        for name, agent in self._agents.items():
            if now <= agent.since or (not agent.totals and now - agent.heard > ALIVE_S):
                continue
            sizes, packets, openings = (
                array("q", [min(row[n], MAX_GROWTH) for row in agent.totals.values()]) for n in range(3)
            )
            batches.append(
                Batch(
                    f"{self.kind}/{name}", now, now - agent.since, list(agent.totals), sizes, packets, openings,
                    sampling=max(agent.rate, 1), complete=not agent.gap and now - agent.heard <= ALIVE_S,
                )
            )  # fmt: skip
            agent.since, agent.totals, agent.gap = now, {}, False
        return batches


_LARGEST = 65536
_BUFFER_BYTES = 4 << 20
# A flood of datagrams must not keep the switches waiting.
_TURN = 32

Take = Callable[[bytes, str, float], None]


def bound(listen: str, section: str) -> socket.socket:
    """A socket that receives on HOST:PORT, as a section of the settings says. Raises SettingsError."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        receiver.bind((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, OverflowError) as error:
        receiver.close()
        raise SettingsError(
            f"controller.{section}.listen = {listen!r}: {error}; name an address of this machine"
        ) from error
    return receiver


def receive(receiver: socket.socket, take: Take) -> None:
    """Hands every datagram to `take(data, address, now)`, for ever."""
    count = 0
    while True:
        data, peer = receiver.recvfrom(_LARGEST)
        take(data, str(peer[0]), time.time())
        count += 1
        if count % _TURN == 0:
            sleep(0)
