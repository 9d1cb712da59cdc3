"""The planning context that every strategy is given, and what is needed in it: on machines, hosts and links."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import TypeVar

from cpdb import BytesPerS, Pair, Quantity, Seconds
from orchestrator.actions import Action, MigrateVm, moves_of, scalings_of
from orchestrator.bounds import LinkBounds
from orchestrator.config import NOW, CpuSettings, OrchestratorConfig
from orchestrator.demand import MEAN_OF, Demand, demands
from orchestrator.demand_table import PairDemand, Rate, Together, scaled_demand
from orchestrator.lead_times import NOWHERE, Circumstances
from orchestrator.needs import MachineNeeds, MachineTable, ceiling, machine_needs, machine_table, served_numbers
from orchestrator.onset import PEAK, Reading
from orchestrator.pair_table import LinkKey, PairGroups
from orchestrator.proposal import Evidence, Proposal, Refusal, Step, on_host
from orchestrator.relations import CpuRelation
from orchestrator.sums import NO_CORRECTION, Correction, link_corrections, served_cores
from orchestrator.world import LinkState, VmState, World, apply

# How long a need lasts is looked up within so many times the horizon at which it is seen.
LASTING_WITHIN = 6
NOTHING_LEARNT: Mapping[str, float] = MappingProxyType({})
Subject = TypeVar("Subject")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a pair may count on because it was asked for, in bytes/s, and the priority that it has with that."""

    bytes_per_s: BytesPerS
    priority: int


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """What a plan depends on: the world, the demand and the settings; made once, and again after each proposal.

    `together` names the machines that are just being moved as one, `planned` what the plan holds already, `granted`
    what was decided on request, `margins` are factors on the configured margin by kind of action, `untimely` names
    links whose shortages lately came at other times than foreseen.
    """

    world: World
    demand: Demand
    config: OrchestratorConfig
    together: frozenset[str] = frozenset()
    planned: tuple[Action, ...] = ()
    granted: Mapping[Pair, Grant] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    untimely: frozenset[str] = frozenset()
    _leads_s: dict[tuple[str, Circumstances], Seconds] = field(default_factory=dict, repr=False, compare=False)
    # Made anew for each snapshot of the world: who is where changes with it.
    _cores: dict[int, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _served: dict[tuple[str, int, Reading], float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _needed: dict[tuple[LinkKey, int], BytesPerS] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, world: World, config: OrchestratorConfig, margins: Mapping[str, float] = NOTHING_LEARNT
    ) -> "PlanningContext":
        """A world with its demand."""
        return cls(world, demands(world, config), config, margins=margins)

    def tuned(self, kind: str) -> "PlanningContext":
        """The same with the margin that this kind of action has earned by its verdicts."""
        factor = self.margins.get(kind, 1.0)
        return self if factor == 1.0 else replace(self, demand=self.demand.scaled(factor))

    def after(self, action: Action) -> "PlanningContext":
        """The context once an action is done."""
        return replace(self, world=apply(self.world, action), planned=(*self.planned, action))

    def joined(self) -> "PlanningContext":
        """Machines on their way into a service are seen in it; who is leaving still has its memory and its cores."""
        world = self.world
        for action in scalings_of(world.in_flight):
            world = apply(world, action).changed(vms=world.vms)
        return replace(self, world=world)

    def arrived(self) -> "PlanningContext":
        """The same, and machines that move are seen where they are going, or another would be sent after them."""
        world = self.joined().world
        for move in moves_of(self.world.in_flight):
            world = apply(world, move)
        return replace(self, world=world)

    def needs(self, horizon_s: int, reading: Reading = PEAK) -> MachineNeeds:
        """What the machines need, by number."""
        return machine_needs(self.world, self.demand, horizon_s, reading)

    @property
    def machines(self) -> MachineTable:
        """The machines, numbered."""
        return machine_table(self.world)

    def cores(self, vm: VmState, horizon_s: int) -> float:
        """What the machine would take if it got what it needs."""
        needed = self._cores.get(horizon_s)
        if needed is None:
            cores = zip(self.machines.places, self.needs(horizon_s).cores, strict=True)
            needed = self._cores[horizon_s] = dict(cores)
        return min(ceiling(vm), needed[vm.name])

    def served(self, host: str, horizon_s: int, reading: Reading = PEAK) -> float:
        """What the machines on a host would take together, reconciled with the forecast of the host itself."""
        key = host, horizon_s, reading
        if key not in self._served:
            self._served[key] = served_cores(self.demand, self.world, (horizon_s, reading), (host,)).item()
        return self._served[key]

    def asked_on(self, key: LinkKey, horizon_s: int, virtual_ip: str | None = None) -> Together:
        """What the pairs on a link ask for, or those of one virtual IP among them."""
        if virtual_ip is not None:
            return _asked(self, self.world.table.of_service_on_link, (virtual_ip, key), horizon_s)
        return _asked(self, self.world.table.on_link, key, horizon_s)

    def asked_of(self, virtual_ip: str, horizon_s: int) -> Together:
        """What the pairs of a virtual IP ask for."""
        return _asked(self, self.world.table.of_service, virtual_ip, horizon_s)

    def needed(self, key: LinkKey, horizon_s: int) -> BytesPerS:
        """What a link will have to carry; kept."""
        found = self._needed.get((key, horizon_s))
        if found is None:
            found = self._needed[key, horizon_s] = needed_on(self, self.world.links[key], horizon_s)
        return found

    def bounds(self, horizon_s: int) -> LinkBounds:
        """What links will carry at most."""
        found: LinkBounds | None = self.world.index.kept.get(key := (LinkBounds, self.demand, horizon_s))
        if found is None:
            moves = moves_of(self.world.in_flight)
            copying = partial(copying_on, self) if moves else lambda _key: 0.0
            found = self.world.index.kept[key] = LinkBounds.of(self.world, self.demand, horizon_s, copying)
        return found

    def lead_s(self, kind: str, about: Circumstances = NOWHERE) -> Seconds:
        """How long that kind of action takes from decision to effect, half a poll and the decision included."""
        found = self._leads_s.get((kind, about))
        if found is None:
            found = self._leads_s[kind, about] = self.world.leads.needed(kind, self.config, about)
        return found

    def acting_horizons(self, kind: str, about: Circumstances = NOWHERE) -> tuple[int, ...]:
        """The horizons that this kind of action looks at: now, and the shortest that its lead time fits into.

        Looking further would act earlier than needed, and hold others back for nothing.
        """
        if self.config.policy == "reactive":
            return (NOW,)
        horizon_s = self.config.demand.horizon_for(self.lead_s(kind, about))
        return (NOW,) if horizon_s is None else (NOW, horizon_s)


def _asked(
    context: PlanningContext, groups: PairGroups[Key], key: Key, horizon_s: int, reading: Reading = PEAK
) -> Together:
    return context.demand.table(horizon_s, reading).of_groups(groups).at(groups.places.get(key))


def propose_each(
    context: PlanningContext,
    subjects: Iterable[Subject],
    decide: Callable[[PlanningContext, Subject], Iterable[Step | Refusal]],
) -> Proposal:
    """One subject after the other, each in the context that the steps before it leave."""
    found: list[Step | Refusal] = []
    for subject in subjects:
        items = list(decide(context, subject))
        found += items
        for item in items:
            if isinstance(item, Step):
                context = context.after(item.action)
    return Proposal.of(found)


def links_of(context: PlanningContext, action: MigrateVm) -> tuple[LinkKey, ...]:
    """The links that a copy loads; () when copies have a network of their own."""
    return context.world.network.ways(action.before, action.after) if context.config.moves.over_links else ()


def copying_on(context: PlanningContext, key: LinkKey) -> BytesPerS:
    """What the copies under way take from a link in this direction, in bytes/s."""
    moves = moves_of(context.world.in_flight)
    return sum(move.bytes_per_s or 0.0 for move in moves if move.bytes_per_s and key in links_of(context, move))


def evidence_of(context: PlanningContext, rate: Rate, horizon_s: int) -> Evidence | None:
    """The forecast behind a rate, None when only measurements are."""
    forecast, level = rate.forecast, context.config.demand.level
    if forecast is None or horizon_s == NOW:
        return None
    return Evidence(
        pair=str(forecast.pair),
        quantity=forecast.quantity.value,
        model=forecast.model,
        issued_at=forecast.issued_at,
        horizon_s=forecast.horizon_s,
        level=level,
        q05=forecast.at(0.05),
        q50=forecast.at(0.5),
        q90=forecast.at(0.9),
        value=forecast.at(level),
        trusted_s=forecast.trust.horizon_s,
        trust=forecast.trust.numbers(),
    )


@dataclass(frozen=True, slots=True)
class VmNeed:
    """Cores that a machine needs within `horizon_s`; `rate` is of the relation's feature.

    `leading` is the pair that asks for most, if any does; `own` what it needs beside its communications, in cores.
    """

    vm: str
    horizon_s: int
    cores: float
    rate: float
    relation: CpuRelation | None
    _leading: Callable[[], PairDemand | None] = field(repr=False, compare=False)
    own: Rate | None = None

    @property
    def leading(self) -> PairDemand | None:
        """The demand of the pair that asks for most."""
        return self._leading()

    @property
    def by_itself(self) -> bool:
        """Whether most of it is beside the communications."""
        return self.own is not None and 2 * self.own.need > self.cores

    @property
    def about(self) -> Pair | str | None:
        """Whose forecasts say how long it lasts: a pair's, those of the machine itself (its name), or nobody's."""
        leading = None if self.by_itself else self.leading
        return self.vm if self.by_itself else None if leading is None else leading.pair

    @property
    def proof(self) -> Rate | None:
        """The rate whose forecast stands for the need."""
        if self.by_itself:
            return self.own
        return self.leading.rate_of(self.relation.feature) if self.leading and self.relation else None


def vm_need(context: PlanningContext, vm: VmState, horizon_s: int, reading: Reading = PEAK) -> VmNeed:
    """What a machine needs, as `machine_needs`."""
    needs, place = context.needs(horizon_s, reading), context.machines.places[vm.name]
    number = needs.relation[place]
    relation = vm.relations[number] if number >= 0 else None
    rate = needs.rate_of(place, relation.feature) if relation else 0.0
    own, forecast = needs.own_cores[place], vm.beside.get((needs.far_s[place], Quantity.CPU_PEAK))
    beside = Rate(0.0, own, own, 0.0, forecast) if forecast is not None else None
    return VmNeed(vm.name, horizon_s, needs.cores[place], rate, relation, partial(needs.leading, place), beside)


def most(needs: Iterable[VmNeed]) -> VmNeed:
    """The largest need; the nearest of equals."""
    return max(needs, key=lambda one: (one.cores, -one.horizon_s))


def wanted_limit(need: VmNeed, settings: CpuSettings) -> float:
    """The CPU limit in cores that this need asks for, in whole steps.

    What is measured is a mean of seconds and needs headroom; a forecast's quantile is of single ones.
    """
    share = settings.headroom if need.horizon_s == NOW else 1.0
    steps = ceil(need.cores / share / settings.step_cores - 1e-9)
    return round(steps * settings.step_cores, 6)


def until_back(context: PlanningContext, kind: str, about: Circumstances, cooldown_s: Seconds) -> tuple[int, ...]:
    """Now and each horizon up to the first that leaves time to give back what is taken, its cooldown included."""
    if context.config.policy == "reactive":
        return (NOW,)
    least_s = max(context.lead_s(kind, about), cooldown_s)
    horizons_s = context.config.demand.every_horizon_s
    return (NOW, *horizons_s[: sum(one < least_s for one in horizons_s) + 1])


def until_resized_back(context: PlanningContext, vm: VmState, kind: str) -> tuple[int, ...]:
    """The same for the size of a machine: who takes it back decides a cooldown, and up to a cycle, later."""
    about, timing = on_host(context.world, vm.host), context.config.timing
    again_s = context.config.guard.resize_cooldown_s + context.lead_s(kind, about) + timing.cycle_s
    return until_back(context, kind, about, again_s)


def lasting_s(context: PlanningContext, about: Pair | str, horizons_s: Iterable[int]) -> tuple[Seconds, int] | None:
    """How long a need will last within the longest of these that is trusted, and that; None when none says so.

    `about`: a pair, or the name of a machine whose need is beside its communications.
    A need that is there for a share s of a window has a mean of about s times its peak.
    """
    world = context.world
    known = world.vms.get(about) if isinstance(about, str) else world.pairs.get(about)
    forecasts = {} if known is None else known.beside if isinstance(known, VmState) else known.forecasts
    for longest in sorted(horizons_s, reverse=True):
        for quantity in (Quantity.CONNECTIONS_PEAK, Quantity.BYTES_PEAK, Quantity.CPU_PEAK):
            peak, mean = forecasts.get((longest, quantity)), forecasts.get((longest, MEAN_OF[quantity]))
            if peak is not None and mean is not None and context.demand.believes(peak):
                middle = peak.at(0.5)
                return (longest * min(1.0, mean.at(0.5) / middle), longest) if middle > 0 else None
    return None


def too_short(context: PlanningContext, about: Pair | str, name: str, lead_s: Seconds) -> str | None:
    """Why what is called `name` would not pay: it must be in effect for a while before the need has passed.

    None when it pays, or when no forecast says how long the need lasts: one that begins at the end of the longest
    trusted window may last.
    """
    least_s, begins_s = lead_s + context.config.timing.min_hold_s, context.config.demand.horizon_for(lead_s)
    if begins_s is None:
        return None
    within = (one for one in context.config.demand.every_horizon_s if one <= LASTING_WITHIN * begins_s)
    found = lasting_s(context, about, within)
    if found is None or found[0] >= min(least_s, found[1] - begins_s):
        return None
    lasts_s, longest = found
    return f"too short: about {lasts_s:.1f} s of the need lie within {longest} s, {name} pays from {least_s:.1f} s"


def needed_on(context: PlanningContext, link: LinkState, horizon_s: int, reading: Reading = PEAK) -> BytesPerS:
    """What a link will have to carry: its pairs together and what is beside them, reconciled with its own forecast."""
    asked = _asked(context, context.world.table.on_link, link.key, horizon_s, reading)
    beside = others_on(context, link, asked.measured, horizon_s, reading)
    found = correction_on(context, link.key, horizon_s, reading)
    return max(asked.measured + beside, asked.bytes_per_s + beside + found.within(asked.bytes_per_s))


def correction_on(context: PlanningContext, key: LinkKey, horizon_s: int, reading: Reading = PEAK) -> Correction:
    """What a trusted forecast of the link itself says beyond its pairs."""
    return link_corrections(context.demand, horizon_s, reading).get(key, NO_CORRECTION)


def others_on(
    context: PlanningContext, link: LinkState, measured: BytesPerS, horizon_s: int, reading: Reading = PEAK
) -> BytesPerS:
    """What the link will carry beside its pairs, of which so much is measured: what is there, and more if foreseen.

    A copy that has just begun is not measured yet, but it is there.
    """
    more = max(0.0, correction_on(context, link.key, horizon_s, reading).beside)
    return max(0.0, link.bytes_per_s - measured, copying_on(context, link.key)) + more


def fits_link(context: PlanningContext, link: LinkState, horizon_s: int) -> bool:
    """Whether a link carries all that is asked of it even if every pair needed its most at once."""
    asked = context.asked_on(link.key, horizon_s)
    more = max(0.0, correction_on(context, link.key, horizon_s).within(asked.bytes_per_s))
    needed = asked.at_most + more + others_on(context, link, asked.measured, horizon_s)
    return needed <= context.config.bandwidth.trigger * (link.capacity_bytes_per_s or 0.0)


def load_now(vm: VmState, need: VmNeed) -> float:
    """What the machine will take from its host under its present limit, in cores."""
    return min(vm.cores_limit, need.cores)


def residents(world: World, host: str) -> list[VmState]:
    """Machines on a host, and those on their way to it: while a machine moves, it counts on both sides."""
    arriving = {move.vm for move in moves_of(world.in_flight) if move.after == host}
    coming = (world.vms[name] for name in arriving if name in world.vms and world.vms[name].host != host)
    return sorted([*world.on_host(host), *coming], key=lambda vm: vm.name)


def served_demands(context: PlanningContext, vm: VmState, horizon_s: int, reading: Reading = PEAK) -> list[PairDemand]:
    """The demands that a machine has to serve at one horizon, each as far as it is the machine's."""
    demand, table = context.demand, context.demand.table(horizon_s, reading)
    served = served_numbers(context.world, vm.name)
    return [scaled_demand(demand.view(table, number), share) for number, share in served]
