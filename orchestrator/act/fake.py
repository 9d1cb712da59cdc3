"""Hypervisors that behave without existing: capacity, latencies in virtual time, and failures on request."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from cpdb import DriverError, HostLoad, Seconds, VmLoad
from orchestrator.act.hypervisors import Finished, SeenMachine, change_of_one
from orchestrator.act.libvirt.domain import SETTLE_S
from orchestrator.act.libvirt.memory import MEMORY_FLOOR_BYTES, floor_bytes
from orchestrator.act.libvirt.migration import overrun_s
from orchestrator.actions import (
    MachineAction,
    MigrateVm,
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetVcpus,
    VmAction,
    moves_of,
)
from orchestrator.declared import ABSENT, OFF, PAUSED, RESTS_AS, RUNNING, SAVED, HostSpec, How, PoolMember, PoolSpec
from orchestrator.strategies.destinations import pre_copy

LATENCIES_S: Mapping[str, Seconds] = {
    "set_cpu_limit": 0.3,
    "set_vcpus": 0.5,
    "set_memory": 0.2,
    "set_network_rate": 0.1,
    "migrate_vm": 2.5,
}
COPY_BYTES_PER_S = 125e6
# From the call to the first answer, by the state that a machine comes from.
BOOT_S: Mapping[str, Seconds] = {PAUSED: 0.1, SAVED: 0.8, OFF: 3.0, ABSENT: 4.0}
DoneChange = TypeVar("DoneChange", bound=VmAction)


@dataclass(frozen=True, slots=True)
class FakeVm:
    """A machine as its host keeps it. `dirty_bytes_per_s` None: its moves take the usual time, whatever its size."""

    name: str
    host: str
    cores_limit: float = 1.0
    vcpus: int = 1
    vcpus_max: int = 1
    memory_bytes: int = 128 << 20
    memory_used_bytes: int | None = None
    dirty_bytes_per_s: float | None = None
    network_bytes_per_s: float = 0.0


def _as_usual(_action: VmAction, usual_s: Seconds) -> Seconds:
    return usual_s


def _not_broken(_action: VmAction, _t: Seconds) -> None:
    return None


@dataclass(slots=True)
class FakeHypervisors:
    """`work(vm, now)` says how many cores a machine would like; it gets its limit and its share of the host at most.

    `fail` maps (kind, vm) to the sentence with which the next such action fails, `pending` to the seconds for which the
    guest does not follow the next one. `lasts(action, usual)` is how many seconds an action takes, `breaks(action, t)`
    why one that ends at t fails, None when it does not. Hosts in `away` cannot be asked, nor changed.
    """

    hosts: Mapping[str, HostSpec]
    machines: dict[str, FakeVm]
    work: Callable[[str, Seconds], float]
    latencies_s: Mapping[str, Seconds] = field(default_factory=lambda: LATENCIES_S)
    lasts: Callable[[VmAction, Seconds], Seconds] = _as_usual
    breaks: Callable[[VmAction, Seconds], str | None] = _not_broken
    away: set[str] = field(default_factory=set)
    fail: dict[tuple[str, str], str] = field(default_factory=dict)
    pending: dict[tuple[str, str], Seconds] = field(default_factory=dict)
    started: list[VmAction] = field(default_factory=list)
    _waiting: list[tuple[Seconds, int, VmAction]] = field(default_factory=list)
    _ended: list[Finished] = field(default_factory=list)

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """Use at `now`."""
        self.advance(now)
        use = self._uses(now)
        own = defaultdict(list)
        for one in self.machines.values():
            own[one.host].append(one)
        hosts = [
            HostLoad(
                host.name, now, sum(use[one.name] for one in own[host.name]), host.cpu_cores_capacity,
                sum(one.memory_bytes for one in own[host.name]), host.memory_bytes_capacity,
            )
            for host in self.hosts.values()
            if host.name not in self.away
        ]  # fmt: skip
        vms = [
            VmLoad(
                one.name, one.host, now, "running", use[one.name], one.cores_limit, one.vcpus,
                one.memory_bytes if one.memory_used_bytes is None else one.memory_used_bytes, one.memory_bytes,
                dirty_bytes_per_s=one.dirty_bytes_per_s,
            )
            for one in self.machines.values()
            if one.host not in self.away
        ]  # fmt: skip
        return hosts, vms

    def used(self, name: str, now: Seconds) -> float:
        """Cores that a machine really gets: min(work, limit), scaled down with its neighbours on a full host."""
        return self._uses(now)[name]

    def _uses(self, now: Seconds) -> dict[str, float]:
        wish = {
            one.name: min(self.work(one.name, now), one.cores_limit, float(one.vcpus)) for one in self.machines.values()
        }
        total: dict[str, float] = defaultdict(float)
        for one in self.machines.values():
            total[one.host] += wish[one.name]
        share = {
            name: min(1.0, self.hosts[name].cpu_cores_capacity / wanted) for name, wanted in total.items() if wanted
        }
        return {one.name: wish[one.name] * share.get(one.host, 1.0) for one in self.machines.values()}

    def start(self, number: int, action: MachineAction, now: Seconds) -> None:
        """Begins an action that ends `latencies_s[kind]` later."""
        action = change_of_one(action)
        if action.vm not in self.machines:
            raise DriverError(f"{action.vm}: no such machine on any host; it was stopped or removed")
        if lost := self.away & {self.machines[action.vm].host, *_hosts_of(action)}:
            raise DriverError(f"{', '.join(sorted(lost))}: cannot be reached")
        self.started.append(action)
        self._waiting.append((now + self._takes_s(action), number, action))

    def _takes_s(self, action: VmAction) -> Seconds:
        pending_s = min(SETTLE_S, self.pending.get((action.kind, action.vm), 0.0))
        usual_s = self.latencies_s[action.kind] + pending_s
        return EFFECTS[type(action)].takes_s(self.machines[action.vm], action, self.lasts(action, usual_s))

    def moving(self) -> tuple[MigrateVm, ...]:
        """The moves under way."""
        return tuple(moves_of(action for _, _, action in self._waiting))

    def follow(self, number: int, action: MachineAction, now: Seconds) -> bool:
        """What is not measured is looked up; all else the world will show."""
        effect = EFFECTS.get(type(action))
        ok = effect.found(self.machines.get(action.vm), action) if effect else None
        if ok is None:
            return False
        self._ended.append(Finished(number, ok, f"{action.describe()}: {'found' if ok else 'not carried out'}", now))
        return True

    def finished(self, now: Seconds) -> list[Finished]:
        """Every action that is due, in order of time."""
        self.advance(now)
        found, self._ended = self._ended, []
        return found

    def advance(self, now: Seconds) -> None:
        """Carries out what is due by `now`."""
        due = sorted((one for one in self._waiting if one[0] <= now), key=lambda one: one[:2])
        self._waiting = [one for one in self._waiting if one[0] > now]
        self._ended += [self._finish(*one) for one in due]

    def _finish(self, ready_at: Seconds, number: int, action: VmAction) -> Finished:
        broken = self.breaks(action, ready_at)
        problem = broken or self.fail.pop((action.kind, action.vm), None) or self._problem(action)
        if problem:
            return Finished(number, False, problem, ready_at)
        self.machines[action.vm] = EFFECTS[type(action)].changed(self.machines[action.vm], action)
        return Finished(number, True, f"done: {action.describe()}", ready_at)

    def _problem(self, action: VmAction) -> str | None:
        vm = self.machines.get(action.vm)
        if vm is None:
            return f"{action.vm}: no such machine on any host; it was stopped or removed"
        if lost := self.away & {vm.host, *_hosts_of(action)}:
            return f"{', '.join(sorted(lost))}: cannot be reached"
        effect = EFFECTS[type(action)]
        if (refused := effect.refused(vm, action)) is not None:
            return refused
        if self.pending.pop((action.kind, vm.name), 0.0) >= SETTLE_S:
            return f"{action.describe()}: pending: the guest has not let go after {SETTLE_S:g} s"
        return effect.failed(vm, action, self)

    def remove(self, names: Iterable[str]) -> None:
        """Machines that vanish."""
        for name in names:
            del self.machines[name]

    def close(self) -> None:
        """Forgets what is under way."""
        self._waiting.clear()


def _hosts_of(action: VmAction) -> tuple[str, ...]:
    return tuple(host for move in moves_of([action]) for host in (move.before, move.after))


class FakeEffect(Generic[DoneChange]):
    """What one kind of change does to a machine, how long that takes, and why it does not come off."""

    def changed(self, vm: FakeVm, action: DoneChange) -> FakeVm:
        """The machine once it is done."""
        raise NotImplementedError

    def takes_s(self, vm: FakeVm, action: DoneChange, usual_s: Seconds) -> Seconds:  # noqa: ARG002 - an answer
        """How long it takes."""
        return usual_s

    def refused(self, vm: FakeVm, action: DoneChange) -> str | None:  # noqa: ARG002 - an answer
        """Why its host does not begin it."""
        return None

    def failed(self, vm: FakeVm, action: DoneChange, among: FakeHypervisors) -> str | None:  # noqa: ARG002 - an answer
        """Why it does not end well, though its guest follows."""
        return None

    def found(self, vm: FakeVm | None, action: DoneChange) -> bool | None:  # noqa: ARG002 - an answer
        """Whether it is found done after a restart; None where the world shows that."""
        return None


class _CpuLimitEffect(FakeEffect[SetCpuLimit]):
    def changed(self, vm: FakeVm, action: SetCpuLimit) -> FakeVm:
        return replace(vm, cores_limit=action.after)


class _VcpusEffect(FakeEffect[SetVcpus]):
    def changed(self, vm: FakeVm, action: SetVcpus) -> FakeVm:
        return replace(vm, vcpus=action.after, cores_limit=min(vm.cores_limit, float(action.after)))

    def refused(self, vm: FakeVm, action: SetVcpus) -> str | None:
        if action.after <= vm.vcpus_max:
            return None
        return f"{vm.name}: {action.after} vCPUs are more than its maximum of {vm.vcpus_max}"


class _MemoryEffect(FakeEffect[SetMemory]):
    def changed(self, vm: FakeVm, action: SetMemory) -> FakeVm:
        return replace(vm, memory_bytes=action.after)

    def refused(self, vm: FakeVm, action: SetMemory) -> str | None:
        shrinks = action.after < vm.memory_bytes
        floor = floor_bytes(vm.memory_used_bytes, 0) if shrinks else MEMORY_FLOOR_BYTES
        if action.after >= floor:
            return None
        return f"{vm.name}: {action.after >> 20} MiB is below the floor of {floor >> 20} MiB"


class _NetworkRateEffect(FakeEffect[SetNetworkRate]):
    def changed(self, vm: FakeVm, action: SetNetworkRate) -> FakeVm:
        return replace(vm, network_bytes_per_s=action.after)

    def found(self, vm: FakeVm | None, action: SetNetworkRate) -> bool:
        return vm is not None and vm.network_bytes_per_s == action.after


class _MoveEffect(FakeEffect[MigrateVm]):
    def changed(self, vm: FakeVm, action: MigrateVm) -> FakeVm:
        return replace(vm, host=action.after)

    def takes_s(self, vm: FakeVm, action: MigrateVm, usual_s: Seconds) -> Seconds:
        if vm.dirty_bytes_per_s is None:
            return usual_s
        copied = pre_copy(vm.memory_bytes, vm.dirty_bytes_per_s, action.bytes_per_s or COPY_BYTES_PER_S)
        return min(copied.total_s, overrun_s(None, action.expected_s))

    def failed(self, vm: FakeVm, action: MigrateVm, among: FakeHypervisors) -> str | None:
        host = among.hosts.get(action.after)
        if host is None or vm.host != action.before:
            return f"{vm.name} is on {vm.host}, not on {action.before}" if host else f"{action.after}: no such host"
        memory = sum(one.memory_bytes for one in among.machines.values() if one.host == host.name)
        if memory + vm.memory_bytes > host.memory_bytes_capacity:
            return f"{host.name}: no memory for {vm.name}"
        return self._broken_off(vm, action)

    def _broken_off(self, vm: FakeVm, action: MigrateVm) -> str | None:
        """Why a copy is not let run on: its guest writes too fast, or it takes too long."""
        if vm.dirty_bytes_per_s is None:
            return None
        copied = pre_copy(vm.memory_bytes, vm.dirty_bytes_per_s, action.bytes_per_s or COPY_BYTES_PER_S)
        limit_s = overrun_s(None, action.expected_s)
        if copied.converges and copied.total_s <= limit_s:
            return None
        why = f"it took longer than {limit_s:.0f} s" if copied.converges else "it does not converge"
        return f"broken off: {why}; {vm.name} still runs on {vm.host}"


EFFECTS: Mapping[type[MachineAction], FakeEffect[Any]] = {
    SetCpuLimit: _CpuLimitEffect(),
    SetVcpus: _VcpusEffect(),
    SetMemory: _MemoryEffect(),
    SetNetworkRate: _NetworkRateEffect(),
    MigrateVm: _MoveEffect(),
}


@dataclass(slots=True)
class FakePool:
    """`states` by machine; what is missing is absent. Running machines stand in `hypervisors` with all others.

    `fail` maps (call, machine) to the sentence with which the next such call fails; calls are wake, rest and answers.
    """

    hypervisors: FakeHypervisors
    states: dict[str, str] = field(default_factory=dict)
    boot_s: Mapping[str, Seconds] = field(default_factory=lambda: BOOT_S)
    fail: dict[tuple[str, str], str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    _up_at: dict[str, Seconds] = field(default_factory=dict)

    def state(self, vm: str) -> str:
        """The state of a machine."""
        return self.states.get(vm, ABSENT)

    def seen(self, members: Iterable[PoolMember], now: Seconds) -> list[SeenMachine]:  # noqa: ARG002 - protocol
        """See PoolMachines; hosts in `away` cannot be asked."""
        return [SeenMachine(one.vm, one.host, self.state(one.vm)) for one in members if one.host not in self.away]

    def wake(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> None:
        """See PoolMachines."""
        self._call("wake", member)
        before = self.state(member.vm)
        if before == RUNNING:
            return
        if before == ABSENT and pool.image is None:
            raise DriverError(f"{member.vm}: is not defined on {member.host}, and its pool has no image to make it of")
        if before != PAUSED and self._memory(member.host) + pool.memory_bytes > self._room(member.host):
            raise DriverError(f"{member.host}: no memory for {member.vm}")
        self.states[member.vm] = RUNNING
        self._up_at[member.vm] = now + self.boot_s[before]
        place = (member.vm, member.host, pool.cpu_cores_min, pool.vcpus, pool.vcpus, pool.memory_bytes)
        self.hypervisors.machines.setdefault(member.vm, FakeVm(*place))

    def rest(self, pool: PoolSpec, member: PoolMember, how: How, now: Seconds) -> None:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        self._call("rest", member)
        if how == "image":
            self.states.pop(member.vm, None)
        elif self.state(member.vm) == RUNNING:
            self.states[member.vm] = RESTS_AS[how]
        if self.state(member.vm) != RUNNING:
            self.hypervisors.machines.pop(member.vm, None)

    def answers(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> bool:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        self.calls.append(("answers", member.vm))
        if ("answers", member.vm) in self.fail:
            return False
        return self.state(member.vm) == RUNNING and now >= self._up_at.get(member.vm, now)

    def close(self) -> None:
        """Nothing is open."""

    def _call(self, name: str, member: PoolMember) -> None:
        self.calls.append((name, member.vm))
        if member.host in self.away:
            raise DriverError(f"{member.host}: cannot be reached")
        if (problem := self.fail.pop((name, member.vm), None)) is not None:
            raise DriverError(problem)

    def _memory(self, host: str) -> int:
        return sum(one.memory_bytes for one in self.hypervisors.machines.values() if one.host == host)

    def _room(self, host: str) -> int:
        return self.hypervisors.hosts[host].memory_bytes_capacity
