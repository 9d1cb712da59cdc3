"""The planning context that every strategy is given, and what is needed in it: on machines, hosts and links."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from types import MappingProxyType
from typing import TypeVar

from cpdb import BytesPerS, Pair, Quantity, Seconds
from orchestrator.actions import Action, MigrateVm, moves_of, scalings_of
from orchestrator.config import NOW, CpuSettings, OrchestratorConfig
from orchestrator.demand import MEAN_OF, Demand, PairDemand, Rate, demands, together
from orchestrator.lead_times import NOWHERE, Circumstances
from orchestrator.onset import PEAK, Reading
from orchestrator.proposal import Evidence, Proposal, Refusal, Step, on_host
from orchestrator.relations import CpuRelation
from orchestrator.world import LinkKey, LinkState, VmState, World, apply

# A starved machine shows only what it was given; asking for this much more finds out step by step.
STARVED_FACTOR = 1.5
# How long a need lasts is looked up within so many times the horizon at which it is seen.
LASTING_WITHIN = 6
NOTHING_LEARNT: Mapping[str, float] = MappingProxyType({})
Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a pair may count on because it was asked for, in bytes/s, and the priority that it has with that."""

    bytes_per_s: BytesPerS
    priority: int


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """What a plan depends on: the world, the demand and the settings; made once, and again after each proposal.

    `together` names the machines that are just being moved as one, `planned` what the plan holds already, `granted`
    what was decided on request, `margins` are factors on the configured margin by kind of action. Needs are kept: they
    do not depend on where machines are, so `moved` takes them along.
    """

    world: World
    demand: Demand
    config: OrchestratorConfig
    together: frozenset[str] = frozenset()
    planned: tuple[Action, ...] = ()
    granted: Mapping[Pair, Grant] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    _cores: dict[tuple[str, int], float] = field(default_factory=dict, repr=False, compare=False)
    # Made anew for each snapshot of the world: who is where changes with it.
    _served: dict[tuple[str, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _needed: dict[tuple[LinkKey, int], BytesPerS] = field(default_factory=dict, init=False, repr=False, compare=False)
    _tight: dict[int, frozenset[LinkKey]] = field(default_factory=dict, init=False, repr=False, compare=False)
    # By horizon and link: what its pairs may need if all needed their most at once, and what is measured of them.
    _at_most: dict[int, Mapping[LinkKey, Sequence[BytesPerS]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(
        cls, world: World, config: OrchestratorConfig, margins: Mapping[str, float] = NOTHING_LEARNT
    ) -> "PlanningContext":
        """A world with its demand."""
        return cls(world, demands(world, config), config, margins=margins)

    def believing(self) -> "PlanningContext":
        """The same if every forecast were trusted: what is refused for want of trust is seen by it."""
        return replace(self, demand=demands(self.world, self.config, believing=True), _cores={})

    def tuned(self, kind: str) -> "PlanningContext":
        """The same with the margin that this kind of action has earned by its verdicts."""
        factor = self.margins.get(kind, 1.0)
        return self if factor == 1.0 else replace(self, demand=self.demand.scaled(factor), _cores={})

    def after(self, action: Action) -> "PlanningContext":
        """The context once an action is done."""
        return replace(self, world=apply(self.world, action), planned=(*self.planned, action), _cores={})

    def moved(self, action: Action) -> "PlanningContext":
        """The same for an action that leaves what machines need as it is."""
        return replace(self, world=apply(self.world, action), planned=(*self.planned, action))

    def joined(self) -> "PlanningContext":
        """Machines on their way into a service are seen in it; who is leaving still has its memory and its cores."""
        world = self.world
        for action in scalings_of(world.in_flight):
            world = replace(apply(world, action), vms=world.vms)
        return replace(self, world=world)

    def arrived(self) -> "PlanningContext":
        """The same, and machines that move are seen where they are going, or another would be sent after them."""
        world = self.joined().world
        for move in moves_of(self.world.in_flight):
            world = apply(world, move)
        return replace(self, world=world)

    def cores(self, vm: VmState, horizon_s: int) -> float:
        """What the machine would take if it got what it needs."""
        key = vm.name, horizon_s
        if key not in self._cores:
            self._cores[key] = load_served(vm, vm_need(self, vm, horizon_s))
        return self._cores[key]

    def served(self, host: str, horizon_s: int) -> float:
        """The same for all machines on a host."""
        key = host, horizon_s
        if key not in self._served:
            self._served[key] = sum(self.cores(vm, horizon_s) for vm in self.world.on_host(host))
        return self._served[key]

    def needed(self, key: LinkKey, horizon_s: int) -> BytesPerS:
        """What a link will have to carry."""
        if (key, horizon_s) not in self._needed:
            self._needed[key, horizon_s] = needed_on(self, self.world.links[key], horizon_s)
        return self._needed[key, horizon_s]

    def tight_links(self, horizon_s: int) -> frozenset[LinkKey]:
        """Links that might have less left than weights are to leave, if one service sent everything over them."""
        if horizon_s not in self._tight:
            world, settings = self.world, self.config
            all_of = (self.demand.at(horizon_s, world.pairs_of(address)) for address in world.virtual_ips)
            most = max((sum(one.bytes.need for one in own) for own in all_of), default=0.0)
            share = (1.0 - settings.weights.below) * settings.bandwidth.headroom
            self._tight[horizon_s] = frozenset(
                key
                for key, link in world.links.items()
                if link.capacity_bytes_per_s and self.needed(key, horizon_s) + most > share * link.capacity_bytes_per_s
            )
        return self._tight[horizon_s]

    def fits(self, link: LinkState, horizon_s: int) -> bool:
        """Whether a link carries all that is asked of it even if every pair needed its most at once.

        True for most links most of the time, and cheap: who acts where `needed` exceeds the trigger asks this first.
        """
        if horizon_s not in self._at_most:
            sums: dict[LinkKey, list[BytesPerS]] = defaultdict(lambda: [0.0, 0.0])
            for state in self.world.pairs.values():
                rate = self.demand.of(state.pair, horizon_s).bytes
                most = max(rate.need, rate.typical, rate.measured)
                for key in state.links:
                    total = sums[key]
                    total[0] += most
                    total[1] += rate.measured
            self._at_most[horizon_s] = sums
        most, measured = self._at_most[horizon_s].get(link.key, (0.0, 0.0))
        needed = most + max(0.0, link.bytes_per_s - measured, copying_on(self, link.key))
        return needed <= self.config.bandwidth.trigger * (link.capacity_bytes_per_s or 0.0)

    def lead_s(self, kind: str, about: Circumstances = NOWHERE) -> Seconds:
        """How long that kind of action takes from decision to effect, half a poll and the decision included."""
        return self.world.leads.needed(kind, self.config, about)

    def acting_horizons(self, kind: str, about: Circumstances = NOWHERE) -> tuple[int, ...]:
        """The horizons that this kind of action looks at: now, and the shortest that its lead time fits into.

        Looking further would act earlier than needed, and hold others back for nothing.
        """
        if self.config.policy == "reactive":
            return (NOW,)
        horizon_s = self.world.leads.horizon_s(kind, self.config, about)
        return (NOW,) if horizon_s is None else (NOW, horizon_s)

    def evidence(self, rate: Rate, horizon_s: int) -> Evidence | None:
        """The forecast behind a rate, None when only measurements are."""
        forecast, level = rate.forecast, self.config.demand.level
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


def vm_need(context: PlanningContext, vm: VmState, horizon_s: int, reading: Reading = PEAK) -> VmNeed:
    """Through the learnt relations where there are any, else what is measured; never below what is measured.

    Of several relations the one that asks for most counts: each of them knows a need that the other may miss.
    """
    talk = served_demands(context, vm, horizon_s, reading)
    measured = VmNeed(vm.name, horizon_s, _least(vm), leading=_leading(talk))
    if not vm.relations or not talk:
        return measured
    need = max((_related(vm, one, talk, horizon_s) for one in vm.relations), key=lambda one: one.cores)
    # A relation may be wrong: what is measured stands for itself.
    return need if need.cores >= measured.cores else measured


def _least(vm: VmState) -> float:
    return vm.cores_used * (STARVED_FACTOR if vm.starved else 1.0)


def _related(vm: VmState, relation: CpuRelation, talk: Sequence[PairDemand], horizon_s: int) -> VmNeed:
    rate = together(one.rate_of(relation.feature) for one in talk)
    return VmNeed(vm.name, horizon_s, relation.cores(rate), rate, relation, _leading(talk))


def _leading(talk: Iterable[PairDemand]) -> PairDemand | None:
    return max(talk, key=lambda one: one.bytes.need, default=None)


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


def ceiling(vm: VmState) -> float:
    """The most that a machine may ever use, in cores."""
    return max(vm.cores_limit, vm.spec.cpu_cores_max) if vm.spec else vm.cores_limit


def until_back(context: PlanningContext, kind: str, about: Circumstances, cooldown_s: Seconds) -> tuple[int, ...]:
    """Now and each horizon up to the first that leaves time to give back what is taken, its cooldown included."""
    if context.config.policy == "reactive":
        return (NOW,)
    least_s = max(context.lead_s(kind, about), cooldown_s)
    horizons_s = context.config.demand.every_horizon_s
    return (NOW, *horizons_s[: sum(one < least_s for one in horizons_s) + 1])


def until_resized_back(context: PlanningContext, vm: VmState, kind: str) -> tuple[int, ...]:
    """The same for the size of a machine."""
    return until_back(context, kind, on_host(context.world, vm.host), context.config.guard.resize_cooldown_s)


def lasting_s(context: PlanningContext, pair: Pair, horizons_s: Iterable[int]) -> tuple[Seconds, int] | None:
    """How long a pair's need will last within the longest of these that is trusted, and that; None when none says so.

    A need that is there for a share s of a window has a mean of about s times its peak.
    """
    forecasts = context.world.pairs[pair].forecasts if pair in context.world.pairs else {}
    for longest in sorted(horizons_s, reverse=True):
        for quantity in (Quantity.CONNECTIONS_PEAK, Quantity.BYTES_PEAK):
            peak, mean = forecasts.get((longest, quantity)), forecasts.get((longest, MEAN_OF[quantity]))
            if peak is not None and mean is not None and context.demand.believes(peak):
                middle = peak.at(0.5)
                return (longest * min(1.0, mean.at(0.5) / middle), longest) if middle > 0 else None
    return None


def too_short(context: PlanningContext, pair: Pair, name: str, lead_s: Seconds) -> str | None:
    """Why what is called `name` would not pay: it must be in effect for a while before the need has passed.

    None when it pays, or when no forecast says how long the need lasts: one that begins at the end of the longest
    trusted window may last.
    """
    least_s, begins_s = lead_s + context.config.timing.min_hold_s, context.config.demand.horizon_for(lead_s)
    if begins_s is None:
        return None
    within = (one for one in context.config.demand.every_horizon_s if one <= LASTING_WITHIN * begins_s)
    found = lasting_s(context, pair, within)
    if found is None or found[0] >= min(least_s, found[1] - begins_s):
        return None
    lasts_s, longest = found
    return f"too short: about {lasts_s:.1f} s of the need lie within {longest} s, {name} pays from {least_s:.1f} s"


def needed_on(context: PlanningContext, link: LinkState, horizon_s: int) -> BytesPerS:
    """What a link will have to carry: its pairs together, and what is measured on it beside them.

    A copy that has just begun is not measured yet, but it is there.
    """
    wants = [one.bytes for one in context.demand.at(horizon_s, context.world.pairs_on(link.key))]
    beside = link.bytes_per_s - sum(one.measured for one in wants)
    return together(wants) + max(0.0, beside, copying_on(context, link.key))


def load_now(vm: VmState, need: VmNeed) -> float:
    """What the machine will take from its host under its present limit, in cores."""
    return min(vm.cores_limit, need.cores)


def load_served(vm: VmState, need: VmNeed) -> float:
    """What the machine would take from its host if it got what it needs, in cores."""
    return min(ceiling(vm), need.cores)


def residents(world: World, host: str) -> list[VmState]:
    """Machines on a host, and those on their way to it: while a machine moves, it counts on both sides."""
    arriving = {move.vm for move in moves_of(world.in_flight) if move.after == host}
    coming = (world.vms[name] for name in arriving if name in world.vms and world.vms[name].host != host)
    return sorted([*world.on_host(host), *coming], key=lambda vm: vm.name)


def served_demands(context: PlanningContext, vm: VmState, horizon_s: int, reading: Reading = PEAK) -> list[PairDemand]:
    """The demands that a machine has to serve at one horizon.

    Where a virtual IP's connections are placed one by one, a pair talks to all destinations, to each by its share.
    """
    whole = [one.pair for one in context.world.pairs_to(vm.name) if not _spread(context.world, one.pair.virtual_ip)]
    found = context.demand.at(horizon_s, whole, reading)
    for vip in context.world.virtual_ips.values():
        if vip.by_connection and any(one.name == vm.name for one in vip.destinations):
            weights, health = context.world.wanted.weights.get(vip.address, {}), context.world.health(vip.address)
            share = vip.shares(weights, health).get(vm.name, 0.0)
            if share > 0:
                own = context.demand.at(horizon_s, context.world.pairs_of(vip.address), reading)
                found += [_part(one, share) for one in own]
    return found


def _spread(world: World, address: str) -> bool:
    vip = world.virtual_ips.get(address)
    return vip is not None and vip.by_connection


def _part(one: PairDemand, share: float) -> PairDemand:
    return replace(one, bytes=_scaled(one.bytes, share), connections=_scaled(one.connections, share))


def _scaled(rate: Rate, share: float) -> Rate:
    return replace(
        rate,
        measured=share * rate.measured,
        typical=share * rate.typical,
        need=share * rate.need,
        chance=share * rate.chance,
    )
