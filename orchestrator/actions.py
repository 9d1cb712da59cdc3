"""The small alphabet of what the orchestrator can do: printed plan, dry run and deed are these same objects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from cpdb import Json, Limit, Pair, Seconds, SettingsError


def megabits(bytes_per_s: float) -> str:
    """A rate for people, e.g. '5.2 Mbit/s'."""
    return f"{bytes_per_s * 8 / 1e6:.1f} Mbit/s"


@dataclass(frozen=True, slots=True)
class _Bandwidth:
    key: str
    pair: Pair
    bytes_per_s: float
    limits: tuple[Limit, ...]
    lease_s: Seconds
    dscp: int | None = None

    @property
    def target(self) -> str:
        return self.key

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        limits = [
            {"source": one.pair.source, "virtual_ip": one.pair.virtual_ip, "bytes_per_s": one.bytes_per_s}
            for one in self.limits
        ]
        return {
            "key": self.key,
            "source": self.pair.source,
            "virtual_ip": self.pair.virtual_ip,
            "bytes_per_s": self.bytes_per_s,
            "limits": limits,
            "lease_s": self.lease_s,
            "dscp": self.dscp,
        }


@dataclass(frozen=True, slots=True)
class ReserveBandwidth(_Bandwidth):
    """Keeps `bytes_per_s` free for `pair` for `lease_s` seconds unless renewed.

    By capping competitors (`limits`), or by a mark (`dscp`) that a guaranteed queue on the link knows.
    """

    kind: ClassVar[str] = "reserve_bandwidth"

    def inverse(self) -> "ReleaseBandwidth":
        return ReleaseBandwidth(self.key, self.pair, self.bytes_per_s, self.limits, self.lease_s, self.dscp)

    def describe(self) -> str:
        caps = ", ".join(f"{one.pair} to {megabits(one.bytes_per_s)}" for one in self.limits)
        means = [f"limiting {caps}"] if caps or self.dscp is None else []
        means += [] if self.dscp is None else [f"a guaranteed queue (DSCP {self.dscp})"]
        kept = f"keep {megabits(self.bytes_per_s)} free for {self.pair}"
        return f"{kept} by {' and '.join(means)} for {self.lease_s:g} s"


@dataclass(frozen=True, slots=True)
class ReleaseBandwidth(_Bandwidth):
    """Withdraws a reservation before its lease ends."""

    kind: ClassVar[str] = "release_bandwidth"

    def inverse(self) -> ReserveBandwidth:
        return ReserveBandwidth(self.key, self.pair, self.bytes_per_s, self.limits, self.lease_s, self.dscp)

    def describe(self) -> str:
        return f"release the {megabits(self.bytes_per_s)} kept free for {self.pair}"


Value = TypeVar("Value", float, int, str)


@dataclass(frozen=True, slots=True)
class _VmChange(Generic[Value]):
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
class SetCpuLimit(_VmChange[float]):
    """Changes what a machine's CPU quota allows, in cores over all its vCPUs."""

    kind: ClassVar[str] = "set_cpu_limit"

    def describe(self) -> str:
        return f"CPU limit of {self.vm} from {self.before:.2f} to {self.after:.2f} cores"


@dataclass(frozen=True, slots=True)
class SetVcpus(_VmChange[int]):
    """Changes the number of vCPUs online; the CPU limit in cores stays what it was."""

    kind: ClassVar[str] = "set_vcpus"

    def describe(self) -> str:
        return f"vCPUs of {self.vm} from {self.before} to {self.after}"


@dataclass(frozen=True, slots=True)
class SetMemory(_VmChange[int]):
    """Changes a machine's balloon target, in bytes."""

    kind: ClassVar[str] = "set_memory"

    def describe(self) -> str:
        return f"memory of {self.vm} from {self.before >> 20} to {self.after >> 20} MiB"


@dataclass(frozen=True, slots=True)
class MigrateVm(_VmChange[str]):
    """Moves a running machine from one host to another."""

    kind: ClassVar[str] = "migrate_vm"

    def describe(self) -> str:
        return f"migrate {self.vm} live from {self.before} to {self.after}"


@dataclass(frozen=True, slots=True)
class SetWeights:
    """Changes the shares of a virtual IP's destinations; only new communications follow."""

    kind: ClassVar[str] = "set_weights"
    virtual_ip: str
    before: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]

    @property
    def target(self) -> str:
        return self.virtual_ip

    def inverse(self) -> "SetWeights":
        return SetWeights(self.virtual_ip, self.after, self.before)

    def describe(self) -> str:
        shares = ", ".join(f"{name} {weight}" for name, weight in self.after)
        return f"weights of {self.virtual_ip}: {shares}"

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal action."""
        return {"virtual_ip": self.virtual_ip, "from": dict(self.before), "to": dict(self.after)}


VmAction = SetCpuLimit | SetVcpus | SetMemory | MigrateVm
Action = ReserveBandwidth | ReleaseBandwidth | SetWeights | VmAction
KINDS: Mapping[str, type[Action]] = {
    one.kind: one
    for one in (ReserveBandwidth, ReleaseBandwidth, SetCpuLimit, SetVcpus, SetMemory, MigrateVm, SetWeights)
}


def from_json(kind: str, body: Json) -> Action:
    """The action that `to_json` described. Raises SettingsError when kind or body make no sense."""
    try:
        return _from_json(KINDS[kind], body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        known = ", ".join(sorted(KINDS))
        raise SettingsError(f"action {kind!r}: cannot read {dict(body)!r} ({error!r}); kinds are {known}") from error


def _from_json(kind: type[Action], body: Json) -> Action:
    if issubclass(kind, _Bandwidth):
        limits = tuple(Limit(Pair(one["source"], one["virtual_ip"]), one["bytes_per_s"]) for one in body["limits"])
        pair = Pair(body["source"], body["virtual_ip"])
        # Journals written before there were queues name no mark.
        return kind(body["key"], pair, body["bytes_per_s"], limits, body["lease_s"], body.get("dscp"))
    if issubclass(kind, SetWeights):
        return kind(body["virtual_ip"], tuple(body["from"].items()), tuple(body["to"].items()))
    return kind(body["vm"], body["from"], body["to"])
