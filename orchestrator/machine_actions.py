"""What can be done to machines: change one of their properties, or bring one into a service and out of it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from cpdb import Destination, Json, MachineReport, show_rate
from orchestrator.declared import HOWS, RESTS_AS, RUNNING, How
from orchestrator.world import Action, VmState, World

# A quota is kept in whole microseconds, a balloon ends within a page or two of its target.
LIMIT_TOLERANCE, MEMORY_TOLERANCE_BYTES = 0.02, 2 << 20
RESTS: Mapping[How, str] = {
    "paused": "paused in the pool",
    "saved": "saved in the pool",
    "defined": "shut down",
    "image": "removed with its disk",
}
COMES: Mapping[How, str] = {
    "paused": "by resuming it",
    "saved": "by restoring its memory",
    "defined": "by starting it",
    "image": "from its golden image",
}
Value = TypeVar("Value", float, int, str)
Amount = TypeVar("Amount", float, int)


class MachineControls(Protocol):
    """What can be set on a running machine. Each returns what is still pending, None when it already shows."""

    def set_cpu_limit(self, cores: float) -> str | None:
        """Over all its vCPUs."""

    def set_vcpus(self, vcpus: int) -> str | None:
        """The limit in cores stays what it was."""

    def set_memory(self, memory_bytes: int) -> str | None:
        """The balloon's target."""

    def set_network_rate(self, bytes_per_s: float) -> str | None:
        """Of each interface, both ways; 0 is no limit."""


@dataclass(frozen=True, slots=True)
class VmChange(Action, Generic[Value]):
    """One property of one machine, from one value to another."""

    vm: str
    before: Value
    after: Value

    @property
    def target(self) -> str:
        return self.vm

    def inverse(self) -> Self:
        return replace(self, before=self.after, after=self.before)

    def applied_to(self, world: World) -> World:
        vm = world.vms.get(self.vm)
        return world if vm is None else replace(world, vms={**world.vms, self.vm: self.changed(vm)})

    def changed(self, vm: VmState) -> VmState:
        """The machine once it is done."""
        return vm

    def shown_by(self, world: World, /) -> bool:
        vm = world.vms.get(self.vm)
        return vm is not None and self.matches(vm)

    def matches(self, _vm: VmState, /) -> bool:
        """Whether the machine is as it shall be."""
        return False

    def hosts(self, world: World, /) -> frozenset[str]:
        return frozenset({world.vms[self.vm].host} if self.vm in world.vms else ())

    @property
    def benefits(self) -> str:
        return self.vm

    @classmethod
    def from_body(cls, body: Json) -> Self:
        return cls(body["vm"], body["from"], body["to"])

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"vm": self.vm, "from": self.before, "to": self.after}


@dataclass(frozen=True, slots=True)
class Resize(VmChange[Amount]):
    """A change of an amount that a machine is given."""

    @property
    def shrinks(self) -> bool:
        return self.after < self.before

    @property
    def gives(self) -> bool:
        return not self.shrinks

    @property
    def had(self) -> float | None:
        return float(self.before)

    def turns(self, before: Action, /) -> bool:
        return before.shrinks != self.shrinks


@dataclass(frozen=True, slots=True)
class SetCpuLimit(Resize[float]):
    """Changes what a machine's CPU quota allows, in cores over all its vCPUs."""

    kind: ClassVar[str] = "set_cpu_limit"

    def changed(self, vm: VmState) -> VmState:
        return replace(vm, cores_limit=self.after)

    def matches(self, vm: VmState, /) -> bool:
        return abs(vm.cores_limit - self.after) <= LIMIT_TOLERANCE

    def adjust(self, controls: MachineControls) -> str | None:
        """Sets it; what is still pending, None when it already shows."""
        return controls.set_cpu_limit(self.after)

    def describe(self) -> str:
        return f"CPU limit of {self.vm} from {self.before:.2f} to {self.after:.2f} cores"


@dataclass(frozen=True, slots=True)
class SetVcpus(Resize[int]):
    """Changes the number of vCPUs online; the CPU limit in cores stays what it was."""

    kind: ClassVar[str] = "set_vcpus"

    def changed(self, vm: VmState) -> VmState:
        return replace(vm, vcpus=self.after, cores_limit=min(vm.cores_limit, float(self.after)))

    def matches(self, vm: VmState, /) -> bool:
        return vm.vcpus == self.after

    def adjust(self, controls: MachineControls) -> str | None:
        """Sets it; what is still pending, None when it already shows."""
        return controls.set_vcpus(self.after)

    def describe(self) -> str:
        return f"vCPUs of {self.vm} from {self.before} to {self.after}"


@dataclass(frozen=True, slots=True)
class SetMemory(Resize[int]):
    """Changes a machine's balloon target, in bytes."""

    kind: ClassVar[str] = "set_memory"

    def changed(self, vm: VmState) -> VmState:
        return replace(vm, memory=replace(vm.memory, bytes=self.after))

    def matches(self, vm: VmState, /) -> bool:
        return abs(vm.memory.bytes - self.after) <= MEMORY_TOLERANCE_BYTES

    def adjust(self, controls: MachineControls) -> str | None:
        """Sets it; what is still pending, None when it already shows."""
        return controls.set_memory(self.after)

    def describe(self) -> str:
        return f"memory of {self.vm} from {self.before >> 20} to {self.after >> 20} MiB"


@dataclass(frozen=True, slots=True)
class MigrateVm(VmChange[str]):
    """Moves a running machine from one host to another.

    `bytes_per_s` is what the copy may take from the network and `expected_s` how long it was estimated to take then;
    None leaves both to the driver. They are advice, so moves are equal without them.
    """

    kind: ClassVar[str] = "migrate_vm"
    bytes_per_s: float | None = field(default=None, compare=False)
    expected_s: float | None = field(default=None, compare=False)

    def changed(self, vm: VmState) -> VmState:
        return replace(vm, host=self.after)

    def matches(self, vm: VmState, /) -> bool:
        return vm.host == self.after

    def hosts(self, _world: World, /) -> frozenset[str]:
        return frozenset({self.before, self.after})

    def turns(self, before: Action, /) -> bool:
        return isinstance(before, MigrateVm) and before.before == self.after

    def describe(self) -> str:
        return f"migrate {self.vm} live from {self.before} to {self.after}"

    @classmethod
    def from_body(cls, body: Json) -> Self:
        return cls(body["vm"], body["from"], body["to"], body.get("bytes_per_s"), body.get("expected_s"))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        advice = {"bytes_per_s": self.bytes_per_s, "expected_s": self.expected_s}
        known = {key: value for key, value in advice.items() if value is not None}
        return {"vm": self.vm, "from": self.before, "to": self.after, **known}


@dataclass(frozen=True, slots=True)
class SetNetworkRate(VmChange[float]):
    """Changes the most that each interface of a machine may send and receive, in bytes/s; 0 is no limit."""

    kind: ClassVar[str] = "set_network_rate"

    def adjust(self, controls: MachineControls) -> str | None:
        """Sets it; what is still pending, None when it already shows."""
        return controls.set_network_rate(self.after)

    def describe(self) -> str:
        before, after = (show_rate(rate) if rate else "no limit" for rate in (self.before, self.after))
        return f"network rate of {self.vm} from {before} to {after}"


@dataclass(frozen=True, slots=True)
class ScalingChange(Action):
    """`how` the machine rests while it does not serve: paused, saved, defined (off), or not at all (image).

    `comes`: it is brought into the service, else out of it.
    """

    comes: ClassVar[bool]
    virtual_ip: str
    vm: str
    host: str
    how: How

    @property
    def target(self) -> str:
        return self.vm

    @property
    def benefits(self) -> str:
        return self.virtual_ip

    def hosts(self, _world: World, /) -> frozenset[str]:
        return frozenset({self.host})

    def _served(self, world: World, own: tuple[Destination, ...], state: str) -> World:
        service = world.virtual_ips.get(self.virtual_ip)
        if service is None:
            return world
        others = tuple(item for item in service.destinations if item.name != self.vm)
        reports = world.wanted.observed
        rest = tuple(row for row in reports if not (isinstance(row, MachineReport) and row.vm == self.vm))
        report = MachineReport(self.vm, self.host, state, "", world.now)
        return replace(
            world,
            virtual_ips={**world.virtual_ips, self.virtual_ip: replace(service, destinations=others + own)},
            vms=world.vms if own else {name: vm for name, vm in world.vms.items() if name != self.vm},
            wanted=replace(world.wanted, observed=(*rest, report)),
        )

    @classmethod
    def from_body(cls, body: Json) -> Self:
        if body["how"] not in HOWS:
            raise ValueError(f"how must be one of {', '.join(HOWS)}")
        return cls(body["virtual_ip"], body["vm"], body["host"], body["how"])

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"virtual_ip": self.virtual_ip, "vm": self.vm, "host": self.host, "how": self.how}


@dataclass(frozen=True, slots=True)
class ScaleOut(ScalingChange):
    """Brings a machine of the pool up on `host` and into a virtual IP: it answers first, then it gets its share."""

    kind: ClassVar[str] = "scale_out"
    comes: ClassVar[bool] = True

    @property
    def gives(self) -> bool:
        return True

    def inverse(self) -> "ScaleIn":
        return ScaleIn(self.virtual_ip, self.vm, self.host, self.how)

    def applied_to(self, world: World) -> World:
        return self._served(world, (Destination(self.vm, "", ""),), RUNNING)

    def describe(self) -> str:
        return f"bring {self.vm} on {self.host} into {self.virtual_ip} {COMES[self.how]}"


@dataclass(frozen=True, slots=True)
class ScaleIn(ScalingChange):
    """Takes a machine out of a virtual IP, waits for its live connections, and lays it to rest again."""

    kind: ClassVar[str] = "scale_in"
    comes: ClassVar[bool] = False

    def inverse(self) -> ScaleOut:
        return ScaleOut(self.virtual_ip, self.vm, self.host, self.how)

    def applied_to(self, world: World) -> World:
        return self._served(world, (), RESTS_AS[self.how])

    def describe(self) -> str:
        return f"take {self.vm} on {self.host} out of {self.virtual_ip}; then it is {RESTS[self.how]}"


# A change of one running machine, and bringing machines in and out.
VmAction = SetCpuLimit | SetVcpus | SetMemory | SetNetworkRate | MigrateVm
ScaleAction = ScaleOut | ScaleIn
MachineAction = VmAction | ScaleAction
VM_KINDS: tuple[type[VmAction], ...] = (SetCpuLimit, SetVcpus, SetMemory, SetNetworkRate, MigrateVm)
SCALE_KINDS: tuple[type[ScaleAction], ...] = (ScaleOut, ScaleIn)
