"""Strategy: where predicted bandwidth exceeds what a link has, keep free what the more important pairs need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cpdb import BytesPerS, Limit, Reservation, show_rate
from orchestrator.actions import ReserveBandwidth
from orchestrator.config import NOW, QUEUE_DSCP, BandwidthSettings
from orchestrator.context import PlanningContext, copying_on, too_short
from orchestrator.demand import PairDemand, together
from orchestrator.promises import PairRatePromise
from orchestrator.proposal import Proposal, Reason, Refusal, RefusalCode, Step, foreseen, on_link, when
from orchestrator.world import LinkState, PairState

# While a pair still needs this share of what is kept free for it, the reservation stays.
STILL_NEEDED_SHARE = 0.7
# A pair that needs less than this share of a link is left alone.
MATTERS_SHARE = 0.01
# Held limits may be this much tighter than needed before a renewal loosens them.
TIGHT_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class _Shortage:
    """One link that will not carry what its pairs need; all rates in bytes/s.

    `company` is what pairs need that are as important as the leader, but are not it.
    """

    link: LinkState
    capacity: float
    horizon_s: int
    needed: float
    protected: float
    company: float
    leader: PairDemand
    limited: tuple[PairDemand, ...]


def propose(context: PlanningContext) -> Proposal:
    """Reservations to make or renew, link by link, and why others were not."""
    return Proposal.of(
        found for key in sorted(context.world.links) for found in _on_link(context, context.world.links[key])
    )


def _on_link(context: PlanningContext, link: LinkState) -> Iterator[Step | Refusal]:
    states = [_ranked(context, context.world.pairs[pair]) for pair in context.world.pairs_on(link.key)]
    if not states or not link.capacity_bytes_per_s:
        return
    ours = [one for _, one in sorted(context.world.wanted.reservations.items()) if one.key.endswith(f"@{link.name}")]
    held = max(ours, key=lambda one: one.expires_at, default=None)
    shortages = [
        _shortage(
            link,
            states,
            context.demand.at(horizon_s, [one.pair for one in states]),
            held,
            copying_on(context, link.key),
        )
        for horizon_s in context.acting_horizons(ReserveBandwidth.kind, on_link(link))
    ]
    found = _decided(context, shortages, held)
    brief = _too_short(context, found, shortages)
    if brief is not None:
        yield brief
        found = _decided(context, [one for one in shortages if one.horizon_s == NOW], held)
    if found is not None:
        yield found


def _too_short(
    context: PlanningContext, found: Step | Refusal | None, shortages: Sequence[_Shortage]
) -> Refusal | None:
    """Refuses a new reservation for a foreseen need that has passed before it pays."""
    if not isinstance(found, Step) or not isinstance(found.action, ReserveBandwidth):
        return None
    if found.renewal or found.needed_at <= context.world.now:
        return None
    why_not = too_short(context, found.action.pair, "a reservation", found.lead_s)
    link = shortages[0].link.name
    return Refusal(RefusalCode.TOO_SHORT, link, f"reserve on {link}", why_not, found.action) if why_not else None


def _decided(
    context: PlanningContext, shortages: Sequence[_Shortage], held: Reservation | None
) -> Step | Refusal | None:
    worst = max(shortages, key=lambda one: (one.needed, -one.horizon_s))
    if worst.needed > context.config.bandwidth.trigger * worst.capacity:
        return _step(context, worst, held)
    if held and any(_still_needed(one, held, context.config.bandwidth) for one in shortages):
        return _prolonged(context, worst, held)
    return None


def _still_needed(shortage: _Shortage, held: Reservation, settings: BandwidthSettings) -> bool:
    # A competitor that backs off under its limit hides the shortage; the protected pair's need does not.
    matters = held.bytes_per_s >= settings.floor * shortage.capacity
    return matters and shortage.leader.pair == held.pair and _needs(shortage.leader, held)


def _needs(one: PairDemand, held: Reservation) -> bool:
    return one.bytes.need >= STILL_NEEDED_SHARE * held.bytes_per_s


def _shortage(
    link: LinkState,
    states: Sequence[PairState],
    wants: Sequence[PairDemand],
    held: Reservation | None,
    copying: BytesPerS,
) -> _Shortage:
    priorities = {state.pair: state.priority for state in states}
    lowest = min(priorities.values())
    rising = [one for one in wants if priorities[one.pair] > lowest] or list(wants)
    kept = (one for one in rising if held and one.pair == held.pair and _needs(one, held))
    leader = next(kept, None) or max(rising, key=lambda one: one.bytes.need)
    # Who hardly speaks has nothing to give: a limit in proportion to its need would only cut it off.
    least = MATTERS_SHARE * (link.capacity_bytes_per_s or 0.0)
    limited = tuple(one for one in wants if priorities[one.pair] < priorities[leader.pair] and one.bytes.need >= least)
    important = [one for one in wants if priorities[one.pair] >= priorities[leader.pair]]
    protected = [one.bytes for one in important]
    other = max(0.0, link.bytes_per_s - sum(one.bytes.measured for one in wants), copying)
    return _Shortage(
        link=link,
        capacity=link.capacity_bytes_per_s or 0.0,
        horizon_s=wants[0].horizon_s,
        # Those who would give way count with what they usually take: they get no margin to be kept from.
        needed=together(protected) + sum(max(one.bytes.typical, one.bytes.measured) for one in limited) + other,
        protected=together(protected) + other,
        company=together([one.bytes for one in important if one is not leader]),
        leader=leader,
        limited=limited,
    )


def _step(context: PlanningContext, shortage: _Shortage, held: Reservation | None) -> Step | Refusal | None:
    name = shortage.link.name
    queue = context.config.declared.queue(name) if name in context.world.network.queues else None
    by_mark_alone = queue is not None and _alone(shortage, held, context.config.bandwidth)
    if not shortage.limited and not by_mark_alone:
        text = f"{name} will be short, but all its pairs have the same priority: none of them gives way"
        return Refusal(RefusalCode.EQUAL_PRIORITY, name, f"reserve on {name}", text)
    pair, amount = shortage.leader.pair, shortage.leader.bytes.need
    key = f"{pair}@{name}"
    if held is not None and held.key == key:
        amount = max(amount, held.bytes_per_s)  # or a fading need would lower, step by step, what counts as needed
    limits = () if by_mark_alone else _spared(context, _limits(shortage, context.config.bandwidth))
    if queue is not None and by_mark_alone:
        amount = min(amount, queue.guaranteed_bytes_per_s)
    action = ReserveBandwidth(
        key, pair, amount, limits, context.config.bandwidth.lease_s, QUEUE_DSCP if queue else None
    )
    if held is not None and held.key == key:
        if held.dscp == action.dscp and fits(held.limits, action.limits, context.config.bandwidth):
            return _prolonged(context, shortage, held)
        return _described(context, shortage, action, True)
    return _described(context, shortage, action, False)


def _alone(shortage: _Shortage, held: Reservation | None, settings: BandwidthSettings) -> bool:
    """Whether the leader is all that matters. If not, the others share with the rest, which must then be limited."""
    # Twice the company is borne before limits come to a mark that stands alone, or both ways would take turns.
    borne = settings.floor * (1 if held is None or held.dscp is None or held.limits else 2)
    return shortage.company <= borne * shortage.capacity


def _limits(shortage: _Shortage, settings: BandwidthSettings) -> tuple[Limit, ...]:
    """What is left within headroom, shared in proportion to need; nobody is cut off altogether."""
    free = settings.headroom * shortage.capacity - shortage.protected
    share = max(free, settings.floor * shortage.capacity)
    total = sum(one.bytes.need for one in shortage.limited)
    if total <= 0:
        return tuple(Limit(one.pair, share / len(shortage.limited)) for one in shortage.limited)
    return tuple(Limit(one.pair, share * one.bytes.need / total) for one in shortage.limited if one.bytes.need > 0)


def _ranked(context: PlanningContext, state: PairState) -> PairState:
    """Who was granted something ranks as high as the request."""
    grant = context.granted.get(state.pair)
    return state if grant is None else replace(state, priority=max(state.priority, grant.priority))


def _spared(context: PlanningContext, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """Nobody is cut below what was granted on request."""
    granted = {pair: grant.bytes_per_s for pair, grant in context.granted.items()}
    return tuple(replace(limit, bytes_per_s=max(limit.bytes_per_s, granted.get(limit.pair, 0.0))) for limit in limits)


def fits(held: Sequence[Limit], wanted: Sequence[Limit], settings: BandwidthSettings) -> bool:
    """Whether limits that are held are near enough to those wanted: a little tighter or looser changes nothing."""
    now = {one.pair: one.bytes_per_s for one in held}
    return set(now) == {one.pair for one in wanted} and all(
        TIGHT_SHARE * one.bytes_per_s <= now[one.pair] <= one.bytes_per_s * (1 + settings.deadband) for one in wanted
    )


def _prolonged(context: PlanningContext, shortage: _Shortage, held: Reservation) -> Step | None:
    if held.expires_at - context.world.now >= context.config.bandwidth.lease_s / 2:
        return None
    action = ReserveBandwidth(
        held.key, held.pair, held.bytes_per_s, held.limits, context.config.bandwidth.lease_s, held.dscp
    )
    return _described(context, shortage, action, True)


def _described(context: PlanningContext, shortage: _Shortage, action: ReserveBandwidth, renewal: bool) -> Step:
    leader, horizon_s, name = shortage.leader, shortage.horizon_s, shortage.link.name
    proof = context.evidence(leader.bytes, horizon_s)
    givers = ", ".join(str(one.pair) for one in action.limits)
    queued = f"it goes through the queue that {name} has for it" if action.dscp is not None else ""
    means = " and ".join(one for one in (queued, f"{givers} gives way" if givers else "") if one)
    why = (
        f"{leader.pair} needs {show_rate(leader.bytes.need)} {when(horizon_s)} ({foreseen(proof)}); {name} would have "
        f"to carry {show_rate(shortage.needed)} of {show_rate(shortage.capacity)}, so {means}"
    )
    needed_at = context.world.now + horizon_s
    about = on_link(shortage.link)
    reason = Reason(
        where={"link": name},
        need=shortage.needed,
        available=context.config.bandwidth.headroom * shortage.capacity,
        capacity=shortage.capacity,
        measured={"pair_bytes_per_s": leader.bytes.measured, "link_bytes_per_s": shortage.link.bytes_per_s},
        forecast=proof,
        circumstances=about,
        promise=PairRatePromise(pair=str(leader.pair), value=action.bytes_per_s, by=needed_at),
    )
    return Step(action, why, reason, needed_at, context.lead_s(action.kind, about), renewal)
