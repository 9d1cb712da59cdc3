"""What each machine will need in CPU, and what that makes of its host."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from cpdb import BytesPerS, Pair, Quantity, Seconds
from orchestrator.actions import Action, MigrateVm
from orchestrator.config import NOW, OrchestratorConfig
from orchestrator.demand import Demand, PairDemand, serving, together
from orchestrator.relations import CpuRelation
from orchestrator.steps import on_host
from orchestrator.world import LinkKey, LinkState, VmState, World


def links_of(world: World, action: MigrateVm) -> tuple[LinkKey, ...]:
    """The links that a copy loads; () when copies have a network of their own."""
    return world.ways(action.before, action.after) if world.shared_copies else ()


def copying_on(world: World, key: LinkKey) -> BytesPerS:
    """What the copies under way take from a link in this direction, in bytes/s."""
    moves = (one for one in world.in_flight if isinstance(one, MigrateVm) and one.bytes_per_s)
    return sum(one.bytes_per_s or 0.0 for one in moves if key in links_of(world, one))


def crowded(action: MigrateVm, others: Sequence[Action], world: World, config: OrchestratorConfig) -> str | None:
    """Why one more copy would be too many at a time: in all, at one of its hosts, or on one of its links."""
    moves = [one for one in others if isinstance(one, MigrateVm)]
    if len(moves) >= config.moves.at_once:
        return f"one migration at a time: {len(moves)} machines are moving, {config.moves.at_once} may at once"
    return next(_crowds(action, moves, world, config), None)


def _crowds(action: MigrateVm, moves: Sequence[MigrateVm], world: World, config: OrchestratorConfig) -> Iterator[str]:
    for host in (action.before, action.after):
        busy = [one.vm for one in moves if host in (one.before, one.after)]
        if len(busy) >= config.moves.per_host:
            yield f"one migration at a time: {', '.join(busy)} is moving from or to {host}"
    own = set(links_of(world, action))
    for a, b in sorted(own):
        busy = [one.vm for one in moves if (a, b) in links_of(world, one)]
        if len(busy) >= config.moves.per_link:
            yield f"one migration at a time: {', '.join(busy)} is moving over {a}>{b}"


# A starved machine shows only what it was given; asking for this much more finds out step by step.
STARVED_FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class VmNeed:
    """Cores that a machine needs within `horizon_s`; `rate` is of the relation's feature.

    `leading` is the pair that asks for most, if any does.
    """

    vm: str
    horizon_s: int
    cores: float
    rate: float = 0.0
    relation: CpuRelation | None = None
    leading: PairDemand | None = None


def vm_need(world: World, demand: Demand, vm: VmState, horizon_s: int) -> VmNeed:
    """Through the learnt relations where there are any, else what is measured; never below what is measured.

    Of several relations the one that asks for most counts: each of them knows a need that the other may miss.
    """
    talk = serving(world, demand, vm, horizon_s)
    measured = VmNeed(vm.name, horizon_s, _least(vm), leading=_leading(talk))
    if not vm.relations or not talk:
        return measured
    need = max((_related(vm, one, talk, horizon_s) for one in vm.relations), key=lambda one: one.cores)
    # A relation may be wrong: what is measured stands for itself.
    return need if need.cores >= measured.cores else measured


def _least(vm: VmState) -> float:
    return vm.cores_used * (STARVED_FACTOR if vm.starved else 1.0)


def _related(vm: VmState, relation: CpuRelation, talk: Sequence[PairDemand], horizon_s: int) -> VmNeed:
    by_connections = relation.feature == "connections_per_s"
    rate = together(one.connections if by_connections else one.bytes for one in talk)
    return VmNeed(vm.name, horizon_s, relation.cores(rate), rate, relation, _leading(talk))


def _leading(talk: Iterable[PairDemand]) -> PairDemand | None:
    return max(talk, key=lambda one: one.bytes.need, default=None)


def most(needs: Iterable[VmNeed]) -> VmNeed:
    """The largest need; the nearest of equals."""
    return max(needs, key=lambda one: (one.cores, -one.horizon_s))


def wanted_limit(need: VmNeed, config: OrchestratorConfig) -> float:
    """The CPU limit in cores at which this need leaves headroom, in whole steps."""
    steps = ceil(need.cores / config.cpu.headroom / config.cpu.step_cores - 1e-9)
    return round(steps * config.cpu.step_cores, 6)


def ceiling(vm: VmState) -> float:
    """The most that a machine may ever use, in cores."""
    return max(vm.cores_limit, vm.spec.cpu_cores_max) if vm.spec else vm.cores_limit


def until_back(world: World, vm: VmState, kind: str, config: OrchestratorConfig) -> tuple[int, ...]:
    """Now and each horizon up to the first that leaves time to give back what is taken, its cooldown included."""
    if config.policy == "reactive":
        return (NOW,)
    least_s = max(world.leads.needed(kind, config, on_host(world, vm.host)), config.guard.resize_cooldown_s)
    nearer = sum(one < least_s for one in config.demand.horizons_s)
    return (NOW, *config.demand.horizons_s[: nearer + 1])


def lasting_s(world: World, pair: Pair, config: OrchestratorConfig) -> Seconds | None:
    """How long a pair's need will last within the longest horizon; None when no forecast says anything about it.

    A need that is there for a share s of a window has a mean of about s times its peak.
    """
    longest = max(config.demand.horizons_s)
    forecasts = world.pairs[pair].forecasts if pair in world.pairs else {}
    peak = forecasts.get((longest, Quantity.CONNECTIONS_PEAK)) or forecasts.get((longest, Quantity.BYTES_PEAK))
    mean = forecasts.get((longest, Quantity.CONNECTIONS_MEAN)) or forecasts.get((longest, Quantity.BYTES_MEAN))
    if peak is None or mean is None or peak.at(0.5) <= 0:
        return None
    return longest * min(1.0, mean.at(0.5) / peak.at(0.5))


def too_short(world: World, pair: Pair, what: tuple[str, Seconds], config: OrchestratorConfig) -> str | None:
    """Why it would not pay: `what` (its name, its lead time) must be in effect for a while before the need has passed.

    None when it pays, or when no forecast says how long the need lasts.
    """
    name, lead_s = what
    lasts_s = lasting_s(world, pair, config)
    least_s = lead_s + config.timing.min_hold_s
    if lasts_s is None or lasts_s >= least_s:
        return None
    longest = max(config.demand.horizons_s)
    return f"too short: about {lasts_s:.1f} s of the need lie within {longest} s, {name} pays from {least_s:.1f} s"


def needed_on(world: World, demand: Demand, link: LinkState, horizon_s: int) -> BytesPerS:
    """What a link will have to carry: its pairs together, and what is measured on it beside them.

    A copy that has just begun is not measured yet, but it is there.
    """
    wants = [one.bytes for one in demand.at(horizon_s, world.pairs_on(link.key))]
    beside = link.bytes_per_s - sum(one.measured for one in wants)
    return together(wants) + max(0.0, beside, copying_on(world, link.key))


def load_now(vm: VmState, need: VmNeed) -> float:
    """What the machine will take from its host under its present limit, in cores."""
    return min(vm.cores_limit, need.cores)


def load_served(vm: VmState, need: VmNeed) -> float:
    """What the machine would take from its host if it got what it needs, in cores."""
    return min(ceiling(vm), need.cores)


def residents(world: World, host: str) -> list[VmState]:
    """Machines on a host, and those on their way to it: while a machine moves, it counts on both sides."""
    arriving = {one.vm for one in world.in_flight if isinstance(one, MigrateVm) and one.after == host}
    coming = (world.vms[name] for name in arriving if name in world.vms and world.vms[name].host != host)
    return sorted([*world.on_host(host), *coming], key=lambda vm: vm.name)
