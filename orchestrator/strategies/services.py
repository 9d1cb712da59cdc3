"""What a virtual IP's machines need together, what they can get, and which machines of its pool could help."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpdb import HealthReport, HealthStatus, MachineReport, Seconds, Standing
from orchestrator.actions import ScaleOut, ScalingChange, scalings_of
from orchestrator.config import NOW
from orchestrator.context import PlanningContext, load_now, residents, vm_need
from orchestrator.declared import ABSENT, COMES_UP, HOWS, PAUSED, How, PoolMember, PoolSpec
from orchestrator.demand_table import PairDemand, together
from orchestrator.needs import STARVED_FACTOR, ceiling
from orchestrator.proposal import on_host
from orchestrator.world import VmState, World

# A state that nobody confirmed for so long is not known.
STATE_FRESH_S = 20.0


@dataclass(frozen=True, slots=True)
class ServiceNeed:
    """Cores that all machines of a virtual IP need within `horizon_s`; of foretold pairs `leading` asks for most."""

    cores: float
    horizon_s: int
    leading: PairDemand | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine that could join: how it would come up, the cores it could get, and after how long; or why it cannot."""

    member: PoolMember
    how: How
    cores: float
    lead_s: Seconds
    why_not: str | None = None


def destinations(world: World, pool: PoolSpec) -> Mapping[str, Standing]:
    """Every destination of the pool's virtual IP and its standing."""
    service = world.virtual_ips.get(pool.virtual_ip)
    return {one.name: one.standing for one in service.destinations} if service else {}


def serving(world: World, pool: PoolSpec) -> list[str]:
    """Destinations that get new connections and can serve them: who is down is no capacity, even as the last."""
    vip = world.virtual_ips.get(pool.virtual_ip)
    if vip is None:
        return []
    health = world.health(vip.address)
    down = {name for name, item in health.items() if item.status is HealthStatus.DOWN}
    return [item.name for item in world.eligible(vip) if item.name not in down]


def states(world: World) -> dict[str, str]:
    """The state of each machine of a pool, as far as it was lately seen."""
    reports = (one for one in world.wanted.observed if isinstance(one, MachineReport))
    fresh = (one for one in reports if world.now - one.observed_at <= STATE_FRESH_S)
    return {report.vm: report.state for report in sorted(fresh, key=lambda report: report.observed_at)}


def ailing(world: World) -> dict[str, str]:
    """Machines that lately did not make it into their service, and what is said of them."""
    return {one.vm: one.trouble for one in world.wanted.observed if isinstance(one, MachineReport) and one.trouble}


def down(world: World, pool: PoolSpec, for_s: Seconds) -> set[str]:
    """Destinations that have not answered the controller for so long."""
    reports = (
        one for one in world.wanted.observed if isinstance(one, HealthReport) and one.virtual_ip == pool.virtual_ip
    )
    mute = (one for one in reports if one.status is HealthStatus.DOWN)
    return {report.destination for report in mute if world.now - report.observed_at >= for_s}


def service_need(context: PlanningContext, pool: PoolSpec, horizon_s: int) -> ServiceNeed:
    """Through the learnt relations where there are any; never below what is measured.

    The pairs' rate is thought to be spread evenly, and who has no relation of its own costs what its sisters cost.
    """
    vms = [context.world.vms[name] for name in serving(context.world, pool) if name in context.world.vms]
    wants = context.demand.at(horizon_s, context.world.pairs_of(pool.virtual_ip))
    leading = max(wants, key=lambda one: (_is_foretold(one, horizon_s), one.bytes.need), default=None)
    measured = sum(vm.cores_used * (STARVED_FACTOR if vm.starved else 1.0) for vm in vms)
    related = _related(vms, wants) if wants else 0.0
    return ServiceNeed(max(measured, related), horizon_s, leading)


def _is_foretold(demand: PairDemand, horizon_s: int) -> bool:
    return horizon_s != NOW and (demand.connections.forecast or demand.bytes.forecast) is not None


def _related(vms: Sequence[VmState], wants: Sequence[PairDemand]) -> float:
    known = next((vm.relations for vm in vms if vm.relations), ())
    rates = {
        "connections_per_s": together(one.connections for one in wants) / max(1, len(vms)),
        "bytes_per_s": together(one.bytes for one in wants) / max(1, len(vms)),
    }
    return sum(max((one.cores(rates[one.feature]) for one in vm.relations or known), default=0.0) for vm in vms)


def capacity(context: PlanningContext, pool: PoolSpec, names: Iterable[str]) -> float:
    """Cores that these machines can get at most: up to their ceilings, as far as their hosts have cores left."""
    left: dict[str, float] = {}
    total = 0.0
    for name in names:
        vm = context.world.vms.get(name)
        if vm is None:
            total += pool.cpu_cores_max if pool.member(name) else 0.0
            continue
        spare = left.setdefault(vm.host, cores_left(context, vm.host))
        more = max(0.0, min(ceiling(vm) - vm.cores_limit, spare))
        left[vm.host] = spare - more
        total += vm.cores_limit + more
    return total


def cores_left(context: PlanningContext, host: str) -> float:
    """Cores of a host within headroom that its machines, and those about to come, do not use now."""
    if host not in context.world.hosts:
        return 0.0
    used = sum(load_now(vm, vm_need(context, vm, NOW)) for vm in residents(context.world, host))
    coming = sum(pool.cpu_cores_min for pool, one in _coming(context) if one.host == host)
    return context.config.cpu.host_headroom * context.world.hosts[host].cpu_cores_capacity - used - coming


def memory_left(context: PlanningContext, host: str) -> float:
    """Bytes of a host that neither its machines have, nor paused ones, nor those about to come."""
    if host not in context.world.hosts:
        return 0.0
    held = sum(vm.memory.bytes for vm in residents(context.world, host))
    coming = {one.vm for _, one in _coming(context)}
    known = states(context.world)
    for pool in context.config.declared.pools:
        for one in pool.members:
            paused = known.get(one.vm) == PAUSED or one.vm in coming
            held += pool.memory_bytes if one.host == host and paused and one.vm not in context.world.vms else 0
    return context.world.hosts[host].memory_bytes_capacity - held


def _coming(context: PlanningContext) -> list[tuple[PoolSpec, PoolMember]]:
    """Machines that are destinations already, or on their way to it, and not measured yet."""
    found = []
    for pool in context.config.declared.pools:
        known = destinations(context.world, pool)
        found += [(pool, one) for one in pool.members if one.vm in known and one.vm not in context.world.vms]
    return found


def candidates(context: PlanningContext, pool: PoolSpec) -> list[Candidate]:
    """Members that neither serve nor are on their way, the fastest first, and of equals those with most room."""
    known, taken = states(context.world), set(destinations(context.world, pool)) | busy(context.world)
    found = [_candidate(context, pool, one, known.get(one.vm, "")) for one in pool.members if one.vm not in taken]
    by_host: dict[str, int] = defaultdict(int)
    for name in serving(context.world, pool):
        by_host[context.world.vms[name].host if name in context.world.vms else ""] += 1
    return sorted(found, key=lambda one: (HOWS.index(one.how), by_host[one.member.host], -one.cores, one.member.vm))


def busy(world: World) -> set[str]:
    """Machines about which something is under way."""
    return {one.target for one in world.in_flight}


def _candidate(context: PlanningContext, pool: PoolSpec, member: PoolMember, state: str) -> Candidate:
    how = COMES_UP.get(state, member.how)
    cores = min(pool.cpu_cores_max, max(0.0, cores_left(context, member.host)))
    lead_s = context.lead_s(f"{ScaleOut.kind}_{how}", on_host(context.world, member.host))
    why_not = _closed(context, pool, member, state)
    if why_not is None and cores < pool.cpu_cores_min - 1e-9:
        why_not = f"{member.host} has {cores:.2f} cores left, it needs {pool.cpu_cores_min:.2f}"
    return Candidate(member, how, cores, lead_s, why_not)


def _closed(context: PlanningContext, pool: PoolSpec, member: PoolMember, state: str) -> str | None:
    if state not in COMES_UP:
        return f"it is {state}" if state else f"its state is not known; can {member.host} be reached?"
    if ill := ailing(context.world).get(member.vm):
        return ill
    if state == ABSENT and pool.image is None:
        return f"it is not defined on {member.host}, and its pool has no image"
    if context.world.hosts[member.host].closed:
        return f"{member.host} is cordoned"
    if state != PAUSED and memory_left(context, member.host) < pool.memory_bytes:
        return f"{member.host} has no memory left for it"
    return None


def scaled(world: World, pool: PoolSpec) -> list[ScalingChange]:
    """What is under way for a pool's virtual IP."""
    return [action for action in scalings_of(world.in_flight) if action.virtual_ip == pool.virtual_ip]
