"""Strategy: where predicted bandwidth exceeds what a link has, keep free what the more important pairs will carry.

No more than that, and no longer: limits follow the need from cycle to cycle, and end with it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from cpdb import BytesPerS, Limit, Pair, Reservation, show_rate
from orchestrator.actions import ReleaseBandwidth, ReserveBandwidth
from orchestrator.config import NOW, QUEUE_DSCP, BandwidthSettings
from orchestrator.context import PlanningContext, evidence_of, too_short
from orchestrator.observe.measured import RECENT_S
from orchestrator.onset import OnsetSign
from orchestrator.pair_table import LinkKey
from orchestrator.promises import PairRatePromise
from orchestrator.proposal import Proposal, Reason, Refusal, RefusalCode, Step, known_by, on_link, when
from orchestrator.strategies.link_use import (
    MATTERS_SHARE,
    LinkSubject,
    LinkUse,
    link_use,
    most_needed,
    ranked,
    still_needed,
)
from orchestrator.world import LinkState

# Held limits may be this much tighter than needed before they are loosened.
TIGHT_SHARE = 0.95


def propose(context: PlanningContext) -> Proposal:
    """Reservations to make, change or end, link by link, and why others were not.

    The fullest link first: who is limited there brings less to the others, which then may need nothing.
    """
    world = context.world
    held = {key.rpartition("@")[2] for key in world.wanted.reservations}
    holding = {key for key, one in world.links.items() if one.capacity_bytes_per_s and one.name in held}
    open_ones = [(one, _uses(context, one)) for one in _open(context, holding)]
    found: list[Step | Refusal] = []
    for subject, uses in sorted(open_ones, key=lambda one: -_fullness(*one)):
        ours = _ours(context, subject.link)
        everywhere, own = world.wanted.reservations, {one.key for one in ours}
        beside = tightest(one for key, one in everywhere.items() if key not in own)
        limited = replace(subject, limits=beside)
        for item in _on_link(context, limited, ours, _uses(context, limited) if beside else uses):
            found.append(item)
            if isinstance(item, Step):
                world = item.action.applied_to(world)
    return Proposal.of(found)


def onset_signs(context: PlanningContext) -> Mapping[str, OnsetSign]:
    """By name the links that may be short: what forecasts say of that, and what is measured.

    Rates are means of `RECENT_S`, so they show what has begun only so much later.
    """
    if context.config.policy == "reactive":
        return {}
    found, trigger = {}, context.config.bandwidth.trigger
    for subject in _open(context):
        horizons = context.acting_horizons(ReserveBandwidth.kind, on_link(subject.link))
        now, *ahead = (link_use(context, subject, one).needed > trigger * subject.capacity for one in horizons)
        due_s = subject.lead_s + context.config.timing.cycle_s + RECENT_S
        found[subject.link.name] = OnsetSign(any(ahead), now, due_s)
    return found


def _open(context: PlanningContext, holding: Set[LinkKey] = frozenset()) -> list[LinkSubject]:
    """Links that may be short, and those that hold a reservation."""
    known, links = context.world.table.on_link.places, context.world.links
    keys = (key for key in sorted(_close(context) | holding) if key in known)
    return [_subject(context, links[key]) for key in keys if key in holding or _may_be_short(context, links[key])]


def tightest(reservations: Iterable[Reservation]) -> Mapping[Pair, BytesPerS]:
    """The lowest limit that holds for each limited pair."""
    found: dict[Pair, BytesPerS] = {}
    for limit in (limit for one in reservations for limit in one.limits):
        found[limit.pair] = min(limit.bytes_per_s, found.get(limit.pair, float("inf")))
    return found


def _ours(context: PlanningContext, link: LinkState) -> list[Reservation]:
    """What this strategy holds on a link, the last to end first."""
    own = (one for one in context.world.wanted.reservations.values() if one.key.endswith(f"@{link.name}"))
    return sorted(own, key=lambda one: (-one.expires_at, one.key))


def _subject(context: PlanningContext, link: LinkState) -> LinkSubject:
    states = {pair: ranked(context.world.pairs[pair], context.granted) for pair in context.world.pairs_on(link.key)}
    lead_s = context.lead_s(ReserveBandwidth.kind, on_link(link))
    return LinkSubject(link, states, next(iter(_ours(context, link)), None), lead_s, {})


def _close(context: PlanningContext) -> set[LinkKey]:
    """The few links of a large network that are worth a closer look."""
    trigger, horizons_s = context.config.bandwidth.trigger, context.config.horizons_s
    return {key for one in horizons_s for key in context.bounds(one).above(trigger)}


def _may_be_short(context: PlanningContext, link: LinkState) -> bool:
    least = context.config.bandwidth.trigger * (link.capacity_bytes_per_s or 0.0)
    horizons = context.acting_horizons(ReserveBandwidth.kind, on_link(link))
    return any(most_needed(context, link, one) > least for one in horizons)


def _fullness(subject: LinkSubject, uses: Sequence[LinkUse]) -> float:
    """The share of its capacity that a link would have to carry without any limit."""
    return max(use.needed for use in uses) / subject.capacity


def _uses(context: PlanningContext, subject: LinkSubject) -> list[LinkUse]:
    """What is measured, and what is foreseen; where that is trusted of all pairs, the newest sample bounds it."""
    horizons = context.acting_horizons(ReserveBandwidth.kind, on_link(subject.link))
    if subject.link.name in context.untimely:
        return [link_use(context, subject, NOW)]
    foreseen_too = all(one.bytes.forecast for one in context.demand.at(horizons[-1], subject.pairs))
    return [link_use(context, subject, one) for one in (horizons[-1:] if foreseen_too else horizons)]


def _on_link(
    context: PlanningContext, subject: LinkSubject, ours: Sequence[Reservation], uses: Sequence[LinkUse]
) -> Iterator[Step | Refusal]:
    short, action = _lasting(context, subject, uses)
    if short and action and not subject.held and short.horizon_s != NOW:
        why_not = too_short(context, action.pair, "a reservation", subject.lead_s)
        if why_not:
            yield Refusal(RefusalCode.TOO_SHORT, subject.link.name, f"reserve on {subject.link.name}", why_not, action)
            short = _short(context, subject, [link_use(context, subject, NOW)])
            action = _action(context, short, None) if short else None
    if not short and subject.link.name in context.untimely:
        yield from _untimely(context, subject)
    if short and action is None:
        yield _nobody_gives_way(short)
    if short and action and _changes(context, subject.held, action):
        yield _described(context, short, action, subject.held is not None and subject.held.key == action.key)
    kept = {one.key for one in ours}
    for one in ours:
        # What is in force ends only when its successor is.
        if action is None or (one.key != action.key and action.key in kept):
            yield _released(context, one)


def _lasting(
    context: PlanningContext, subject: LinkSubject, uses: Sequence[LinkUse]
) -> tuple[LinkUse | None, ReserveBandwidth | None]:
    """What is short, and the reservation that would still be asked for if it were held already.

    Who holds one leads within every horizon, so that another of them may ask for more of others.
    """
    short = _short(context, subject, uses)
    action = _action(context, short, subject.held) if short else None
    for _ in uses:
        if action is None or subject.held is not None:
            break
        holding = replace(subject, held=action.reservation("plan", "", context.world.now))
        again = _short(context, holding, _uses(context, holding))
        news = _action(context, again, holding.held) if again else None
        if news is None or not _changes(context, holding.held, news):
            break
        short, action = again, news
    return short, action


def _short(context: PlanningContext, subject: LinkSubject, uses: Sequence[LinkUse]) -> LinkUse | None:
    """The horizon at which most is needed, if that is too much; who holds a reservation needs less to keep it.

    A mark alone takes nothing from anybody, and may be why others have backed off: it stays while its pair needs it.
    """
    settings, held = context.config.bandwidth, subject.held
    # Nobody is limited for the sake of who needs hardly anything.
    mattering = [one for one in uses if one.leader.bytes.need >= MATTERS_SHARE * one.capacity]
    worst = max(mattering, key=lambda one: (one.needed, -one.horizon_s), default=None)
    if worst is not None and worst.needed > (settings.headroom if held else settings.trigger) * worst.capacity:
        return worst
    marked = held is not None and held.dscp is not None and not held.limits
    return next((one for one in uses if held and marked and still_needed(one, held, settings)), None)


def _action(context: PlanningContext, short: LinkUse, held: Reservation | None) -> ReserveBandwidth | None:
    """What keeps free what the leader will carry: a mark alone, or limits on others; None where nobody gives way."""
    name, settings = short.link.name, context.config.bandwidth
    queue = context.config.declared.queue(name) if name in context.world.network.queues else None
    by_mark_alone = queue is not None and _alone(short, held, settings)
    if not short.offered and not by_mark_alone:
        return None
    limits = () if by_mark_alone else _spared(context, short.limits(settings))
    # A link can keep no more free than it has beside what the others may send.
    left = short.capacity - sum(one.bytes_per_s for one in limits)
    pair, amount = short.leader.pair, max(0.0, min(short.leader.bytes.need, left))
    if queue is not None and by_mark_alone:
        amount = min(amount, queue.guaranteed_bytes_per_s)
    return ReserveBandwidth(f"{pair}@{name}", pair, amount, limits, settings.lease_s, QUEUE_DSCP if queue else None)


def _alone(short: LinkUse, held: Reservation | None, settings: BandwidthSettings) -> bool:
    """Whether the leader is all that matters. If not, the others share with the rest, which must then be limited."""
    # Twice the company is borne before limits come to a mark that stands alone, or both ways would take turns.
    borne = settings.floor * (1 if held is None or held.dscp is None or held.limits else 2)
    return short.company <= borne * short.capacity


def _spared(context: PlanningContext, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """Nobody is cut below what was granted on request."""
    granted = {pair: grant.bytes_per_s for pair, grant in context.granted.items()}
    return tuple(replace(limit, bytes_per_s=max(limit.bytes_per_s, granted.get(limit.pair, 0.0))) for limit in limits)


def _changes(context: PlanningContext, held: Reservation | None, action: ReserveBandwidth) -> bool:
    """Whether it must be written: it is new, its lease is half over, or what is held is clearly something else."""
    settings = context.config.bandwidth
    if held is None or held.key != action.key or held.expires_at - context.world.now < settings.lease_s / 2:
        return True
    apart = abs(held.bytes_per_s - action.bytes_per_s)
    same = apart <= settings.deadband * max(held.bytes_per_s, action.bytes_per_s)
    return not same or held.dscp != action.dscp or not fits(held.limits, action.limits, settings)


def fits(held: Sequence[Limit], wanted: Sequence[Limit], settings: BandwidthSettings) -> bool:
    """Whether limits that are held are near enough to those wanted: a little tighter or looser changes nothing."""
    now = {one.pair: one.bytes_per_s for one in held}
    return set(now) == {one.pair for one in wanted} and all(
        TIGHT_SHARE * one.bytes_per_s <= now[one.pair] <= one.bytes_per_s * (1 + settings.deadband) for one in wanted
    )


def _nobody_gives_way(short: LinkUse) -> Refusal:
    name = short.link.name
    because = (
        "all its pairs have the same priority, and not one of them has more than its fair share at the cost of another"
        if short.fair
        else "who is less important sends hardly anything"
    )
    return Refusal(RefusalCode.EQUAL_PRIORITY, name, f"reserve on {name}", f"{name} will be short, but {because}")


def _untimely(context: PlanningContext, subject: LinkSubject) -> Iterator[Refusal]:
    """What would be reserved already if foreseen shortages of the link came in time."""
    ahead = context.acting_horizons(ReserveBandwidth.kind, on_link(subject.link))[1:]
    short = _short(context, subject, [link_use(context, subject, one) for one in ahead])
    action = _action(context, short, None) if short else None
    if short and action:
        name = subject.link.name
        because = f"foreseen {when(short.horizon_s)}, but lately {name} was short later than foreseen, or not at all"
        yield Refusal(RefusalCode.UNTIMELY, name, f"reserve on {name}", because, action)


def _released(context: PlanningContext, held: Reservation) -> Step:
    left_s = max(0.0, held.expires_at - context.world.now)
    action = ReleaseBandwidth(held.key, held.pair, held.bytes_per_s, held.limits, left_s, held.dscp)
    link = held.key.rpartition("@")[2]
    return Step(action, f"{link} has room for everybody again", Reason(where={"link": link}), context.world.now, 0.0)


def _described(context: PlanningContext, short: LinkUse, action: ReserveBandwidth, renewal: bool) -> Step:
    leader, horizon_s, name = short.leader, short.horizon_s, short.link.name
    proof = evidence_of(context, leader.bytes, horizon_s)
    givers = ", ".join(str(one.pair) for one in action.limits)
    queued = f"it goes through the queue that {name} has for it" if action.dscp is not None else ""
    gives = f"{givers} {'has more than a fair share and ' if short.fair else ''}gives way" if givers else ""
    why = (
        f"{leader.pair} needs {show_rate(leader.bytes.need)} {known_by(horizon_s, proof)}; {name} would have "
        f"to carry {show_rate(short.needed)} of {show_rate(short.capacity)}, so "
        f"{' and '.join(one for one in (queued, gives) if one)}"
    )
    needed_at = context.world.now + horizon_s
    about = on_link(short.link)
    reason = Reason(
        where={"link": name},
        need=short.needed,
        available=context.config.bandwidth.headroom * short.capacity,
        capacity=short.capacity,
        measured={"pair_bytes_per_s": leader.bytes.measured, "link_bytes_per_s": short.link.bytes_per_s},
        forecast=proof,
        circumstances=about,
        promise=PairRatePromise(pair=str(leader.pair), value=action.bytes_per_s, by=needed_at),
    )
    return Step(action, why, reason, needed_at, context.lead_s(action.kind, about), renewal)
