"""Follows, of forecasts and what is measured, whichever rule would lately have been cheaper for a machine's CPU limit.

What either rule would have allowed, and what was needed, is known afterwards, so both are counted all the time: each
decides for itself in a shadow, with the limits that it would have set. Following the leader with forgetting is the
method of Freund and Schapire (A decision-theoretic generalization of on-line learning, 1997) and of Herbster and
Warmuth (Tracking the best expert, 1998) with two experts and no draw; what is bounded is how far a leader can be ahead,
so that one who teaches a pattern and breaks it gains no more than that.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cpdb import ActionRecord, OutcomeKind, RuleReport, Seconds, Store, Withdrawal
from orchestrator.actions import SetCpuLimit
from orchestrator.config import OWNER, OrchestratorConfig
from orchestrator.context import PlanningContext, as_reacting
from orchestrator.demand import NOBODY_REACTS
from orchestrator.guards.guard import guard
from orchestrator.needs import CONNECTIONS
from orchestrator.plan import Plan
from orchestrator.proposal import record
from orchestrator.strategies import cpu
from orchestrator.world import VmState, World, apply

# A rule leads once it is cheaper by what so many seconds short of the whole everyday limit cost, and is never counted
# as farther ahead than by so many.
LEADS_S, MOST_S = 1.0, 5.0
# No decision stands for a longer time: nobody looked in between.
LONGEST_S = 2.0
# Above this share of its limit a machine shows only what it was given.
HELD_SHARE = 0.95
# So long a shadow remembers what it did: guards look no farther back.
KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class Lead:
    """By how much forecasts were cheaper than reacting (below 0: dearer), in core-seconds, and whether they count."""

    core_s: float = 0.0
    foresees: bool = True

    def after(self, gain_core_s: float, kept: float, unit: float) -> "Lead":
        """What it comes to after so much more was gained, with a share `kept` of what was; `unit` is as in `LEADS_S`.

        It turns only beyond the other side of 0, so between two turns at least `LEADS_S` units were gained or lost.
        """
        most = MOST_S * unit
        lead = min(most, max(-most, kept * self.core_s + gain_core_s))
        foresees = lead >= -LEADS_S * unit if self.foresees else lead > LEADS_S * unit
        return Lead(lead, foresees)

    def describe(self, hedge_s: Seconds) -> str:
        """For people, why what is measured counts."""
        cost = f"cost {-self.core_s:.1f} core-seconds more" if self.core_s < 0 else "were hardly cheaper"
        return f"follows measured need: in the last {hedge_s:g} s forecasts {cost} than reacting"


class ShadowLimits:
    """The CPU limits that one rule alone would have set, guards and cooldowns included."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[float, int]] = {}
        self._done: deque[ActionRecord] = deque()

    def limit(self, vm: VmState) -> float:
        """Cores that it allows a machine now; those that are there until it has decided."""
        return self._sizes.get(vm.name, (vm.cores_limit, vm.vcpus))[0]

    def advance(self, context: PlanningContext) -> None:
        """Decides once, in a context that asks for this rule; that is in effect before the next decision."""
        world, now = context.world, context.world.now
        world = world.changed(vms={name: self._own(vm) for name, vm in world.vms.items()}, in_flight=())
        context = replace(context, world=world)
        while self._done and self._done[-1].issued_at < now - KEPT_S:
            self._done.pop()
        for step in guard(Plan(cpu.propose(context).steps), context, tuple(self._done)).allowed:
            if not step.waits:
                world = apply(world, step.action)
                self._done.appendleft(replace(record(step, "shadow", now), outcome=OutcomeKind.DONE))
        self._sizes = {name: (vm.cores_limit, vm.vcpus) for name, vm in world.vms.items()}

    def _own(self, vm: VmState) -> VmState:
        cores, vcpus = self._sizes.get(vm.name, (vm.cores_limit, vm.vcpus))
        return replace(vm, cores_limit=cores, vcpus=vcpus)


class LimitHedge:
    """Which machines' limits follow what is measured, because forecasts of them lately cost more than reacting."""

    def __init__(self, config: OrchestratorConfig, store: Store) -> None:
        self._config, self._store = config, store
        self._foreseeing, self._reacting = ShadowLimits(), ShadowLimits()
        self._leads: dict[str, Lead] = {}
        self._counted_at: Seconds | None = None
        self._told: set[str] = set()

    @property
    def enabled(self) -> bool:
        """Whether there is anything to choose."""
        return self._config.policy == "predictive" and self._config.cpu.hedge_s > 0

    @property
    def reacting(self) -> Mapping[str, str]:
        """Machines that follow what is measured, each with the reason."""
        known = sorted(self._leads.items())
        return {name: one.describe(self._config.cpu.hedge_s) for name, one in known if not one.foresees}

    def count(self, world: World, used: Mapping[str, float]) -> None:
        """Counts what either rule would have cost since the last decision; `used`: cores in the newest second."""
        if not self.enabled:
            return
        before, self._counted_at = self._counted_at, world.now
        if before is None:
            self._leads = {one.key: Lead(one.lead_core_s, False) for one in self._store.wanted.observed_of(RuleReport)}
            return
        seconds = min(LONGEST_S, max(0.0, world.now - before))
        kept = 0.5 ** (max(0.0, world.now - before) / self._config.cpu.hedge_s)
        cost_of_short = self._config.demand.cost_of_short
        for name, vm in world.vms.items():
            if vm.spec is not None and name in used:
                need, base = cores_needed(world, vm, used[name]), vm.spec.cpu_cores_min
                costs = (
                    limit_cost(one.limit(vm), need, base, cost_of_short) for one in (self._reacting, self._foreseeing)
                )
                reacting, foreseeing = costs
                gain = seconds * (reacting - foreseeing)
                self._leads[name] = self._leads.get(name, Lead()).after(gain, kept, cost_of_short * base)

    def advance(self, context: PlanningContext) -> None:
        """Both rules decide for themselves about what the planner saw."""
        if self.enabled:
            alone = replace(context, demand=replace(context.demand, reacting=NOBODY_REACTS))
            self._foreseeing.advance(alone.tuned(SetCpuLimit.kind))
            self._reacting.advance(as_reacting(context))

    def tell(self, now: Seconds) -> None:
        """Writes down who follows what is measured, where that has changed. Raises StoreError."""
        reacting = {name for name, one in self._leads.items() if not one.foresees}
        if reacting != self._told:
            back = [Withdrawal(RuleReport.kind, name, OWNER, now) for name in self._told - reacting]
            rules = [RuleReport(name, round(self._leads[name].core_s, 3), now) for name in reacting]
            self._store.wanted.observe([*rules, *back])
            self._told = reacting


def limit_cost(limit: float, need: float, base: float, cost_of_short: float) -> float:
    """What a second under a limit costs: cores short, weighed, and cores that idle above need and everyday limit."""
    return cost_of_short * max(0.0, need - limit) + max(0.0, limit - max(need, base))


def cores_needed(world: World, vm: VmState, used: float) -> float:
    """Cores that a machine needed in the newest second: what it used, or, held back, what was asked of it."""
    if used < HELD_SHARE * vm.cores_limit or not vm.relations:
        return used
    known = world.pairs_to(vm.name)
    opened = sum(one.newest_connections_per_s or 0.0 for one in known)
    sent = sum(one.newest_bytes_per_s or 0.0 for one in known)
    asked = (one.base_cores + one.slope * (opened if one.feature == CONNECTIONS else sent) for one in vm.relations)
    return max(used, *asked)
