"""Whether destinations live: asked again and again, out after some silence, back after some answers, and damped."""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from cpdb import HealthStatus
from ryu_apps.settings import ProbesSection

Seconds = float

# Whoever has not said anything yet is asked this often.
FIRST_EVERY_S = 0.5
# All destinations together are asked no oftener than this; with more of them, each waits longer.
MAX_QUESTIONS_PER_S = 200.0
# Each fall within this time doubles the answers that it takes to come back, up to 2 to the power of so many.
FLAPS_S = 300.0
MAX_DOUBLINGS = 4


class ProbeTarget(NamedTuple):
    """Who is asked, and how: `port` None asks by ARP, a number by opening a TCP connection as `virtual_ip`."""

    address: str
    mac: str
    port: int | None = None
    virtual_ip: str = ""


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
        """How long it has been down; 0 when it is not."""
        state = self._states.get(target)
        return now - state.since if state and state.status is HealthStatus.DOWN else 0.0

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
        ready = []
        for target in targets:
            state = self._states.setdefault(target, _TargetState(since=now))
            if now - state.asked >= self._period(state, every_s):
                ready.append((state.asked, target))
        # More answers at once than a switch keeps for a busy controller would look like deaths: the rest come next.
        room = max(1, int(MAX_QUESTIONS_PER_S * min(now - self._looked, FIRST_EVERY_S)))
        self._looked = now
        if len(ready) > room:
            ready = sorted(ready, key=itemgetter(0))[:room]
        for _, target in ready:
            state = self._states[target]
            if state.waiting and (state.status is not HealthStatus.UNKNOWN or target in reachable):
                self.answered(target, False, now)
            state.asked, state.waiting = now, True
        self._targets = targets
        self._next = min((one.asked + self._period(one, every_s) for one in self._states.values()), default=now)
        return [target for _, target in ready]

    @staticmethod
    def _period(state: _TargetState, every_s: Seconds) -> Seconds:
        return min(FIRST_EVERY_S, every_s) if state.status is HealthStatus.UNKNOWN else every_s

    def anybody_due(self, targets: Collection[ProbeTarget], now: Seconds) -> bool:
        """Whether `due` has anything to do."""
        return targets is not self._targets or now >= self._next

    def answered(self, target: ProbeTarget, well: bool, now: Seconds) -> None:
        """An answer came, or a refusal, or (from `due`) nothing."""
        state = self._states.get(target)
        if state is None:
            return
        state.waiting = False
        state.failures, state.successes = (0, state.successes + 1) if well else (state.failures + 1, 0)
        if well and state.status is not HealthStatus.UP and state.successes >= self._needed(state, now):
            state.status, state.since, state.ever_up = HealthStatus.UP, now, True
            self.revision += 1
        elif not well and state.status is not HealthStatus.DOWN and state.failures >= self._probes.failures:
            if state.status is HealthStatus.UP:
                state.falls.append(now)
            state.status, state.since = HealthStatus.DOWN, now
            self.revision += 1

    def _needed(self, state: _TargetState, now: Seconds) -> int:
        """Answers in a row that it takes: one for whoever is new, more for whoever fell, and fell again."""
        while state.falls and now - state.falls[0] > FLAPS_S:
            state.falls.popleft()
        if not state.ever_up:
            return 1
        return int(self._probes.successes << min(max(0, len(state.falls) - 1), MAX_DOUBLINGS))


def port_of(probe: str) -> int | None:
    """The port of "tcp:PORT"; None for every other way to ask."""
    kind, _, port = probe.partition(":")
    return int(port) if kind == "tcp" and port.isdigit() else None


def targets_of(probe: str, virtual_ip: str, ends: Iterable[tuple[str, str]]) -> list[ProbeTarget]:
    """Targets for destinations given as (address, MAC); [] when nobody is to be asked."""
    if probe == "none":
        return []
    port = port_of(probe)
    if port is None:
        # By ARP, one question serves all virtual IPs with that destination.
        return [ProbeTarget(address, mac) for address, mac in ends]
    return [ProbeTarget(address, mac, port, virtual_ip) for address, mac in ends]
