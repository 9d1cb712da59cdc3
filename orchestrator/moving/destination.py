"""Says where a machine could go: what a host and the ways to it would still have. Hypervisors check none of this."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cpdb import Seconds
from orchestrator.actions import MigrateVm, megabits
from orchestrator.config import HostSpec, OrchestratorConfig
from orchestrator.demand import NOW, Demand
from orchestrator.moving.precopy import PreCopy, post_copy, pre_copy
from orchestrator.moving.rules import forbidden
from orchestrator.needs import load_served, needed_on, vm_need
from orchestrator.scaling.service import memory_left
from orchestrator.steps import on_host, when
from orchestrator.world import LinkKey, VmState, World


@dataclass(frozen=True, slots=True)
class Scene:
    """What every decision about places looks at. Needs are kept: they do not depend on where machines are.

    `together` names the machines that are just being moved as one.
    """

    world: World
    demand: Demand
    config: OrchestratorConfig
    together: frozenset[str] = frozenset()
    _cores: dict[tuple[str, int], float] = field(default_factory=dict)
    # Made anew for each snapshot of the world: who is where changes with it.
    _served: dict[tuple[str, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def cores(self, vm: VmState, horizon_s: int) -> float:
        """What the machine would take if it got what it needs."""
        key = vm.name, horizon_s
        if key not in self._cores:
            self._cores[key] = load_served(vm, vm_need(self.world, self.demand, vm, horizon_s))
        return self._cores[key]

    def served(self, host: str, horizon_s: int) -> float:
        """The same for all machines on a host."""
        key = host, horizon_s
        if key not in self._served:
            self._served[key] = sum(self.cores(vm, horizon_s) for vm in self.world.on_host(host))
        return self._served[key]


@dataclass(frozen=True, slots=True)
class Shortage:
    """A host whose machines will together need more cores than it has; `needy` is the one that matters most."""

    host: HostSpec
    horizon_s: int
    cores: float
    needy: VmState


def room(scene: Scene, host: HostSpec, vm: VmState, horizon_s: int) -> float | str:
    """Cores left on `host` with the machine there, or why it cannot go there."""
    spare = int(memory_left(scene.world, host.name, scene.config)) - vm.memory_bytes
    if not host.closed and spare < 0:
        total = host.memory_bytes_capacity - spare
        return f"{host.name} would need {total >> 20} of {host.memory_bytes_capacity >> 20} MiB memory"
    # Not only when the need comes: a host must not be made short on the way there either.
    sooner = (one for one in scene.config.horizons_s if one < horizon_s)
    taken = max(scene.cores(vm, one) + scene.served(host.name, one) for one in (NOW, *sooner, horizon_s))
    left = scene.config.host_headroom * host.cpu_cores_capacity - taken
    if not host.closed and left < -1e-9:
        return f"{host.name} would be {-left:.2f} cores short itself"
    return closed_to(scene, host, vm, horizon_s) or left


def horizons(config: OrchestratorConfig) -> tuple[int, ...]:
    """Every moment that is looked at: now, and under the predictive policy each horizon."""
    return (NOW, *config.horizons_s) if config.policy == "predictive" else (NOW,)


def lasting_room(scene: Scene, host: HostSpec, vm: VmState) -> float | str:
    """The least cores left at any horizon, or why the machine cannot go there: it would be there at all of them."""
    capacity = scene.config.host_headroom * host.cpu_cores_capacity
    fits = all(scene.cores(vm, one) + scene.served(host.name, one) <= capacity + 1e-9 for one in horizons(scene.config))
    least = float("inf")
    for horizon_s in horizons(scene.config) if fits else (_tightest(scene, host, vm),):
        found = room(scene, host, vm, horizon_s)
        if isinstance(found, str):
            return found
        least = min(least, found)
    return least


def _tightest(scene: Scene, host: HostSpec, vm: VmState) -> int:
    return max(horizons(scene.config), key=lambda one: scene.cores(vm, one) + scene.served(host.name, one))


def closed_to(scene: Scene, host: HostSpec, vm: VmState, horizon_s: int) -> str | None:
    """Why a machine cannot go to a host whatever its memory and CPU: cordoned, its rules, network full, no copy."""
    if host.closed:
        return f"{host.name} is cordoned"
    if why_not := forbidden(scene.world, host.name, vm, scene.together):
        return why_not
    if why_not := _network(scene, host, vm, horizon_s):
        return why_not
    found = copy_of(scene, host, vm, horizon_s)
    return found if isinstance(found, str) else None


def _network(scene: Scene, host: HostSpec, vm: VmState, horizon_s: int) -> str | None:
    """The pairs it serves come along: where they did not go before, there must be bandwidth for them."""
    world, config = scene.world, scene.config
    own = world.pairs_to(vm.name)
    added: dict[LinkKey, float] = {}
    for state, want in zip(own, scene.demand.at(horizon_s, [one.pair for one in own]), strict=True):
        for key in world.ways(state.pair.source, host.name):
            if key not in state.links:
                added[key] = added.get(key, 0.0) + want.bytes.need
    for key, rate in added.items():
        link = world.links.get(key)
        capacity = link.capacity_bytes_per_s if link else None
        if link is not None and capacity:
            total = needed_on(world, scene.demand, link, horizon_s) + rate
            if total > config.link_headroom * capacity:
                return f"{link.name} on the way to {host.name} would carry {megabits(total)} of {megabits(capacity)}"
    return None


def detour(scene: Scene, vm: VmState, host: str, horizon_s: int) -> float:
    """Bytes/s times links: what its pairs would load the network with if the machine were on `host`."""
    own = scene.world.pairs_to(vm.name)
    wants = scene.demand.at(horizon_s, [one.pair for one in own])
    return sum(want.bytes.need * len(scene.world.ways(want.pair.source, host)) for want in wants)


def copy_of(scene: Scene, host: HostSpec, vm: VmState, horizon_s: int) -> PreCopy | str:
    """What the migration itself would take, or why it should not be begun."""
    rate = _copy_rate(scene, scene.world.ways(vm.host, host.name), horizon_s)
    if isinstance(rate, str):
        return rate
    found = _estimate(vm, rate)
    if not found.converges and not (vm.spec and vm.spec.migration_auto_converge):
        written = megabits(vm.dirty_bytes_per_s or 0.0)
        return f"it would not converge: {vm.name} writes {written} of memory and {megabits(rate)} can be copied"
    limit_s = scene.config.migration_limit_s
    if found.total_s > limit_s:
        took = f"copying {vm.name} would take {found.total_s:.0f} s at {megabits(rate)}"
        return f"{took}, it is aborted after {limit_s:g} s"
    return found


def _estimate(vm: VmState, rate: float) -> PreCopy:
    """Of a guest that may be slowed down, the time of all rounds there can be is counted."""
    found = pre_copy(vm.memory_bytes, vm.dirty_bytes_per_s, rate)
    if found.converges or not (vm.spec and vm.spec.migration_post_copy):
        return found
    return post_copy(vm.memory_bytes, vm.dirty_bytes_per_s or 0.0, rate)


def _copy_rate(scene: Scene, way: Iterable[LinkKey], horizon_s: int) -> float | str:
    """Bytes/s for a copy: what is declared, and on shared links no more than they have left; or which has nothing."""
    config, world = scene.config, scene.world
    rate = config.migration_bytes_per_s
    for key in way if config.migration_over_links else ():
        link = world.links.get(key)
        capacity = link.capacity_bytes_per_s if link else None
        if link is None or not capacity:
            continue
        left = config.link_headroom * capacity
        left -= max(needed_on(world, scene.demand, link, one) for one in {NOW, horizon_s})
        if left < config.link_floor * capacity:
            return f"its own traffic would load {link.name}, which has nothing to spare {when(horizon_s)}"
        rate = min(rate, left)
    return rate


def move_s(scene: Scene, vm: VmState, copied: PreCopy) -> Seconds:
    """From decision to effect: as long as moves of this kind take here, or as the copy needs if that is longer."""
    about, config, leads = on_host(scene.world, vm.host, vm.memory_bytes), scene.config, scene.world.leads
    learnt_s = leads.p95(MigrateVm.kind, about, config.lead_priors_s)
    return leads.needed(MigrateVm.kind, config, about) + max(0.0, copied.total_s - learnt_s)
