"""Hosts and machines of a replay: what hypervisors and pools would do, and what events do to them."""

from collections.abc import Mapping
from math import ceil

import numpy as np

from backtest.whatif.records import EventKind, Floats, OfferedLoad, ReplayScene
from backtest.whatif.shares import Places
from backtest.whatif.switching import SceneState, machine_names
from cpdb import Seconds, Store
from orchestrator import (
    RESTS_AS,
    FakeHypervisors,
    FakePool,
    FakeVm,
    Hypervisors,
    MigrateVm,
    PoolMember,
    PoolSpec,
    Scaling,
    Timing,
    VmAction,
    VmSpec,
)

# How far durations of actions spread where none are known: the standard deviation of their logarithm.
SPREAD = 0.25
# What is decided in the first half of a second holds in all of it, the rest from the next one on.
HALF_S = 0.5


class ReplayStage:
    """Machines are numbered as in `vms`, those that rest in pools too. Times are those of the virtual clock."""

    def __init__(self, scene: ReplayScene, load: OfferedLoad, start: Seconds, seed: int) -> None:
        self._scene, self._start, self._events = scene, start, load.events
        self._rng = np.random.default_rng(seed)
        self.vms = machine_names(scene)
        self.hosts = tuple(host.name for host in scene.hosts)
        self._number_of = {name: number for number, name in enumerate(self.hosts)}
        self._used: Mapping[str, float] = {}
        pools = scene.orchestrator.declared.pools
        self._members: dict[str, tuple[PoolSpec, PoolMember]] = {
            one.vm: (pool, one) for pool in pools for one in pool.members
        }
        self._lost_links: frozenset[str] = frozenset()
        self.hypervisors = FakeHypervisors(
            {host.name: host for host in scene.hosts},
            {vm.name: _at_first(vm, scene.host_of[vm.name]) for vm in scene.vms},
            lambda vm, _now: self._used.get(vm, 0.0),
            lasts=self._lasts,
            breaks=self._breaks,
        )
        resting = {name: RESTS_AS[one.how] for name, (_, one) in self._members.items()}
        self._pool = FakePool(self.hypervisors, resting)

    def drivers(self, store: Store, timing: Timing) -> Hypervisors:
        """What an orchestrator acts through."""
        if not self._members:
            return self.hypervisors
        return Scaling(self.hypervisors, self._pool, store, self._scene.orchestrator, timing)

    def begin(self, now: Seconds) -> SceneState:
        """The scene in the second that begins at `now`, once what is due in its first half has been carried out."""
        self.hypervisors.away.clear()
        self.hypervisors.away.update(self._names(EventKind.HOST_LOST, now))
        self._pool.away = set(self.hypervisors.away)
        self._lost_links = self._names(EventKind.LINK_LOST, now)
        self.hypervisors.advance(now + HALF_S)
        return SceneState(
            self.host_of, frozenset(name for name in self.vms if self._answers(name, now)), self._lost_links
        )

    def happens(self, kind: EventKind, now: Seconds) -> bool:
        """Whether such an event is going on."""
        return bool(self._names(kind, now))

    def _names(self, kind: EventKind, now: Seconds) -> frozenset[str]:
        t = now - self._start
        return frozenset(one.name for one in self._events if one.kind is kind and one.start_s <= t < one.end_s)

    @property
    def host_of(self) -> dict[str, str]:
        """Where each machine is, or would be if it did not rest."""
        machines = self.hypervisors.machines
        return {name: machines[name].host if name in machines else self._members[name][1].host for name in self.vms}

    def _answers(self, name: str, now: Seconds) -> bool:
        machine = self.hypervisors.machines.get(name)
        if machine is None or machine.host in self.hypervisors.away:
            return False
        return name not in self._members or self._pool.answers(*self._members[name], now)

    def limits(self, state: SceneState) -> Floats:
        """Cores that each machine may use; none where it does not run."""
        machines = self.hypervisors.machines
        found = (machines[name] if name in state.answering else None for name in self.vms)
        return np.array([min(one.cores_limit, float(one.vcpus)) if one else 0.0 for one in found], dtype=np.float64)

    def host_numbers(self, state: SceneState) -> Places:
        """The number of the host that each machine is on."""
        return np.array([self._number_of[state.host_of[name]] for name in self.vms], dtype=np.int64)

    def note_use(self, used: Floats) -> None:
        """Cores that machines took in the second that has passed: what hypervisors will measure."""
        self._used = dict(zip(self.vms, used.tolist(), strict=True))

    def _lasts(self, action: VmAction, usual_s: Seconds) -> Seconds:
        """As long as a recorded action of its kind, else about as long as usual; a copy needs time for its bytes."""
        known = self._scene.durations_s.get(action.kind, ())
        if known:
            return float(self._rng.choice(known))
        copy_s = 0.0
        if isinstance(action, MigrateVm):
            rate = action.bytes_per_s or self._scene.orchestrator.moves.bytes_per_s
            copy_s = self.hypervisors.machines[action.vm].memory_bytes / rate
        return copy_s + usual_s * float(np.exp(SPREAD * self._rng.standard_normal()))

    def _breaks(self, action: VmAction, t: Seconds) -> str | None:
        fails = isinstance(action, MigrateVm) and self.happens(EventKind.MIGRATIONS_FAIL, t)
        return f"{action.vm}: the migration failed; it still runs on {action.before}" if fails else None


def _at_first(vm: VmSpec, host: str) -> FakeVm:
    """One vCPU, or as many as its base limit needs, and the least memory."""
    vcpus = max(1, ceil(vm.cpu_cores_min))
    return FakeVm(vm.name, host, vm.cpu_cores_min, vcpus, max(vcpus, vm.vcpus_max), vm.memory_bytes_min)
