"""Strategy: where predicted need exceeds what a service's machines can get, bring another in; after calm take it out.

A forecast may add a machine; only measured calm may remove one, and never below what is measured as needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cpdb import Standing
from orchestrator.actions import ScaleIn, ScaleOut
from orchestrator.config import NOW, OrchestratorConfig
from orchestrator.demand import Demand
from orchestrator.lead_times import lead_kind
from orchestrator.needs import ceiling, too_short
from orchestrator.pools import RUNNING, PoolMember, PoolSpec
from orchestrator.steps import Refusal, Step, acting_horizons, evidence, foreseen, on_host, when
from orchestrator.strategies.services import (
    Candidate,
    ServiceNeed,
    busy,
    candidates,
    capacity,
    destinations,
    down,
    scaled,
    service,
    service_need,
    serving,
    states,
)
from orchestrator.world import World, apply


@dataclass(frozen=True, slots=True)
class _Case:
    """One pool's service as it is found."""

    world: World
    demand: Demand
    pool: PoolSpec
    config: OrchestratorConfig

    @property
    def name(self) -> str:
        found = service(self.world, self.pool)
        return found.name if found else self.pool.virtual_ip

    def capacity(self, without: str | None = None) -> float:
        names = [one for one in serving(self.world, self.pool) if one != without]
        return capacity(self.world, self.demand, self.pool, names, self.config)

    def need(self, horizon_s: int) -> ServiceNeed:
        return service_need(self.world, self.demand, self.pool, horizon_s)


def plan_scaling(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal], World]:
    """Machines to bring in and to take out, refusals, and the world that results."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    if not config.declared.pools:
        return steps, refusals, world
    for action in world.in_flight:
        if isinstance(action, ScaleOut | ScaleIn):
            # Who is leaving still has its memory and its cores.
            world = replace(apply(world, action), vms=world.vms)
    for pool in config.declared.pools:
        if pool.virtual_ip not in world.virtual_ips:
            continue
        for found in _for_pool(_Case(world, demand, pool, config)):
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                steps.append(found)
                world = apply(world, found.action)
    return steps, refusals, world


def _for_pool(case: _Case) -> Iterator[Step | Refusal]:
    left = list(_left_half_way(case))
    yield from left
    grown = list(_more(case))
    yield from grown
    if not grown and not left:
        yield from _fewer(case)


# -- what somebody left behind


def _left_half_way(case: _Case) -> Iterator[Step]:
    """Machines that run without serving, or that should serve and do not run: laid to rest, whoever left them so."""
    known, standing = states(case.world), destinations(case.world, case.pool)
    mute = down(case.world, case.pool, case.pool.manner.health_limit_s) & standing.keys()
    for one in case.pool.members:
        state = known.get(one.vm)
        if state is None or one.vm in busy(case.world):
            continue
        if one.vm not in standing and state == RUNNING:
            yield _in(case, one, f"{one.vm} runs without being a destination of {case.name}")
        elif one.vm in standing and standing[one.vm] is not Standing.SERVING:
            yield _in(case, one, f"{one.vm} was left {standing[one.vm].value} for {case.name}")
        elif one.vm in standing and state != RUNNING:
            yield _in(case, one, f"{one.vm} is a destination of {case.name} and is {state}")
        elif one.vm in mute and len(serving(case.world, case.pool)) >= case.pool.least:
            yield _in(case, one, f"{one.vm} has not answered the controller for long")


# -- more


def _more(case: _Case) -> Iterator[Step | Refusal]:
    """Each machine answers for the need that it could still be ready for; what faster ones can do is left to them."""
    count, passed = len(serving(case.world, case.pool)), 0.0
    left_out: set[str] = set()
    while (one := _next(case, left_out)) is not None and count < case.pool.most:
        need, missing = _need_for(case, one), count < case.pool.least
        found: Step | Refusal | None = None
        if missing or need.cores / case.config.cpu.headroom > case.capacity() + passed + 1e-9:
            found = (None if missing else _too_brief(case, need, one)) or _out(case, one, need)
            yield found
        if isinstance(found, Step):
            case, count = replace(case, world=apply(case.world, found.action)), count + 1
        else:
            left_out.add(one.member.vm)
            passed += one.cores
    short = case.need(NOW).cores / case.config.cpu.headroom > case.capacity() + passed + 1e-9
    if short or count < case.pool.least:
        yield Refusal(f"another machine for {case.name}", _nobody(case, count))


def _next(case: _Case, left_out: set[str]) -> Candidate | None:
    able = (one for one in _open_ones(case) if one.why_not is None and one.member.vm not in left_out)
    return next(able, None)


def _open_ones(case: _Case) -> list[Candidate]:
    return candidates(case.world, case.demand, case.pool, case.config)


def _need_for(case: _Case, one: Candidate) -> ServiceNeed:
    """The largest need that a machine could still be ready for."""
    about = on_host(case.world, one.member.host)
    horizons = acting_horizons(case.world, lead_kind(ScaleOut.kind, {"how": one.how}), case.config, about)
    return max((case.need(horizon_s) for horizon_s in horizons), key=lambda need: (need.cores, -need.horizon_s))


def _nobody(case: _Case, count: int) -> str:
    open_ones = _open_ones(case)
    if count >= case.pool.most:
        return f"{count} serve, its pool allows {case.pool.most}"
    if not open_ones:
        return "every machine of its pool serves or is on its way"
    return "; ".join(f"{one.member.vm}: {one.why_not}" for one in open_ones[:3])


def _too_brief(case: _Case, need: ServiceNeed, fastest: Candidate) -> Refusal | None:
    if need.horizon_s == NOW or need.leading is None:
        return None
    why_not = too_short(case.world, need.leading.pair, ("a machine from the pool", fastest.lead_s), case.config)
    action = _out_action(case, fastest)
    return Refusal(f"another machine for {case.name}", why_not, action) if why_not else None


def _out_action(case: _Case, one: Candidate) -> ScaleOut:
    return ScaleOut(case.pool.virtual_ip, one.member.vm, one.member.host, one.how)


def _out(case: _Case, one: Candidate, need: ServiceNeed) -> Step:
    proof = evidence(need.leading.connections, need.horizon_s, case.config) if need.leading else None
    can = case.capacity()
    why = (
        f"{case.name} needs {need.cores:.2f} cores {when(need.horizon_s)} ({foreseen(proof)}) and its machines can get "
        f"{can:.2f}: {one.member.vm} brings up to {one.cores:.2f}"
    )
    reason = _reason(case, one.member, need, can) | {
        "forecast": proof,
        "alternatives": [_alternative(case, other) for other in _open_ones(case) if other.member.vm != one.member.vm],
        "promise": _promise(case, need),
    }
    return Step(_out_action(case, one), why, reason, case.world.now + need.horizon_s, one.lead_s)


def _alternative(case: _Case, one: Candidate) -> dict[str, str]:
    slower = f"it would take {one.lead_s:.1f} s and bring {one.cores:.2f} cores; one came before it"
    return {"action": _out_action(case, one).describe(), "why_not": one.why_not or slower}


def _promise(case: _Case, need: ServiceNeed) -> dict[str, Any] | None:
    """The busiest machine of today is not held back once there is another."""
    vms = [case.world.vms[name] for name in serving(case.world, case.pool) if name in case.world.vms]
    if not vms:
        return None
    busiest = max(vms, key=lambda vm: (vm.cores_used, vm.name))
    by = case.world.now + need.horizon_s
    return {"what": "vm_not_starved", "vm": busiest.name, "value": ceiling(busiest), "by": by}


# -- fewer


def _fewer(case: _Case) -> Iterator[Step | Refusal]:
    names = serving(case.world, case.pool)
    own = [one for one in case.pool.members if one.vm in names]
    if not own or len(names) <= case.pool.least or scaled(case.world, case.pool):
        return
    vms = [case.world.vms.get(name) for name in names]
    if not all(vm is not None and vm.calm for vm in vms):
        return
    one = min(own, key=lambda item: (case.world.vms[item.vm].cores_used, item.vm))
    rest = case.capacity(without=one.vm)
    measured = case.need(NOW).cores
    if measured > case.config.cpu.calm_share * rest:
        return
    ahead = _foreseen(case)
    if ahead.cores > case.config.cpu.headroom * rest:
        text = f"{ahead.cores:.2f} cores will be needed {when(ahead.horizon_s)}, the others can get {rest:.2f}"
        yield Refusal(f"a machine less for {case.name}", text)
        return
    yield _in(case, one, f"{case.name} has long been calm at {measured:.2f} cores; the others can get {rest:.2f}")


def _foreseen(case: _Case) -> ServiceNeed:
    horizons = case.config.demand.horizons_s if case.config.policy == "predictive" else ()
    return max((case.need(one) for one in (NOW, *horizons)), key=lambda one: (one.cores, -one.horizon_s))


def _in(case: _Case, member: PoolMember, why: str) -> Step:
    action = ScaleIn(case.pool.virtual_ip, member.vm, member.host, member.how)
    need = case.need(NOW)
    reason = _reason(case, member, need, case.capacity()) | {"forecast": None, "alternatives": [], "promise": None}
    lead_s = case.world.leads.needed(action.kind, case.config, on_host(case.world, member.host))
    return Step(action, why, reason, case.world.now, lead_s)


def _reason(case: _Case, member: PoolMember, need: ServiceNeed, can: float) -> dict[str, Any]:
    host = case.world.hosts.get(member.host)
    return {
        "where": {"service": case.name, "vm": member.vm, "host": member.host},
        "need": need.cores,
        "available": can,
        "capacity": host.cpu_cores_capacity if host else 0.0,
        "circumstances": on_host(case.world, member.host).to_json(),
    }
