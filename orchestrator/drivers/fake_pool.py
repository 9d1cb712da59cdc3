"""Machines of pools that behave without existing: states, latencies in virtual time, and failures on request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cpdb import DriverError, Seconds
from orchestrator.drivers.fake import FakeHypervisors, FakeVm
from orchestrator.drivers.pool import SeenMachine
from orchestrator.machine_actions import How
from orchestrator.pools import ABSENT, OFF, PAUSED, RESTS_AS, RUNNING, SAVED, PoolMember, PoolSpec

# From the call to the first answer, by the state that a machine comes from.
BOOT_S: Mapping[str, Seconds] = {PAUSED: 0.1, SAVED: 0.8, OFF: 3.0, ABSENT: 4.0}


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
