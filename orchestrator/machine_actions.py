"""What can be done to machines: change one of their properties, or bring one into a service and out of it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from cpdb import show_rate

How = Literal["paused", "saved", "defined", "image"]
# In this order from the fastest to the slowest to serve: memory kept, memory on disk, off, made anew.
HOWS: tuple[How, ...] = ("paused", "saved", "defined", "image")
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


@dataclass(frozen=True, slots=True)
class VmChange(Generic[Value]):
    """One property of one machine, from one value to another."""

    vm: str
    before: Value
    after: Value

    @property
    def target(self) -> str:
        return self.vm

    def inverse(self) -> Self:
        return replace(self, before=self.after, after=self.before)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"vm": self.vm, "from": self.before, "to": self.after}


@dataclass(frozen=True, slots=True)
class SetCpuLimit(VmChange[float]):
    """Changes what a machine's CPU quota allows, in cores over all its vCPUs."""

    kind: ClassVar[str] = "set_cpu_limit"

    def describe(self) -> str:
        return f"CPU limit of {self.vm} from {self.before:.2f} to {self.after:.2f} cores"


@dataclass(frozen=True, slots=True)
class SetVcpus(VmChange[int]):
    """Changes the number of vCPUs online; the CPU limit in cores stays what it was."""

    kind: ClassVar[str] = "set_vcpus"

    def describe(self) -> str:
        return f"vCPUs of {self.vm} from {self.before} to {self.after}"


@dataclass(frozen=True, slots=True)
class SetMemory(VmChange[int]):
    """Changes a machine's balloon target, in bytes."""

    kind: ClassVar[str] = "set_memory"

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

    def describe(self) -> str:
        return f"migrate {self.vm} live from {self.before} to {self.after}"

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        advice = {"bytes_per_s": self.bytes_per_s, "expected_s": self.expected_s}
        known = {key: value for key, value in advice.items() if value is not None}
        return {"vm": self.vm, "from": self.before, "to": self.after, **known}


@dataclass(frozen=True, slots=True)
class SetNetworkRate(VmChange[float]):
    """Changes the most that each interface of a machine may send and receive, in bytes/s; 0 is no limit."""

    kind: ClassVar[str] = "set_network_rate"

    def describe(self) -> str:
        before, after = (show_rate(rate) if rate else "no limit" for rate in (self.before, self.after))
        return f"network rate of {self.vm} from {before} to {after}"


@dataclass(frozen=True, slots=True)
class _Scaling:
    """`how` the machine rests while it does not serve: paused, saved, defined (off), or not at all (image)."""

    virtual_ip: str
    vm: str
    host: str
    how: How

    @property
    def target(self) -> str:
        return self.vm

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"virtual_ip": self.virtual_ip, "vm": self.vm, "host": self.host, "how": self.how}


@dataclass(frozen=True, slots=True)
class ScaleOut(_Scaling):
    """Brings a machine of the pool up on `host` and into a virtual IP: it answers first, then it gets its share."""

    kind: ClassVar[str] = "scale_out"

    def inverse(self) -> "ScaleIn":
        return ScaleIn(self.virtual_ip, self.vm, self.host, self.how)

    def describe(self) -> str:
        return f"bring {self.vm} on {self.host} into {self.virtual_ip} {COMES[self.how]}"


@dataclass(frozen=True, slots=True)
class ScaleIn(_Scaling):
    """Takes a machine out of a virtual IP, waits for its live connections, and lays it to rest again."""

    kind: ClassVar[str] = "scale_in"

    def inverse(self) -> ScaleOut:
        return ScaleOut(self.virtual_ip, self.vm, self.host, self.how)

    def describe(self) -> str:
        return f"take {self.vm} on {self.host} out of {self.virtual_ip}; then it is {RESTS[self.how]}"


# A change of one running machine, and bringing machines in and out.
VmAction = SetCpuLimit | SetVcpus | SetMemory | SetNetworkRate | MigrateVm
ScaleAction = ScaleOut | ScaleIn
MachineAction = VmAction | ScaleAction
VM_KINDS: tuple[type[VmAction], ...] = (SetCpuLimit, SetVcpus, SetMemory, SetNetworkRate, MigrateVm)
SCALE_KINDS: tuple[type[ScaleAction], ...] = (ScaleOut, ScaleIn)
