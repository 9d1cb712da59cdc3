"""A fluid model of the lab's bottlenecks, for machines that cannot run the real one: shared links, shared CPU.

Requests on a link get what inelastic streams leave over, requests in a VM its CPU, each in the order of their arrival:
shared equally, an overload would delay all of them beyond their patience and none would ever be served, which is worse
than what TCP and a real machine do. It knows nothing of packets: no slow start, no drops, no scheduler. Good for the
loop's logic, not for figures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cpdb import Pair

SUBSTEPS = 10
TIMEOUT_S = 4.0
# A stream that floods a link leaves responsive traffic this share at least.
LEAST_SHARE = 0.05
SECOND_S = 1.0

Key = TypeVar("Key", Pair, str)
Grant = Callable[[Mapping[str, float]], Mapping[str, float]]


@dataclass(slots=True)
class FluidJob:
    """One request on its way: first over the link, then through the VM's CPU."""

    pair: Pair
    vm: str
    scheduled_at: float
    bytes: int
    cpu_s: float
    surge: bool
    bytes_left: float = 0.0
    cpu_left_s: float = 0.0
    latency_s: float | None = None

    def __post_init__(self) -> None:
        self.bytes_left = float(self.bytes)
        self.cpu_left_s = self.cpu_s


@dataclass(frozen=True, slots=True)
class Flow:
    """An inelastic stream: what it offers (bytes/s), and what a meter lets pass."""

    pair: Pair
    vm: str
    offered_bytes_per_s: float
    limit_bytes_per_s: float = float("inf")

    @property
    def passed_bytes_per_s(self) -> float:
        """What goes on after the meter, bytes/s."""
        return min(self.offered_bytes_per_s, self.limit_bytes_per_s)


@dataclass(slots=True)
class Second:
    """What happened in one second."""

    sent_bytes: dict[Pair, float] = field(default_factory=dict)
    connections: dict[Pair, int] = field(default_factory=dict)
    link_bytes: dict[str, float] = field(default_factory=dict)
    link_full: dict[str, bool] = field(default_factory=dict)
    wanted_cores: dict[str, float] = field(default_factory=dict)
    used_cores: dict[str, float] = field(default_factory=dict)
    ended: list[FluidJob] = field(default_factory=list)


class Fluid:
    """The state between seconds: requests in flight. `capacities` are the access links' by host, bytes/s."""

    def __init__(self, capacities: Mapping[str, float]) -> None:
        self._capacities = dict(capacities)
        self._on_link: list[FluidJob] = []
        self._in_vm: list[FluidJob] = []

    def advance(
        self, start: float, arrivals: Iterable[FluidJob], flows: list[Flow], where: Mapping[str, str], grant: Grant
    ) -> Second:
        """One second from `start`: `where` is each VM's host, `grant` turns wanted cores into cores to be had."""
        second = Second()
        waiting = sorted(arrivals, key=lambda job: job.scheduled_at)
        second.wanted_cores = self._wanted(waiting, where)
        second.used_cores = dict.fromkeys(second.wanted_cores, 0.0)
        cores = grant(second.wanted_cores)
        for step in range(SUBSTEPS):
            now = start + (step + 1) * SECOND_S / SUBSTEPS
            while waiting and waiting[0].scheduled_at <= now:
                job = waiting.pop(0)
                self._on_link.append(job)
                second.connections[job.pair] = second.connections.get(job.pair, 0) + 1
            self._send(second, flows, where)
            self._work(second, cores, now)
            self._give_up(second, now)
        for flow in flows:
            _add(second.sent_bytes, flow.pair, flow.offered_bytes_per_s * SECOND_S)
        return second

    def _wanted(self, arrivals: Iterable[FluidJob], where: Mapping[str, str]) -> dict[str, float]:
        wanted = dict.fromkeys(where, 0.0)
        for job in [*self._on_link, *self._in_vm, *arrivals]:
            _add(wanted, job.vm, job.cpu_left_s / SECOND_S)
        return wanted

    def _send(self, second: Second, flows: list[Flow], where: Mapping[str, str]) -> None:
        share_s = SECOND_S / SUBSTEPS
        for host, capacity in self._capacities.items():
            stream = sum(flow.passed_bytes_per_s for flow in flows if where[flow.vm] == host)
            room = max(capacity - stream, LEAST_SHARE * capacity) * share_s
            jobs = [job for job in self._on_link if where[job.vm] == host]
            used = min(stream * share_s, capacity * share_s - room)
            for job, size in _shared(jobs, room, lambda job: job.bytes_left):
                job.bytes_left -= size
                used += size
                _add(second.sent_bytes, job.pair, size)
            _add(second.link_bytes, host, used)
            full = used >= capacity * share_s - 1.0
            second.link_full[host] = second.link_full.get(host, False) or full
        self._in_vm += [job for job in self._on_link if job.bytes_left < 1.0]
        self._on_link = [job for job in self._on_link if job.bytes_left >= 1.0]

    def _work(self, second: Second, cores: Mapping[str, float], now: float) -> None:
        for vm, have in cores.items():
            jobs = [job for job in self._in_vm if job.vm == vm]
            for job, seconds in _shared(jobs, have * SECOND_S / SUBSTEPS, lambda job: job.cpu_left_s):
                job.cpu_left_s -= seconds
                _add(second.used_cores, vm, seconds / SECOND_S)
        for job in self._in_vm:
            if job.cpu_left_s < 1e-9:
                job.latency_s = now - job.scheduled_at
                second.ended.append(job)
        self._in_vm = [job for job in self._in_vm if job.latency_s is None]

    def _give_up(self, second: Second, now: float) -> None:
        for queue in (self._on_link, self._in_vm):
            late = [job for job in queue if now - job.scheduled_at > TIMEOUT_S]
            second.ended += late
            queue[:] = [job for job in queue if job not in late]


def _shared(jobs: list[FluidJob], room: float, need: Callable[[FluidJob], float]) -> Iterator[tuple[FluidJob, float]]:
    """In order of arrival: the first gets what it needs, the next what remains."""
    for job in sorted(jobs, key=lambda one: one.scheduled_at):
        share = min(need(job), room)
        room -= share
        yield job, share


def _add(totals: dict[Key, float], key: Key, amount: float) -> None:
    totals[key] = totals.get(key, 0.0) + amount
