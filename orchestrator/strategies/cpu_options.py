"""Lists what could be done about a machine that will need more CPU than it may use, each with its lead time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any

from cpdb import Seconds
from orchestrator.actions import MigrateVm, SetCpuLimit, SetVcpus
from orchestrator.context import PlanningContext, VmNeed
from orchestrator.proposal import Objection, Refusal, RefusalCode, on_host
from orchestrator.strategies.services import candidates
from orchestrator.world import VmState

# A quota is a call that is undone as quickly; a vCPU is plugged in, but seldom gets out by itself; a warm machine takes
# its memory and joins a service; a migration copies all memory of another. Each is dearer than all before it together.
COSTS: Mapping[str, float] = MappingProxyType(
    {"set_cpu_limit": 1.0, "set_vcpus": 2.0, "scale_out": 10.0, "migrate_vm": 30.0}
)
# Of each kind no more than so many are looked at: sets grow as powers of two.
MOST_OF_A_KIND = 3
TINY_CORES = 1e-6


@dataclass(frozen=True, slots=True)
class Option:
    """One way: `cores` that it would add after `lead_s`; `why_not` is set where it is out of the question.

    `needs` is the kind without which it is of no use.
    """

    kind: str
    what: str
    cores: float
    lead_s: Seconds
    why_not: str | None = None
    needs: str | None = None

    @property
    def cost(self) -> float:
        """In units of a quota's change."""
        return COSTS.get(self.kind, max(COSTS.values()))


@dataclass(frozen=True, slots=True)
class Rejected:
    """An option that was not chosen, and why."""

    option: Option
    why_not: Objection


@dataclass(frozen=True, slots=True)
class CpuChoice:
    """The set chosen, what else was considered with the reason against it, and the cores that remain lacking."""

    chosen: tuple[Option, ...]
    rejected: tuple[Rejected, ...]
    lacking: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        chosen = [{"action": one.what, "cores": round(one.cores, 3), "lead_s": one.lead_s} for one in self.chosen]
        return {"set": chosen, "lacking": round(self.lacking, 3)}

    def alternatives(self, vm: str) -> list[Refusal]:
        """What was not chosen, as a plan's alternatives."""
        return [
            Refusal(
                rejected.why_not.code, vm, rejected.option.what, rejected.why_not.text, lead_s=rejected.option.lead_s
            )
            for rejected in self.rejected
        ]


def cheapest(options: Sequence[Option], lack_cores: float, time_left_s: Seconds) -> CpuChoice:
    """The cheapest set that covers `lack_cores` and is ready within `time_left_s`; without one, the set that comes
    closest, and the cheapest of those.

    A need that is already there (`time_left_s` <= 0) cannot be met in time: then nothing is too late.
    """
    usable = [one for one in options if one.why_not is None and one.cores > TINY_CORES]
    ready = [one for one in usable if time_left_s <= 0 or one.lead_s <= time_left_s]
    chosen = min(_sets(_fewer(ready)), key=lambda own: _merit(own, lack_cores))
    lacking = max(0.0, lack_cores - sum(one.cores for one in chosen))
    rejected = [Rejected(one, _against(one, chosen, lacking, time_left_s)) for one in options if one not in chosen]
    return CpuChoice(chosen, tuple(rejected), lacking if lacking > TINY_CORES else 0.0)


def _fewer(options: Sequence[Option]) -> list[Option]:
    kept: list[Option] = []
    for one in sorted(options, key=lambda one: (one.cost, one.lead_s, -one.cores, one.what)):
        if sum(other.kind == one.kind for other in kept) < MOST_OF_A_KIND:
            kept.append(one)
    return kept


def _sets(options: Sequence[Option]) -> Iterator[tuple[Option, ...]]:
    for size in range(len(options) + 1):
        for own in combinations(options, size):
            kinds = {one.kind for one in own}
            if all(one.needs is None or one.needs in kinds for one in own):
                yield own


def _merit(own: Sequence[Option], lack_cores: float) -> tuple[float, float, float]:
    """Smaller is better: what remains lacking, then the cost, then the time until all is ready."""
    lacking = max(0.0, lack_cores - sum(one.cores for one in own))
    return round(lacking, 6), sum(one.cost for one in own), max((one.lead_s for one in own), default=0.0)


def _against(one: Option, chosen: Sequence[Option], lacking: float, time_left_s: Seconds) -> Objection:
    if one.why_not is not None:
        return Objection(RefusalCode.NO_ROOM, one.why_not)
    if one.cores <= TINY_CORES:
        return Objection(RefusalCode.NO_GAIN, "it would add nothing")
    if 0 < time_left_s < one.lead_s:
        text = f"too late: it takes up to {one.lead_s:.1f} s, {time_left_s:.1f} s are left"
        return Objection(RefusalCode.TOO_LATE, text)
    names = " and ".join(other.what for other in chosen) or "nothing more"
    if lacking > TINY_CORES:
        return Objection(RefusalCode.NO_GAIN, f"it would not add to {names}")
    return Objection(RefusalCode.DEARER, f"dearer (up to {one.lead_s:.1f} s): {names} suffices")


@dataclass(frozen=True, slots=True)
class Lack:
    """A machine whose need asks for a limit of `wanted` cores; its host has `left` cores for it (its own included)."""

    vm: VmState
    need: VmNeed
    wanted: float
    left: float

    def level(self, vcpus: int, max_step: float) -> float:
        """The limit in cores that it could be given with so many vCPUs."""
        most = self.vm.spec.cpu_cores_max if self.vm.spec else self.vm.cores_limit
        return min(self.wanted, most, float(vcpus), max_step * self.vm.cores_limit, self.left)


def choose(context: PlanningContext, lack: Lack) -> CpuChoice:
    """The cheapest set that is ready when the need comes: quota, vCPUs, another machine, room by a move."""
    found = [*_own(context, lack), *_others(context, lack), _move(context, lack)]
    return cheapest(found, lack.wanted - lack.vm.cores_limit, float(lack.need.horizon_s))


def _own(context: PlanningContext, lack: Lack) -> Iterator[Option]:
    """What its host can give it: a higher quota, and more vCPUs where a quota of the ones it has is not enough."""
    vm = lack.vm
    most = vm.spec.vcpus_max if vm.spec else vm.vcpus
    max_step = context.config.guard.max_step
    now, later = lack.level(vm.vcpus, max_step), lack.level(max(most, vm.vcpus), max_step)
    about = on_host(context.world, vm.host)
    quota_s, plug_s = (context.lead_s(kind, about) for kind in (SetCpuLimit.kind, SetVcpus.kind))
    why_not = None if now > vm.cores_limit else _no_more(vm, lack, now)
    yield Option(SetCpuLimit.kind, f"a limit of {now:.2f} cores", now - vm.cores_limit, quota_s, why_not)
    why_not = None if most > vm.vcpus else f"it has all of its {vm.vcpus} vCPUs"
    needs = SetCpuLimit.kind if now > vm.cores_limit else None
    yield Option(SetVcpus.kind, "another vCPU", later - max(now, vm.cores_limit), plug_s, why_not, needs)


def _no_more(vm: VmState, lack: Lack, now: float) -> str:
    if lack.left <= now:
        return f"{vm.host} has no more cores for it"
    return f"it has {vm.cores_limit:.2f} already, its ceiling or its vCPUs allow no more"


def _others(context: PlanningContext, lack: Lack) -> Iterator[Option]:
    """Machines of the pool that could share the work."""
    services = {one.pair.virtual_ip for one in context.world.pairs_to(lack.vm.name)}
    for pool in (one for one in context.config.declared.pools if one.virtual_ip in services):
        for one in candidates(context, pool):
            yield Option("scale_out", f"{one.member.vm} ({one.how})", one.cores, one.lead_s, one.why_not)


def _move(context: PlanningContext, lack: Lack) -> Option:
    """What the largest less important machine leaves behind for it; where that could go is placement's question."""
    vm, host = lack.vm, lack.vm.host
    lead_s = context.lead_s(MigrateVm.kind, on_host(context.world, host))
    able = [
        one
        for one in context.world.on_host(host)
        if one.name != vm.name and one.spec is not None and one.spec.movable and one.priority < vm.priority
    ]
    freed = max((min(one.cores_used, one.cores_limit) for one in able), default=0.0)
    short_of_host = lack.left < lack.wanted
    why_not = None
    if not short_of_host:
        why_not = f"{host} has the cores"
    elif not able:
        why_not = f"no movable machine on {host} matters less than {vm.name}"
    elif len(context.world.hosts) < 2:
        why_not = "there is no other host"
    what = f"moving {max(able, key=lambda one: one.cores_used).name} away" if able else "moving another machine away"
    return Option(MigrateVm.kind, what, min(freed, lack.wanted - lack.left), lead_s, why_not)
