"""Seeded traffic as data: who asks what of whom and when. Pure: the same seed always gives the same schedule.

Time runs in cycles of one period. Every cycle holds one surge of one client (in a crowd: of all) towards one service,
at the same phase with a little jitter. Warm-up cycles come first, then one segment of cycles for each policy. All
segments get the same random draws (so that policies are compared on equal traffic), which differ from the warm-up's;
period and phase never break.
"""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cpdb import MBIT
from forepath.demo.layout import LabLayout

# crowd: a surge of all clients that needs more CPU than one machine can have, beside a small stream.
SCENARIOS = ("surge", "calm", "crowd")
WIRE_OVERHEAD_BYTES = 42  # Ethernet, IP and UDP headers of a datagram
WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class Phases:
    """How many cycles of warm-up, then how many for each policy; `tail_s` of quiet traffic at the very end."""

    warmup_cycles: int = 4
    cycles: int = 2
    policies: tuple[str, ...] = ("static", "reactive", "predictive")
    tail_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: sent at `at_s` after the start, `bytes` of body, `cpu_ms` of work for the VM that serves it."""

    at_s: float
    service: str
    bytes: int
    cpu_ms: float
    surge: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """Datagrams of `datagram_bytes` to a service; `rates` are (from this second on, bytes/s on the wire) steps."""

    client: str
    service: str
    port: int
    datagram_bytes: int
    end_s: float
    rates: tuple[tuple[float, float], ...]

    def rate_at(self, second: float) -> float:
        """Return the rate in bytes/s on the wire at `second` after the start; 0 outside the stream's time."""
        if not self.rates or not self.rates[0][0] <= second < self.end_s:
            return 0.0
        return next(rate for since, rate in reversed(self.rates) if since <= second)

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """Return the payload bytes that the stream offers in [start_s, end_s), counted by whole seconds."""
        on_wire = sum(self.rate_at(second) for second in range(round(start_s), round(end_s)))
        return on_wire * self.datagram_bytes / (self.datagram_bytes + WIRE_OVERHEAD_BYTES)


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """One surge: `client` to `service` in [start_s, end_s) of `segment`."""

    segment: str
    start_s: float
    end_s: float
    client: str
    service: str


@dataclass(frozen=True, slots=True)
class PolicySegment:
    """The part of the time that belongs to one policy (or to the warm-up)."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Character:
    """What the seed decides about the surge, the same for the whole schedule. `rate` is requests/s at full surge."""

    period_s: float
    phase_s: float
    surge_s: float
    client: str
    service: str
    rate: float
    request_bytes: int
    surge_cores: float
    base_rates: dict[tuple[str, str], float]
    stream_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that the clients will do, in seconds after a common start."""

    seed: int
    scenario: str
    period_s: float
    duration_s: float
    addresses: dict[str, str]
    requests: dict[str, tuple[Request, ...]]
    streams: tuple[Stream, ...]
    windows: tuple[JudgedWindow, ...]
    segments: tuple[PolicySegment, ...]
    character: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the schedule as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> "Schedule":
        """Read what `save` wrote."""
        data = json.loads(path.read_text())
        data["requests"] = {c: tuple(Request(**r) for r in rows) for c, rows in data["requests"].items()}
        data["streams"] = tuple(
            Stream(**{**s, "rates": tuple((at, rate) for at, rate in s["rates"])}) for s in data["streams"]
        )
        data["windows"] = tuple(JudgedWindow(**w) for w in data["windows"])
        data["segments"] = tuple(PolicySegment(**s) for s in data["segments"])
        return Schedule(**data)


# What one request costs a VM before any work is done for it: connection set-up and 24-40 KB through an emulated network
# card (measured: 7.3 ms for 32 KB, 4.5 ms for 8 KB).
_FIXED_MS, _MS_PER_KB = 3.6, 0.115
# Nominal CPU of a full surge at the guest's best speed. Beside its neighbours and with the base load a VM uses a third
# more: 0.40 to 0.45 (measured).
_SURGE_CORES = (0.29, 0.33)
# That of a crowd; the most that a machine may have is 0.6.
_CROWD_CORES = (0.72, 0.80)
_CROWD_STREAM_SHARE = 0.3
_SURGE_RAMP_S = 0.6


def _character(rng: random.Random, layout: LabLayout) -> Character:
    period_s, surge_s = rng.uniform(28.0, 34.0), rng.uniform(9.0, 11.0)
    offered = rng.uniform(4.8, 5.6) * MBIT
    rate = rng.uniform(max(15.0, offered / 40_000), min(22.0, offered / 24_000))
    clients = [client.name for client in layout.clients[:3]]
    services = [service.name for service in layout.services if service.priority > 0]
    return Character(
        period_s=period_s,
        phase_s=rng.uniform(0.40 * period_s, min(0.58 * period_s, period_s - surge_s - 1.5)),
        surge_s=surge_s,
        client=rng.choice(clients),
        service=rng.choice(services),
        rate=rate,
        request_bytes=int(offered / rate),
        surge_cores=rng.uniform(*_SURGE_CORES),
        base_rates={(c, s): rng.uniform(0.4, 1.0) for c in clients for s in services},
        stream_bytes_per_s=rng.uniform(8.2, 8.8) * MBIT,
    )


def _crowded(character: Character, rng: random.Random) -> Character:
    """The same surge as that of a crowd: it takes more CPU, and has more room on its way."""
    stream = _CROWD_STREAM_SHARE * character.stream_bytes_per_s
    return replace(character, surge_cores=rng.uniform(*_CROWD_CORES), stream_bytes_per_s=stream)


def _cpu_ms(character: Character, size: int) -> float:
    """Work on top of a request's fixed cost, so that surge requests together need `surge_cores`."""
    whole = 1000.0 * character.surge_cores / character.rate
    spare = max(0.0, whole - _FIXED_MS - _MS_PER_KB * character.request_bytes / 1000)
    return spare * size / character.request_bytes


def nominal_ms(schedule: Schedule) -> dict[str, float]:
    """The same as `request_cpu_s` of all its requests, as settings say it: by connection and by megabyte."""
    sample = next((one for requests in schedule.requests.values() for one in requests if one.bytes), None)
    by_byte = sample.cpu_ms / sample.bytes if sample else 0.0
    return {"cpu_ms_per_connection": _FIXED_MS, "cpu_ms_per_mb": 1e6 * by_byte + 1e3 * _MS_PER_KB}


def request_cpu_s(request: Request) -> float:
    """Return the CPU seconds that a request costs the VM that serves it, receiving it included."""
    return (request.cpu_ms + _FIXED_MS + _MS_PER_KB * request.bytes / 1000) / 1000


def _base(rng: random.Random, character: Character, length_s: float) -> Iterator[tuple[str, Request]]:
    """Poisson arrivals of requests for every interactive pair, from 0 on."""
    for (client, service), rate in character.base_rates.items():
        at = rng.expovariate(rate)
        while at < length_s:
            size = int(character.request_bytes * rng.uniform(0.7, 1.3))
            yield client, Request(at, service, size, _cpu_ms(character, size), False)
            at += rng.expovariate(rate)


def _surge(rng: random.Random, character: Character, start: float, end: float) -> Iterator[Request]:
    """Nearly regular arrivals at the surge's rate, rising over a short ramp."""
    at = start
    while at < end:
        size = int(character.request_bytes * rng.uniform(0.9, 1.1))
        yield Request(at, character.service, size, _cpu_ms(character, size), True)
        ramp = min(1.0, 0.3 + 0.7 * (at - start) / _SURGE_RAMP_S)
        at += rng.uniform(0.8, 1.2) / (character.rate * ramp)


@dataclass(slots=True)
class _Draft:
    requests: list[tuple[str, Request]] = field(default_factory=list)
    windows: list[JudgedWindow] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)


def _segment(rng: random.Random, character: Character, segment: PolicySegment, sources: Sequence[str]) -> _Draft:
    """Draw one segment; its surges come from the `sources` by turns.

    Draws are made relative to its start, so that equal generators give equal segments.
    """
    length = segment.end_s - segment.start_s
    draft = _Draft(requests=list(_base(rng, character, length)))
    wobble = rng.uniform(0.0, 20.0)
    for second in range(0, int(length) + 1, 2):
        share = 1.0 + 0.05 * _triangle((second + wobble) / 20.0)
        draft.rates.append((segment.start_s + second, character.stream_bytes_per_s * share))
    for cycle in range(round(length / character.period_s) if sources else 0):
        start = cycle * character.period_s + character.phase_s + rng.uniform(-0.5, 0.5)
        end = start + character.surge_s
        draft.requests += zip(itertools.cycle(sources), _surge(rng, character, start, end), strict=False)
        span = (segment.start_s + start, segment.start_s + end)
        draft.windows.append(JudgedWindow(segment.name, *span, character.client, character.service))
    draft.requests = [(c, replace(r, at_s=segment.start_s + r.at_s)) for c, r in draft.requests]
    return draft


def _triangle(turns: float) -> float:
    """A wave between -1 and 1 with period 1."""
    return 4.0 * abs(turns % 1.0 - 0.5) - 1.0


def _segments(character: Character, phases: Phases) -> tuple[PolicySegment, ...]:
    warm_end = phases.warmup_cycles * character.period_s
    length = phases.cycles * character.period_s
    rows = [PolicySegment(WARM_UP, 0.0, warm_end)] if phases.warmup_cycles else []
    rows += [
        PolicySegment(name, warm_end + i * length, warm_end + (i + 1) * length)
        for i, name in enumerate(phases.policies)
    ]
    return tuple(rows)


def make_schedule(
    seed: int, scenario: str = "surge", phases: Phases | None = None, layout: LabLayout | None = None
) -> Schedule:
    """Draw a schedule; `calm` is the same traffic without the surges. ValueError for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise ValueError(f"unknown scenario {scenario!r}; known: {', '.join(SCENARIOS)}")
    phases, layout = phases or Phases(), layout or LabLayout()
    character = _character(random.Random(f"{seed} character"), layout)
    if scenario == "crowd":
        character = _crowded(character, random.Random(f"{seed} crowd"))
    clients = [one.name for one in layout.clients[:3]]
    sources = {"surge": [character.client], "calm": [], "crowd": clients}[scenario]
    segments = _segments(character, phases)
    drafts = [
        _segment(random.Random(f"{seed} {'warm-up' if s.name == WARM_UP else 'measured'}"), character, s, sources)
        for s in segments
    ]
    end_s = segments[-1].end_s + phases.tail_s
    requests = sorted((pair for d in drafts for pair in d.requests), key=lambda pair: pair[1].at_s)
    stream = Stream(layout.clients[3].name, "backup", 9, 1200, end_s, tuple(r for d in drafts for r in d.rates))
    return Schedule(
        seed=seed,
        scenario=scenario,
        period_s=character.period_s,
        duration_s=end_s,
        addresses={service.name: service.address for service in layout.services},
        requests={client: tuple(r for name, r in requests if name == client) for client in clients},
        streams=(stream,),
        windows=tuple(w for d in drafts for w in d.windows),
        segments=segments,
        character=_plain(character),
    )


def _plain(character: Character) -> dict[str, Any]:
    """The character as JSON can hold it."""
    plain = asdict(character)
    plain["base_rates"] = {f"{c}->{s}": rate for (c, s), rate in character.base_rates.items()}
    return plain
