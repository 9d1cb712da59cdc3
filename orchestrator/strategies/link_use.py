"""What a link will have to carry and when, and who of its pairs gives way to whom: known before anything is decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cpdb import BytesPerS, Limit, Pair, Reservation, Seconds
from orchestrator.config import BandwidthSettings
from orchestrator.context import Grant, PlanningContext, others_on
from orchestrator.demand_table import PairDemand, Rate, together
from orchestrator.needs import ceiling
from orchestrator.onset import Reading
from orchestrator.pair_table import PairState
from orchestrator.relations import CpuRelation
from orchestrator.world import LinkState, VmState

# While a pair still needs this share of what is kept free for it, the reservation stays its own.
STILL_NEEDED_SHARE = 0.7
# A pair that needs less than this share of a link is left alone.
MATTERS_SHARE = 0.01
# The quantile of a second that is kept free. Not that of `cost_of_short`: a limit holds others back in every second in
# which it is lower than what they send, and what they lack goes on waiting; what exceeds what is kept free for a second
# waits about that long, and the link shares it out by itself.
KEPT_LEVEL = 0.5
# Around a fair share nothing changes: who is a little above it is not limited, who is a little below it is not let go.
FAIR_BAND = 0.1


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One link within one horizon; all rates in bytes/s.

    `needed` is what it would have to carry, `protected` the part of it that keeps its way: what the more important
    pairs will carry, and what is no pair's; `company` is that of them beside the leader.
    `offered` is what those will send who would give way; empty where nobody would. `fair`: all pairs are equal.
    """

    link: LinkState
    capacity: BytesPerS
    horizon_s: int
    leader: PairDemand
    needed: BytesPerS
    protected: BytesPerS
    company: BytesPerS
    offered: Mapping[Pair, BytesPerS]
    fair: bool = False

    def limits(self, settings: BandwidthSettings) -> tuple[Limit, ...]:
        """What capacity leaves, in proportion to what is offered; nobody is cut off altogether.

        Among equals each gets the same: those who give way are those who want more than their fair share.
        """
        left = max(settings.trigger * self.capacity - self.protected, settings.floor * self.capacity)
        total, each = sum(self.offered.values()), left / max(1, len(self.offered))
        return tuple(Limit(pair, each if self.fair else left * rate / total) for pair, rate in self.offered.items())


def expected(context: PlanningContext, one: PairDemand) -> Rate:
    """What a pair will really carry in a second, as a rate: no more than its destination can serve with all its CPU."""
    state, need = context.world.pairs[one.pair], one.bytes.need
    vm = context.world.vms.get(state.destination or "")
    if vm is not None and vm.relations:
        need = min(need, max(_served(vm, relation, state) for relation in vm.relations))
    return replace(one.bytes, need=need if one.bytes.forecast else max(one.bytes.measured, need))


def _served(vm: VmState, relation: CpuRelation, state: PairState) -> BytesPerS:
    """The most that a machine can take of a pair in bytes/s, had it all its CPU for that pair."""
    size = 1.0 if relation.feature == "bytes_per_s" else state.bytes_per_connection
    left = ceiling(vm) - relation.base_cores + relation.spread_cores
    return size * max(0.0, left) / relation.slope if size and relation.slope > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class LinkSubject:
    """A link with the pairs on it as they rank, its reservation if it holds one, and the lead time of the next.

    `limits` are what pairs may send at most because of other links.
    """

    link: LinkState
    pairs: Mapping[Pair, PairState]
    held: Reservation | None
    lead_s: Seconds
    limits: Mapping[Pair, BytesPerS]

    @property
    def capacity(self) -> BytesPerS:
        """In bytes/s."""
        return self.link.capacity_bytes_per_s or 0.0

    def limits_now(self, pair: Pair) -> bool:
        """Whether a pair is limited for this link's sake."""
        return self.held is not None and any(limit.pair == pair for limit in self.held.limits)


def most_needed(context: PlanningContext, link: LinkState, horizon_s: int) -> BytesPerS:
    """No less than `link_use` finds, and quickly: most links of a large network have room for everybody."""
    return context.asked_on(link.key, horizon_s).at_most + others_on(context, link, 0.0, horizon_s)


def ranked(state: PairState, granted: Mapping[Pair, Grant]) -> PairState:
    """Who was granted something ranks as high as the request."""
    grant = granted.get(state.pair)
    return state if grant is None else replace(state, priority=max(state.priority, grant.priority))


def link_use(context: PlanningContext, subject: LinkSubject, horizon_s: int) -> LinkUse:
    """What the link has to carry in a second soon: what begins after the next cycle can act is not kept free yet."""
    wants = _carried(context, subject, horizon_s)
    sent = sum(state.bytes_per_s for state in subject.pairs.values())
    others = others_on(context, subject.link, sent, horizon_s)
    priorities = {pair: state.priority for pair, state in subject.pairs.items()}
    lowest = min(priorities.values())
    if lowest == max(priorities.values()):
        return _use_of_equals(context, subject, wants, _Sides((), (), others))
    leader = _leader(subject, [one for one in wants if priorities[one.pair] > lowest])
    giving = [one for one in wants if priorities[one.pair] < priorities[leader.pair]]
    keeping = [one for one in wants if priorities[one.pair] >= priorities[leader.pair]]
    return _use(subject, leader, _Sides(keeping, giving, others))


def _carried(context: PlanningContext, subject: LinkSubject, horizon_s: int) -> list[PairDemand]:
    """What pairs will carry in a second, at `KEPT_LEVEL`: a limit is for what does not fit for long."""
    soon = Reading(within_s=subject.lead_s + context.config.timing.cycle_s, level=KEPT_LEVEL)
    wants = context.demand.at(horizon_s, subject.pairs, soon)
    return [replace(one, bytes=expected(context, one)) for one in wants]


def _leader(subject: LinkSubject, rising: Sequence[PairDemand]) -> PairDemand:
    """Who holds the reservation already while that is about what it needs, or two pairs would take turns."""
    held = subject.held
    kept = (one for one in rising if held and one.pair == held.pair and _needs(one, held))
    return next(kept, None) or max(rising, key=lambda one: one.bytes.need)


def still_needed(use: LinkUse, held: Reservation, settings: BandwidthSettings) -> bool:
    """Whether what is held matters on the link, and its pair needs most of it."""
    matters = held.bytes_per_s >= settings.floor * use.capacity
    return matters and use.leader.pair == held.pair and _needs(use.leader, held)


def _needs(one: PairDemand, held: Reservation) -> bool:
    return one.bytes.need >= STILL_NEEDED_SHARE * held.bytes_per_s


@dataclass(frozen=True, slots=True)
class _Sides:
    """Those who keep what they need, those who would give way, and what is no pair's in bytes/s."""

    keeping: Sequence[PairDemand]
    giving: Sequence[PairDemand]
    others: BytesPerS


def _use(subject: LinkSubject, leader: PairDemand, sides: _Sides, needed: BytesPerS | None = None) -> LinkUse:
    offered = {one.pair: offered_by(subject, one) for one in sides.giving}
    protected = together(one.bytes for one in sides.keeping) + sides.others
    return LinkUse(
        link=subject.link,
        capacity=subject.capacity,
        horizon_s=leader.horizon_s,
        leader=leader,
        needed=protected + sum(offered.values()) if needed is None else needed,
        protected=protected,
        company=together(one.bytes for one in sides.keeping if one.pair != leader.pair),
        # Who hardly speaks has nothing to give: a limit in proportion to its need would only cut it off.
        offered={pair: rate for pair, rate in offered.items() if rate >= MATTERS_SHARE * subject.capacity},
        fair=needed is not None,
    )


def _use_of_equals(
    context: PlanningContext, subject: LinkSubject, wants: Sequence[PairDemand], sides: _Sides
) -> LinkUse:
    """Where all pairs are equal, those would give way who send more than a max-min fair share of a link that is short.

    Nobody does where everybody would: then there is nobody to do it for.
    """
    from orchestrator.optimise import fair_shares  # only here: it brings scipy with it

    needed = together(one.bytes for one in wants) + sides.others
    room = context.config.bandwidth.headroom * subject.capacity - sides.others
    shares = fair_shares([max(one.bytes.need, offered_by(subject, one)) for one in wants], room)
    greedy = {one.pair for one, share in zip(wants, shares, strict=True) if _greedy(subject, one, share)}
    capped = [
        replace(one, bytes=replace(one.bytes, need=min(one.bytes.need, share)))
        for one, share in zip(wants, shares, strict=True)
        if one.pair not in greedy
    ]
    least = MATTERS_SHARE * subject.capacity
    if not greedy or all(one.bytes.need < least for one in capped):
        return _use(subject, max(wants, key=lambda one: one.bytes.need), replace(sides, keeping=wants), needed)
    giving = [one for one in wants if one.pair in greedy]
    return _use(subject, _leader(subject, capped), replace(sides, keeping=capped, giving=giving), needed)


def _greedy(subject: LinkSubject, one: PairDemand, share: BytesPerS) -> bool:
    """Whether a pair sends more than its share: clearly more, or still nearly as much where it is limited already."""
    return offered_by(subject, one) > share * ((1 - FAIR_BAND) if subject.limits_now(one.pair) else (1 + FAIR_BAND))


def offered_by(subject: LinkSubject, one: PairDemand) -> BytesPerS:
    """What a pair that would give way usually sends, in bytes/s: it gets no margin to be kept from.

    Under a limit it may back off, and the shortage would hide: what it sent before is remembered in what is typical.
    Single busy seconds say little where a forecast knows the mean.
    """
    lately = one.bytes.measured if one.bytes.forecast is None else 0.0
    usual = max(one.bytes.typical, lately, subject.pairs[one.pair].typical_bytes_per_s)
    return min(usual, subject.limits.get(one.pair, float("inf")))
