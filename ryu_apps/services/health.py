"""Whether destinations live: asked again and again, at once where something speaks against them, and damped.

A silence is short: who does not answer within what its answers usually take is asked again, so that three silences fit
into a second. Evidence from elsewhere - its port went down, packets go to it and none comes back - is no verdict: it is
asked at once, and one more silence decides.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from cpdb import HealthStatus
from ryu_apps.settings import ProbesSection

Seconds = float

# Whoever has not said anything yet is asked this often.
FIRST_EVERY_S = 0.5
# All destinations together are asked no oftener than this; with more of them, each waits longer.
MAX_QUESTIONS_PER_S = 200.0
# Looking through so many costs so much; those who look again wait accordingly.
LOOK_S = 5e-5
# An answer may take as long as answers take, bounded: a busy guest is slow, a network is not.
SHORTEST_WAIT_S, LONGEST_WAIT_S, FIRST_WAIT_S = 0.15, 1.0, 0.3
# When nobody looked for so long, the controller was busy, and silence meanwhile says nothing about anybody.
STALL_S = 1.0
# Questions come earlier or later by up to this share of their period, so that they do not come together.
JITTER = 0.1
# Each fall within this time doubles the answers that it takes to come back, up to 2 to the power of so many.
FLAPS_S = 300.0
MAX_DOUBLINGS = 7


class ProbeTarget(NamedTuple):
    """Who is asked, and how: `port` None asks by ARP, a number by opening a TCP connection as `virtual_ip`.

    `http` is what is asked for on it, "" for nothing.
    """

    address: str
    mac: str
    port: int | None = None
    virtual_ip: str = ""
    http: str = ""


@dataclass(slots=True)
class _AnswerTime:
    """How long answers take: mean and deviation as TCP keeps them (RFC 6298, 2)."""

    mean_s: Seconds | None = None
    deviation_s: Seconds = 0.0

    def add(self, took_s: Seconds) -> None:
        """One more answer."""
        if self.mean_s is None:
            self.mean_s, self.deviation_s = took_s, took_s / 2
            return
        self.deviation_s += (abs(self.mean_s - took_s) - self.deviation_s) / 4
        self.mean_s += (took_s - self.mean_s) / 8

    @property
    def wait_s(self) -> Seconds:
        """After how long without an answer it is a silence."""
        if self.mean_s is None:
            return FIRST_WAIT_S
        return min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, self.mean_s + 4 * self.deviation_s))


@dataclass(slots=True)
class _TargetState:
    status: HealthStatus = HealthStatus.UNKNOWN
    since: Seconds = 0.0
    asked: Seconds = float("-inf")
    waiting: bool = False
    failures: int = 0
    successes: int = 0
    falls: deque[Seconds] = field(default_factory=deque)
    ever_up: bool = False
    suspected: bool = False
    # How much longer than usual this time
    stretch: float = 1.0
    answer_time: _AnswerTime = field(default_factory=_AnswerTime)
    # When something of it was last heard or counted, whatever it was
    alive_at: Seconds = float("-inf")


class Health:
    """The state of each target that is asked."""

    def __init__(self, probes: ProbesSection | None = None) -> None:
        self._probes = probes or ProbesSection()
        self._states: dict[ProbeTarget, _TargetState] = {}
        self._looked = float("-inf")
        # Another number whenever the state of a target has changed
        self.revision = 0
        # Whom `due` looked at last, and before when nobody of them is to be asked again
        self._targets: Collection[ProbeTarget] = ()
        self._next = float("-inf")

    def status(self, target: ProbeTarget) -> HealthStatus:
        """What is known of it."""
        state = self._states.get(target)
        return state.status if state else HealthStatus.UNKNOWN

    def ever_up(self, target: ProbeTarget) -> bool:
        """Whether it has answered since it is asked."""
        state = self._states.get(target)
        return state is not None and state.ever_up

    def down_for(self, target: ProbeTarget, now: Seconds) -> Seconds:
        """How long it has been down and nothing of it was counted; 0 when it is not."""
        state = self._states.get(target)
        if state is None or state.status is not HealthStatus.DOWN:
            return 0.0
        return max(0.0, now - max(state.since, state.alive_at))

    def suspect(self, target: ProbeTarget) -> None:
        """Something speaks against it: it is asked at once, and its next silence decides."""
        state = self._states.get(target)
        if state is not None and state.status is HealthStatus.UP and not state.suspected:
            state.suspected, state.failures = True, max(state.failures, self._probes.failures - 1)
            # A question that it may have answered before it died is not waited for.
            state.asked, state.waiting = float("-inf"), False
            self._next = float("-inf")

    def spoke(self, target: ProbeTarget, now: Seconds) -> None:
        """Something came from it, though perhaps no answer: who holds on to it need not let go."""
        state = self._states.get(target)
        if state is not None:
            state.alive_at = now

    def due(
        self, targets: Collection[ProbeTarget], reachable: Collection[ProbeTarget], now: Seconds
    ) -> list[ProbeTarget]:
        """Whom to ask now; what was asked before and is still unanswered counts as a failure.

        A target that nobody has seen yet (not `reachable`) is not blamed before it has answered once.
        """
        for gone in self._states.keys() - set(targets):
            del self._states[gone]
            self.revision += 1
        every_s = max(self._probes.every_s, len(targets) / MAX_QUESTIONS_PER_S)
        stalled = now - self._looked > STALL_S
        ready = []
        for target in targets:
            state = self._states.setdefault(target, _TargetState(since=now))
            state.waiting &= not stalled
            if now - state.asked >= self._period(state, every_s):
                ready.append((not state.failures, state.asked, target))
        # More answers at once than a switch keeps for a busy controller would look like deaths: the rest come next.
        room = max(1, int(MAX_QUESTIONS_PER_S * min(now - self._looked, FIRST_EVERY_S)))
        self._looked = now
        if len(ready) > room:
            ready = sorted(ready, key=itemgetter(0, 1))[:room]
        for *_, target in ready:
            self._ask(target, target in reachable, now)
        self._targets = targets
        times = (one.asked + self._period(one, every_s) for one in self._states.values())
        self._next = max(min(times, default=now), now + LOOK_S * len(targets))
        return [target for *_, target in ready]

    def _ask(self, target: ProbeTarget, reachable: bool, now: Seconds) -> None:
        state = self._states[target]
        # Of somebody known who is nowhere any more there is nothing to wait for.
        nowhere = state.suspected and not reachable
        if (state.waiting or nowhere) and (state.status is not HealthStatus.UNKNOWN or reachable):
            self.answered(target, False, now)
        state.asked, state.waiting, state.stretch = now, True, 1 + JITTER * _phase(target, now)

    @staticmethod
    def _period(state: _TargetState, every_s: Seconds) -> Seconds:
        if state.status is HealthStatus.UNKNOWN:
            return min(FIRST_EVERY_S, every_s)
        if state.status is HealthStatus.UP and state.waiting:
            return min(every_s, state.answer_time.wait_s)
        return every_s * state.stretch

    def anybody_due(self, targets: Collection[ProbeTarget], now: Seconds) -> bool:
        """Whether `due` has anything to do."""
        return targets is not self._targets or now >= self._next

    def answered(self, target: ProbeTarget, well: bool, now: Seconds) -> None:
        """An answer came, or a refusal, or (from `due`) nothing."""
        state = self._states.get(target)
        if state is None:
            return
        if well and state.waiting and not state.failures:
            # Of a question that was repeated nobody knows which one was answered (Karn).
            state.answer_time.add(now - state.asked)
        state.waiting = False
        if well:
            state.alive_at, state.suspected = now, False
        state.failures, state.successes = (0, state.successes + 1) if well else (state.failures + 1, 0)
        if well and state.status is not HealthStatus.UP and state.successes >= self._needed(state, now):
            state.status, state.since, state.ever_up = HealthStatus.UP, now, True
            self.revision += 1
        elif not well and state.status is not HealthStatus.DOWN and state.failures >= self._probes.failures:
            if state.status is HealthStatus.UP:
                state.falls.append(now)
            state.status, state.since, state.suspected = HealthStatus.DOWN, now, False
            self.revision += 1

    def _needed(self, state: _TargetState, now: Seconds) -> int:
        """Answers in a row that it takes: one for whoever is new, more for whoever fell, and fell again."""
        while state.falls and now - state.falls[0] > FLAPS_S:
            state.falls.popleft()
        if not state.ever_up:
            return 1
        return int(self._probes.successes << min(max(0, len(state.falls) - 1), MAX_DOUBLINGS))


def _phase(target: ProbeTarget, asked: Seconds) -> float:
    """A number from -1 to 1, another one for each target and question, the same in every run."""
    digest = blake2b(f"{target.address}/{target.port}/{asked:.3f}".encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") / 32767.5 - 1.0


def port_of(probe: str) -> int | None:
    """The port of "tcp:PORT" and "http:PORT/PATH"; None for every other way to ask."""
    kind, _, rest = probe.partition(":")
    port = rest.partition("/")[0]
    return int(port) if kind in ("tcp", "http") and port.isdigit() else None


def targets_of(probe: str, virtual_ip: str, ends: Iterable[tuple[str, str]]) -> list[ProbeTarget]:
    """Targets for destinations given as (address, MAC); [] when nobody is to be asked."""
    if probe == "none":
        return []
    port = port_of(probe)
    if port is None:
        # By ARP, one question serves all virtual IPs with that destination.
        return [ProbeTarget(address, mac) for address, mac in ends]
    _, slash, path = probe.partition("/")
    return [ProbeTarget(address, mac, port, virtual_ip, slash + path) for address, mac in ends]
