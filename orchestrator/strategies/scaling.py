"""Strategy: where predicted need exceeds what a service's machines can get, bring another in; after calm take it out.

A forecast may add a machine; only measured calm may remove one, and never below what is measured as needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cpdb import Standing
from orchestrator.actions import ScaleIn, ScaleOut
from orchestrator.config import NOW
from orchestrator.context import PlanningContext, evidence_of, propose_each, too_short
from orchestrator.declared import RUNNING, PoolMember, PoolSpec
from orchestrator.promises import HeadroomPromise
from orchestrator.proposal import Evidence, Proposal, Reason, Refusal, RefusalCode, Step, known_by, on_host, when
from orchestrator.strategies.destinations import decided_within
from orchestrator.strategies.services import (
    Candidate,
    ServiceNeed,
    busy,
    candidates,
    capacity,
    destinations,
    down,
    scaled,
    service_need,
    serving,
    states,
)


@dataclass(frozen=True, slots=True)
class PoolService:
    """One pool's service as it is found."""

    context: PlanningContext
    pool: PoolSpec

    @property
    def name(self) -> str:
        found = self.context.world.virtual_ips.get(self.pool.virtual_ip)
        return found.name if found else self.pool.virtual_ip

    def capacity(self, without: str | None = None) -> float:
        names = [name for name in serving(self.context.world, self.pool) if name != without]
        return capacity(self.context, self.pool, names)

    def need(self, horizon_s: int) -> ServiceNeed:
        return service_need(self.context, self.pool, horizon_s)

    def after(self, step: Step) -> "PoolService":
        """The same once a step is done."""
        return replace(self, context=self.context.after(step.action))


def propose(context: PlanningContext) -> Proposal:
    """Machines to bring in and to take out, and why others do not come or go."""
    context = context.joined()
    known = (pool for pool in context.config.declared.pools if pool.virtual_ip in context.world.virtual_ips)
    return propose_each(context, known, lambda now, pool: _for_pool(PoolService(now, pool)))


def _for_pool(service: PoolService) -> Iterator[Step | Refusal]:
    left = list(_left_half_way(service))
    yield from left
    grown = list(_more(service))
    yield from grown
    if not grown and not left:
        yield from _fewer(service)


# -- what somebody left behind


def _left_half_way(service: PoolService) -> Iterator[Step]:
    """Machines that run without serving, or that should serve and do not run: laid to rest, whoever left them so."""
    known, standing = states(service.context.world), destinations(service.context.world, service.pool)
    mute = down(service.context.world, service.pool, service.pool.manner.health_limit_s) & standing.keys()
    for one in service.pool.members:
        state = known.get(one.vm)
        if state is None or one.vm in busy(service.context.world):
            continue
        if one.vm not in standing and state == RUNNING:
            yield _in(service, one, f"{one.vm} runs without being a destination of {service.name}")
        elif one.vm in standing and standing[one.vm] is not Standing.SERVING:
            yield _in(service, one, f"{one.vm} was left {standing[one.vm].value} for {service.name}")
        elif one.vm in standing and state != RUNNING:
            yield _in(service, one, f"{one.vm} is a destination of {service.name} and is {state}")
        elif one.vm in mute and len(serving(service.context.world, service.pool)) >= service.pool.least:
            yield _in(service, one, f"{one.vm} has not answered the controller for long")


# -- more


def _more(service: PoolService) -> Iterator[Step | Refusal]:
    """Each machine answers for the need that it could still be ready for; what faster ones can do is left to them."""
    count, passed = len(serving(service.context.world, service.pool)), 0.0
    left_out: set[str] = set()
    while (one := _next(service, left_out)) is not None and count < service.pool.most:
        need, missing = _need_for(service, one), count < service.pool.least
        found: Step | Refusal | None = None
        if missing or need.cores / service.context.config.cpu.headroom > service.capacity() + passed + 1e-9:
            found = (None if missing else _too_brief(service, need, one)) or _out(service, one, need)
            yield found
        if isinstance(found, Step):
            service, count = service.after(found), count + 1
        else:
            left_out.add(one.member.vm)
            passed += one.cores
    short = service.need(NOW).cores / service.context.config.cpu.headroom > service.capacity() + passed + 1e-9
    if short or count < service.pool.least:
        yield _refused(service, RefusalCode.NO_CANDIDATE, _nobody(service, count))


def _next(service: PoolService, left_out: set[str]) -> Candidate | None:
    able = (one for one in _open_ones(service) if one.why_not is None and one.member.vm not in left_out)
    return next(able, None)


def _open_ones(service: PoolService) -> list[Candidate]:
    return candidates(service.context, service.pool)


def _need_for(service: PoolService, one: Candidate) -> ServiceNeed:
    """The largest need that a machine could still be ready for."""
    about = on_host(service.context.world, one.member.host)
    horizons = service.context.acting_horizons(f"{ScaleOut.kind}_{one.how}", about)
    return max((service.need(horizon_s) for horizon_s in horizons), key=lambda need: (need.cores, -need.horizon_s))


def _nobody(service: PoolService, count: int) -> str:
    open_ones = _open_ones(service)
    if count >= service.pool.most:
        return f"{count} serve, its pool allows {service.pool.most}"
    if not open_ones:
        return "every machine of its pool serves or is on its way"
    return "; ".join(f"{one.member.vm}: {one.why_not}" for one in open_ones[:3])


def _too_brief(service: PoolService, need: ServiceNeed, fastest: Candidate) -> Refusal | None:
    if need.horizon_s == NOW or need.leading is None:
        return None
    why_not = too_short(service.context, need.leading.pair, "a machine from the pool", fastest.lead_s)
    return _refused(service, RefusalCode.TOO_SHORT, why_not, _out_action(service, fastest)) if why_not else None


def _refused(service: PoolService, code: RefusalCode, why_not: str, action: ScaleOut | None = None) -> Refusal:
    return Refusal(code, service.name, f"another machine for {service.name}", why_not, action)


def _out_action(service: PoolService, one: Candidate) -> ScaleOut:
    return ScaleOut(service.pool.virtual_ip, one.member.vm, one.member.host, one.how)


def _out(service: PoolService, one: Candidate, need: ServiceNeed) -> Step:
    proof = _proof(service, need)
    can, count = service.capacity(), len(serving(service.context.world, service.pool))
    why = (
        f"{service.name} needs {need.cores:.2f} cores {known_by(need.horizon_s, proof)} and its machines "
        f"can get {can:.2f}: {one.member.vm} brings up to {one.cores:.2f}"
    )
    if count < service.pool.least:
        asked = f"{count} of the {service.pool.least} machines that its pool asks for"
        why = f"{service.name} is served by {asked}: {one.member.vm} comes"
    reason = replace(
        _reason(service, one.member, need, can),
        forecast=proof,
        alternatives=tuple(_alternative(service, other) for other in _open_ones(service) if other.member != one.member),
        promise=_promise(service, need.horizon_s),
    )
    return Step(_out_action(service, one), why, reason, service.context.world.now + need.horizon_s, one.lead_s)


def _proof(service: PoolService, need: ServiceNeed) -> Evidence | None:
    """The forecast behind a need: of the leading pair's connections, or of its bytes where those are only measured."""
    if need.leading is None:
        return None
    rates = need.leading.connections, need.leading.bytes
    return next(filter(None, (evidence_of(service.context, rate, need.horizon_s) for rate in rates)), None)


def _alternative(service: PoolService, one: Candidate) -> Refusal:
    code, text = RefusalCode.NO_ROOM, one.why_not
    if text is None:
        code = RefusalCode.DEARER
        text = f"it would take {one.lead_s:.1f} s and bring {one.cores:.2f} cores; one came before it"
    return Refusal(code, one.member.vm, _out_action(service, one).describe(), text)


def _promise(service: PoolService, horizon_s: int, without: str | None = None) -> HeadroomPromise | None:
    """None of the machines of today, but for one that leaves, is held back."""
    world = service.context.world
    names = tuple(name for name in serving(world, service.pool) if name in world.vms and name != without)
    return HeadroomPromise(vms=names, by=world.now + horizon_s) if names else None


# -- fewer


def _fewer(service: PoolService) -> Iterator[Step | Refusal]:
    names = serving(service.context.world, service.pool)
    own = [one for one in service.pool.members if one.vm in names]
    if not own or len(names) <= service.pool.least or scaled(service.context.world, service.pool):
        return
    vms = [service.context.world.vms.get(name) for name in names]
    if not all(vm is not None and vm.calm for vm in vms):
        return
    one = min(own, key=lambda item: (service.context.world.vms[item.vm].cores_used, item.vm))
    rest = service.capacity(without=one.vm)
    measured = service.need(NOW).cores
    if measured > service.context.config.cpu.calm_share * rest:
        return
    ahead = _foreseen(service, one)
    if ahead.cores > service.context.config.cpu.headroom * rest:
        text = f"{ahead.cores:.2f} cores will be needed {when(ahead.horizon_s)}, the others can get {rest:.2f}"
        yield Refusal(RefusalCode.STILL_NEEDED, service.name, f"a machine less for {service.name}", text)
        return
    yield _in(service, one, f"{service.name} has long been calm at {measured:.2f} cores; the others can get {rest:.2f}")


def _foreseen(service: PoolService, one: PoolMember) -> ServiceNeed:
    """The largest need until the machine, once it has left, could be back."""
    about = on_host(service.context.world, one.host)
    back_s = sum(service.context.lead_s(kind, about) for kind in (ScaleIn.kind, f"{ScaleOut.kind}_{one.how}"))
    horizons_s = service.context.config.horizons_up_to(decided_within(service.context, back_s))
    return max((service.need(far) for far in horizons_s), key=lambda need: (need.cores, -need.horizon_s))


def _in(service: PoolService, member: PoolMember, why: str) -> Step:
    action = ScaleIn(service.pool.virtual_ip, member.vm, member.host, member.how)
    found = _reason(service, member, service.need(NOW), service.capacity())
    reason = replace(found, promise=_promise(service, NOW, without=member.vm))
    return Step(
        action, why, reason, service.context.world.now, service.context.lead_s(action.kind, reason.circumstances)
    )


def _reason(service: PoolService, member: PoolMember, need: ServiceNeed, can: float) -> Reason:
    host = service.context.world.hosts.get(member.host)
    return Reason(
        where={"service": service.name, "vm": member.vm, "host": member.host},
        need=need.cores,
        available=can,
        capacity=host.cpu_cores_capacity if host else 0.0,
        circumstances=on_host(service.context.world, member.host),
    )
