"""Says where a machine could go: what a host and the ways to it would still have. Hypervisors check none of this."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from cpdb import BytesPerS, Pair, Seconds, show_rate
from orchestrator.actions import MigrateVm, moves_of
from orchestrator.config import NOW
from orchestrator.context import PlanningContext, lasting_s, links_of, needed_on, residents, too_short
from orchestrator.declared import HostSpec
from orchestrator.pair_table import LinkKey
from orchestrator.proposal import Reason, Refusal, RefusalCode, Step, on_host, when
from orchestrator.strategies.services import memory_left
from orchestrator.world import VmState, World

# QEMU stops the guest when what is left can be sent within this time.
DOWNTIME_S = 0.3
MOST_ROUNDS = 30
# A guest of unknown habits is taken to write at half the speed of the copy: twice its memory is sent.
UNKNOWN_SHARE = 0.5
# So many rounds show that it gets nowhere; then a copy that may is switched to post-copy.
LOST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PreCopy:
    """`converges`: the guest need not be stopped for longer than is allowed. The rest says what it takes till then.

    `bytes_per_s` is what the copy may take from the network.
    """

    converges: bool
    rounds: int
    bytes_sent: float
    total_s: Seconds
    downtime_s: Seconds
    bytes_per_s: BytesPerS = 0.0


def pre_copy(
    memory_bytes: float, dirty_bytes_per_s: BytesPerS | None, bytes_per_s: BytesPerS, downtime_s: Seconds = DOWNTIME_S
) -> PreCopy:
    """Copies all memory, then again and again what was written meanwhile, until the rest fits into the downtime.

    Never more than the memory is written anew in a round. Clark et al., Live Migration of Virtual Machines, NSDI 2005;
    the sum of rounds as in Liu et al., Performance and Energy Modeling for Live Migration, HPDC 2011.
    """
    if bytes_per_s <= 0:
        return PreCopy(False, 0, 0.0, float("inf"), float("inf"))
    dirty = UNKNOWN_SHARE * bytes_per_s if dirty_bytes_per_s is None else dirty_bytes_per_s
    left, sent, rounds = float(memory_bytes), 0.0, 0
    while left > downtime_s * bytes_per_s and rounds < MOST_ROUNDS:
        sent += left
        left = min(float(memory_bytes), dirty * left / bytes_per_s)
        rounds += 1
    stop_s = left / bytes_per_s
    return PreCopy(stop_s <= downtime_s, rounds, sent + left, (sent + left) / bytes_per_s, stop_s, bytes_per_s)


def post_copy(memory_bytes: float, dirty_bytes_per_s: BytesPerS, bytes_per_s: BytesPerS) -> PreCopy:
    """The same for a guest that writes faster than it can be copied, and may run on the other host before all is there.

    All memory once, some rounds in vain, and at most all memory once more after the switch: an upper bound.
    """
    in_vain = LOST_ROUNDS * min(memory_bytes, dirty_bytes_per_s * memory_bytes / bytes_per_s)
    sent = 2 * memory_bytes + in_vain
    return PreCopy(True, 1 + LOST_ROUNDS, sent, sent / bytes_per_s, DOWNTIME_S, bytes_per_s)


def movable(world: World, vms: Iterable[VmState]) -> list[VmState]:
    """Those that may move and are not moving, the least important first, then the quickest to copy."""
    moving = {move.vm for move in moves_of(world.in_flight)}
    able = [vm for vm in vms if vm.spec is not None and vm.spec.movable and vm.name not in moving]
    return sorted(able, key=lambda vm: (vm.priority, vm.memory.bytes, vm.name))


def mates(world: World, vm: VmState) -> list[VmState]:
    """The other machines of its affinity, by name."""
    group = vm.spec.affinity if vm.spec else None
    if group is None:
        return []
    return [one for _, one in sorted(world.vms.items()) if _affinity(one) == group and one.name != vm.name]


def rivals_on(world: World, host: str, vm: VmState) -> list[VmState]:
    """Machines on a host, or on their way to it, from which this one stays apart."""
    group = vm.spec.anti_affinity if vm.spec else None
    if group is None:
        return []
    return [one for one in residents(world, host) if one.name != vm.name and _anti_affinity(one) == group]


def forbidden(world: World, host: str, vm: VmState, together: Iterable[str] = ()) -> str | None:
    """Why its rules keep a machine from a host; machines named in `together` come along with it."""
    rivals = rivals_on(world, host, vm)
    if rivals:
        return f"{host} has {rivals[0].name}, from which {vm.name} stays apart"
    others = mates(world, vm)
    if not others:
        return None
    there = {one.name for one in residents(world, host)}
    left = [one for one in others if one.name not in set(together) | there]
    if left and not any(one.name in there for one in others):
        return f"{vm.name} stays with {left[0].name} on {left[0].host}"
    return None


def groups(vms: Iterable[VmState]) -> dict[str, list[VmState]]:
    """Affinity -> its machines, where there is more than one."""
    found: dict[str, list[VmState]] = defaultdict(list)
    for one in vms:
        name = _affinity(one)
        if name is not None:
            found[name].append(one)
    return {name: own for name, own in sorted(found.items()) if len(own) > 1}


def units(vms: Sequence[VmState]) -> list[int]:
    """For each machine the number of those with which it moves as one, -1 where it moves alone.

    Only groups that are on one host now, and of which nobody has to stay apart from somebody as well.
    """
    number = {}
    for index, (name, own) in enumerate(groups(vms).items()):
        if len({one.host for one in own}) == 1 and not any(_anti_affinity(one) for one in own):
            number[name] = index
    return [number.get(_affinity(one) or "", -1) for one in vms]


def apart(vms: Sequence[VmState]) -> list[int]:
    """For each machine the number of the group from whose others it stays apart, -1 for none."""
    names = sorted({name for one in vms if (name := _anti_affinity(one)) is not None})
    return [names.index(name) if (name := _anti_affinity(one)) is not None else -1 for one in vms]


def _affinity(vm: VmState) -> str | None:
    return vm.spec.affinity if vm.spec else None


def _anti_affinity(vm: VmState) -> str | None:
    return vm.spec.anti_affinity if vm.spec else None


def room(context: PlanningContext, host: HostSpec, vm: VmState, horizon_s: int) -> float | str:
    """Cores left on `host` with the machine there, or why it cannot go there."""
    spare = int(memory_left(context, host.name)) - vm.memory.bytes
    if not host.closed and spare < 0:
        total = host.memory_bytes_capacity - spare
        return f"{host.name} would need {total >> 20} of {host.memory_bytes_capacity >> 20} MiB memory"
    # Not only when the need comes: a host must not be made short on the way there either.
    until = {NOW, *context.config.horizons_up_to(horizon_s)}
    taken = max(context.cores(vm, one) + context.served(host.name, one) for one in until)
    left = context.config.cpu.host_headroom * host.cpu_cores_capacity - taken
    if not host.closed and left < -1e-9:
        return f"{host.name} would be {-left:.2f} cores short itself"
    return closed_to(context, host, vm, horizon_s) or left


def lasting_room(context: PlanningContext, host: HostSpec, vm: VmState) -> float | str:
    """The least cores left at any horizon, or why the machine cannot go there: it would be there at all of them.

    Looked at are the horizons of seconds, and as many of those of minutes as the move itself takes.
    """
    capacity = context.config.cpu.host_headroom * host.cpu_cores_capacity
    horizons_s = context.config.horizons_up_to(move_horizon_s(context, vm))
    taken = {one: context.cores(vm, one) + context.served(host.name, one) for one in horizons_s}
    tightest = max(horizons_s, key=lambda one: taken[one])
    least = float("inf")
    for horizon_s in horizons_s if taken[tightest] <= capacity + 1e-9 else (tightest,):
        found = room(context, host, vm, horizon_s)
        if isinstance(found, str):
            return found
        least = min(least, found)
    return least


def closed_to(context: PlanningContext, host: HostSpec, vm: VmState, horizon_s: int) -> str | None:
    """Why a machine cannot go to a host whatever its memory and CPU: cordoned, its rules, network full, no copy."""
    if host.closed:
        return f"{host.name} is cordoned"
    if why_not := forbidden(context.world, host.name, vm, context.together):
        return why_not
    if why_not := _network(context, host, vm, horizon_s):
        return why_not
    found = copy_of(context, host, vm, horizon_s)
    return found if isinstance(found, str) else None


def _network(context: PlanningContext, host: HostSpec, vm: VmState, horizon_s: int) -> str | None:
    """The pairs it serves come along: where they did not go before, there must be bandwidth for them."""
    own = context.world.pairs_to(vm.name)
    added: dict[LinkKey, float] = {}
    for state, want in zip(own, context.demand.at(horizon_s, [one.pair for one in own]), strict=True):
        for key in context.world.network.ways(state.pair.source, host.name):
            if key not in state.links:
                added[key] = added.get(key, 0.0) + want.bytes.need
    for key, rate in added.items():
        link = context.world.links.get(key)
        capacity = link.capacity_bytes_per_s if link else None
        if link is not None and capacity:
            total = needed_on(context, link, horizon_s) + rate
            if total > context.config.bandwidth.headroom * capacity:
                return f"{link.name} on the way to {host.name} would carry {show_rate(total)} of {show_rate(capacity)}"
    return None


def detour(context: PlanningContext, vm: VmState, host: str, horizon_s: int) -> float:
    """Bytes/s times links: what its pairs would load the network with if the machine were on `host`."""
    own = context.world.pairs_to(vm.name)
    wants = context.demand.at(horizon_s, [one.pair for one in own])
    return sum(want.bytes.need * len(context.world.network.ways(want.pair.source, host)) for want in wants)


def copy_of(context: PlanningContext, host: HostSpec, vm: VmState, horizon_s: int) -> PreCopy | str:
    """What the migration itself would take, or why it should not be begun."""
    rate = _copy_rate(context, context.world.network.ways(vm.host, host.name), horizon_s)
    if isinstance(rate, str):
        return rate
    found = _estimate(vm, rate)
    if not found.converges and not (vm.spec and vm.spec.migration_auto_converge):
        written = show_rate(vm.memory.dirty_bytes_per_s or 0.0)
        return f"it would not converge: {vm.name} writes {written} of memory and {show_rate(rate)} can be copied"
    limit_s = context.config.moves.limit_s
    if limit_s is not None and found.total_s > limit_s:
        took = f"copying {vm.name} would take {found.total_s:.0f} s at {show_rate(rate)}"
        return f"{took}, it may take {limit_s:g} s"
    return found


def _estimate(vm: VmState, rate: float) -> PreCopy:
    """Of a guest that may be slowed down, the time of all rounds there can be is counted."""
    found = pre_copy(vm.memory.bytes, vm.memory.dirty_bytes_per_s, rate)
    if found.converges or not (vm.spec and vm.spec.migration_post_copy):
        return found
    return post_copy(vm.memory.bytes, vm.memory.dirty_bytes_per_s or 0.0, rate)


def _copy_rate(context: PlanningContext, way: Iterable[LinkKey], horizon_s: int) -> float | str:
    """Bytes/s for a copy: what is declared, and on shared links no more than they have left; or which has nothing."""
    rate = context.config.moves.bytes_per_s
    for key in way if context.config.moves.over_links else ():
        link = context.world.links.get(key)
        capacity = link.capacity_bytes_per_s if link else None
        if link is None or not capacity:
            continue
        left = context.config.bandwidth.headroom * capacity
        left -= max(needed_on(context, link, one) for one in {NOW, horizon_s})
        if left < context.config.bandwidth.floor * capacity:
            return f"its own traffic would load {link.name}, which has nothing to spare {when(horizon_s)}"
        rate = min(rate, left)
    return rate


def move_s(context: PlanningContext, vm: VmState, copied: PreCopy) -> Seconds:
    """From decision to effect: as long as moves of this kind take here, or as the copy needs if that is longer."""
    about = on_host(context.world, vm.host, vm.memory.bytes)
    learnt_s = context.world.leads.p95(MigrateVm.kind, about, context.config.timing.lead_priors_s)
    return context.lead_s(MigrateVm.kind, about) + max(0.0, copied.total_s - learnt_s)


def move_horizon_s(context: PlanningContext, vm: VmState) -> int:
    """The farthest horizon at which a move of the machine is decided: its copy taken to go at full speed."""
    return decided_within(context, move_s(context, vm, _estimate(vm, context.config.moves.bytes_per_s)))


def decided_within(context: PlanningContext, lead_s: Seconds) -> int:
    """The nearest horizon that what takes so long fits into, but no nearer than those of seconds reach.

    The longest of all where it fits into none.
    """
    demand = context.config.demand
    return max(demand.horizons_s[-1], demand.horizon_for(lead_s) or demand.every_horizon_s[-1])


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a machine should go where it should go: `why` for people, `reason` for the journal (with its promise).

    `leading` is the pair, or the machine by its name, whose need must last for the move to pay; None when it pays
    anyway. Without an `urgent` need nothing is too late. `short_cost` says what being short costs that is expected in a
    context later than so many seconds from now: what the move spares of it must be more than what its copy costs.
    """

    why: str
    horizon_s: int
    reason: Reason
    leading: Pair | str | None = None
    urgent: bool = True
    refused: tuple[Refusal, ...] = ()
    short_cost: Callable[[PlanningContext, Seconds], float] | None = None


def judged(context: PlanningContext, action: MigrateVm, cause: Cause) -> Step | Refusal:
    """The move as a step with its estimate, or why not."""
    vm, host, horizon_s = context.world.vms[action.vm], context.world.hosts[action.after], cause.horizon_s
    copied = copy_of(context, host, vm, horizon_s)
    if isinstance(copied, str):
        return _refused(action, RefusalCode.NO_ROOM, copied)
    lead_s = move_s(context, vm, copied)
    if cause.urgent and horizon_s != NOW and lead_s > horizon_s:
        text = f"too late: it takes up to {lead_s:.1f} s, the shortage is expected {when(horizon_s)}"
        return _refused(action, RefusalCode.TOO_LATE, text)
    decided_s = decided_within(context, lead_s)
    if cause.urgent and horizon_s > decided_s:
        text = f"too early: the shortage is seen {when(horizon_s)}, a move of {lead_s:.1f} s is begun {when(decided_s)}"
        return _refused(action, RefusalCode.TOO_EARLY, text)
    if cause.urgent and horizon_s == NOW and (unsure := _may_pass(context, cause, lead_s)):
        return _refused(action, RefusalCode.TOO_LATE, unsure)
    if horizon_s != NOW and cause.leading is not None:
        brief = too_short(context, cause.leading, "a move", lead_s)
        if brief is not None:
            return _refused(action, RefusalCode.TOO_SHORT, brief)
    if horizon_s != NOW and (dear := _too_dear(context, action, cause, copied)):
        return _refused(action, RefusalCode.DEARER, dear)
    reason = replace(
        cause.reason,
        circumstances=on_host(context.world, action.before, vm.memory.bytes),
        alternatives=cause.refused,
        facts={**cause.reason.facts, "pre_copy": asdict(copied)},
    )
    action = replace(action, bytes_per_s=copied.bytes_sent / copied.total_s, expected_s=copied.total_s)
    return Step(action, cause.why, reason, context.world.now + horizon_s, lead_s)


def _too_dear(context: PlanningContext, action: MigrateVm, cause: Cause, copied: PreCopy) -> str | None:
    """Why a move for a foreseen shortage does not pay: copying and standing still cost more than it is to spare.

    Machines that move as one spare it together; what is short already is not weighed, as reacting does not either.
    """
    if cause.short_cost is None:
        return None
    vm, after = context.world.vms[action.vm], context
    lead_s = move_s(context, vm, copied)
    for one in (vm, *(mate for mate in mates(context.world, vm) if mate.name in context.together)):
        after = rerouted(after, replace(action, vm=one.name, before=one.host))
    spares = cause.short_cost(context, lead_s) - cause.short_cost(after, lead_s)
    known = (context.world.links.get(key) for key in links_of(context, action))
    capacities = (one.capacity_bytes_per_s for one in known if one is not None)
    narrowest = min((one for one in capacities if one), default=context.config.moves.bytes_per_s)
    costs = copied.bytes_sent / narrowest + copied.downtime_s * context.cores(vm, cause.horizon_s)
    if spares > costs:
        return None
    return f"dearer: it is expected to spare {spares:.1f} of what being short costs, and to copy would cost {costs:.1f}"


def rerouted(context: PlanningContext, action: MigrateVm) -> PlanningContext:
    """The world after a move, with the pairs of the machine on their new ways and off the links they leave."""
    own = context.world.pairs_to(action.vm)
    if not own:
        return context.after(action)  # all that was worked out about pairs stands
    pairs, links = dict(context.world.pairs), dict(context.world.links)
    for one in own:
        way = context.world.network.ways(one.pair.source, action.after)
        for key in set(one.links) - set(way) if way else ():
            if key in links:
                rest = max(0.0, links[key].bytes_per_s - one.bytes_per_s)
                links[key] = replace(links[key], bytes_per_s=rest)
        pairs[one.pair] = replace(one, links=way or one.links)
    context = context.after(action)
    return replace(context, world=context.world.changed(pairs=pairs, links=links))


def _may_pass(context: PlanningContext, cause: Cause, lead_s: Seconds) -> str | None:
    """Why a long move is not begun for a need that is there already: it may have passed when the move is done.

    What takes no longer than `moves.unforeseen_s` is tried; more only where a trusted forecast says that it lasts.
    """
    known_s = context.config.moves.unforeseen_s
    if lead_s <= known_s:
        return None
    horizons_s = (one for one in context.config.demand.every_horizon_s if one >= lead_s)
    found = lasting_s(context, cause.leading, horizons_s) if cause.leading else None
    if found is not None and found[0] >= lead_s + context.config.timing.min_hold_s:
        return None
    return f"too late: it takes up to {lead_s:.1f} s, and no trusted forecast says that the need lasts so long"


def leaving(found: Step | Refusal) -> list[MigrateVm]:
    """The move that was found, if any: who will leave later leaves as much room, and nobody slower need go instead."""
    leaves = isinstance(found, Step) or found.code is RefusalCode.TOO_EARLY
    return moves_of([found.action]) if leaves and found.action else []


def no_room(host: str, why_not: str) -> Refusal:
    """Why a machine does not go to one host."""
    return Refusal(RefusalCode.NO_ROOM, host, f"move to {host}", why_not)


def nowhere(vm: VmState, subject: str, refused: Iterable[Refusal]) -> Refusal:
    """Why a machine goes nowhere: every host's reason."""
    text = "; ".join(refusal.why_not for refusal in refused) or "there is no other host"
    return Refusal(RefusalCode.NO_ROOM, vm.name, subject, f"no room: {text}")


def _refused(action: MigrateVm, code: RefusalCode, text: str) -> Refusal:
    return Refusal(code, action.vm, f"migrate {action.vm} away from {action.before}", text, action)
