"""Lists what could be done about a machine that will need more CPU than it may use, each with its lead time."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.actions import MigrateVm, SetCpuLimit, SetVcpus
from orchestrator.config import OrchestratorConfig
from orchestrator.demand import Demand
from orchestrator.machines.choice import Choice, Option, cheapest
from orchestrator.needs import VmNeed
from orchestrator.scaling import candidates
from orchestrator.steps import on_host
from orchestrator.world import VmState, World


@dataclass(frozen=True, slots=True)
class Lack:
    """A machine whose need asks for a limit of `wanted` cores; its host has `left` cores for it (its own included)."""

    vm: VmState
    need: VmNeed
    wanted: float
    left: float

    def level(self, vcpus: int, config: OrchestratorConfig) -> float:
        """The limit in cores that it could be given with so many vCPUs."""
        most = self.vm.spec.cpu_cores_max if self.vm.spec else self.vm.cores_limit
        return min(self.wanted, most, float(vcpus), config.max_step * self.vm.cores_limit, self.left)


def choose(world: World, demand: Demand, lack: Lack, config: OrchestratorConfig) -> Choice:
    """The cheapest set that is ready when the need comes: quota, vCPUs, another machine, room by a move."""
    found = [*_own(world, lack, config), *_others(world, demand, lack, config), _move(world, lack, config)]
    return cheapest(found, lack.wanted - lack.vm.cores_limit, float(lack.need.horizon_s))


def _own(world: World, lack: Lack, config: OrchestratorConfig) -> Iterator[Option]:
    """What its host can give it: a higher quota, and more vCPUs where a quota of the ones it has is not enough."""
    vm = lack.vm
    most = vm.spec.vcpus_max if vm.spec else vm.vcpus
    now, later = lack.level(vm.vcpus, config), lack.level(max(most, vm.vcpus), config)
    about = on_host(world, vm.host)
    quota_s, plug_s = (world.leads.needed(kind, config, about) for kind in (SetCpuLimit.kind, SetVcpus.kind))
    why_not = None if now > vm.cores_limit else _no_more(vm, lack, now)
    yield Option(SetCpuLimit.kind, f"a limit of {now:.2f} cores", now - vm.cores_limit, quota_s, why_not)
    why_not = None if most > vm.vcpus else f"it has all of its {vm.vcpus} vCPUs"
    needs = SetCpuLimit.kind if now > vm.cores_limit else None
    yield Option(SetVcpus.kind, "another vCPU", later - max(now, vm.cores_limit), plug_s, why_not, needs)


def _no_more(vm: VmState, lack: Lack, now: float) -> str:
    if lack.left <= now:
        return f"{vm.host} has no more cores for it"
    return f"it has {vm.cores_limit:.2f} already, its ceiling or its vCPUs allow no more"


def _others(world: World, demand: Demand, lack: Lack, config: OrchestratorConfig) -> Iterator[Option]:
    """Machines of the pool that could share the work."""
    services = {one.pair.virtual_ip for one in world.pairs_to(lack.vm.name)}
    for pool in (one for one in config.pools if one.virtual_ip in services):
        for one in candidates(world, demand, pool, config):
            yield Option("scale_out", f"{one.member.vm} ({one.how})", one.cores, one.lead_s, one.why_not)


def _move(world: World, lack: Lack, config: OrchestratorConfig) -> Option:
    """What the largest less important machine leaves behind for it; where that could go is placement's question."""
    vm, host = lack.vm, lack.vm.host
    lead_s = world.leads.needed(MigrateVm.kind, config, on_host(world, host))
    able = [
        one
        for one in world.on_host(host)
        if one.name != vm.name and one.spec is not None and one.spec.movable and one.priority < vm.priority
    ]
    freed = max((min(one.cores_used, one.cores_limit) for one in able), default=0.0)
    short_of_host = lack.left < lack.wanted
    why_not = None
    if not short_of_host:
        why_not = f"{host} has the cores"
    elif not able:
        why_not = f"no movable machine on {host} matters less than {vm.name}"
    elif len(world.hosts) < 2:
        why_not = "there is no other host"
    what = f"moving {max(able, key=lambda one: one.cores_used).name} away" if able else "moving another machine away"
    return Option(MigrateVm.kind, what, min(freed, lack.wanted - lack.left), lead_s, why_not)
