"""What a link will have to carry and when, and who of its pairs gives way to whom: known before anything is decided."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cpdb import BytesPerS, Limit, Pair, Quantity, Reservation, Seconds
from orchestrator.config import NOW, BandwidthSettings
from orchestrator.context import Grant, PlanningContext, ceiling, copying_on
from orchestrator.demand import PairDemand, Rate, together
from orchestrator.relations import CpuRelation
from orchestrator.world import LinkState, PairState, VmState

# While a pair still needs this share of what is kept free for it, the reservation stays its own.
STILL_NEEDED_SHARE = 0.7
# A pair that needs less than this share of a link is left alone.
MATTERS_SHARE = 0.01
MEDIAN = 0.5
# Around a fair share nothing changes: who is a little above it is not limited, who is a little below it is not let go.
FAIR_BAND = 0.1
CONNECTIONS = (Quantity.CONNECTIONS_PEAK, Quantity.CONNECTIONS_MEAN)
BYTES = (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN)
# So much more may a pair have sent lately than its connections explain: sizes differ, and what was lost is sent again.
UNEXPLAINED_TIMES, UNEXPLAINED_BYTES_PER_S = 2.0, 20_000.0


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One link within one horizon; all rates in bytes/s.

    `needed` is what it would have to carry, `protected` the part of it that keeps its way: what the more important
    pairs will carry, and what is no pair's; `usual` is that at the median, `company` that of them beside the leader.
    `offered` is what those will send who would give way; empty where nobody would. `fair`: all pairs are equal.
    """

    link: LinkState
    capacity: BytesPerS
    horizon_s: int
    leader: PairDemand
    needed: BytesPerS
    protected: BytesPerS
    usual: BytesPerS
    company: BytesPerS
    offered: Mapping[Pair, BytesPerS]
    fair: bool = False

    def limits(self, settings: BandwidthSettings) -> tuple[Limit, ...]:
        """What capacity leaves, in proportion to what is offered; nobody is cut off altogether.

        Headroom is for being wrong about what is expected. What is needed at the level that counts is cautious already:
        it has to fit the link as such, or caution would be kept from others twice. Among equals each gets the same:
        those who give way are those who want more than their fair share.
        """
        left = min(settings.headroom * self.capacity - self.usual, settings.trigger * self.capacity - self.protected)
        left = max(left, settings.floor * self.capacity)
        total, each = sum(self.offered.values()), left / max(1, len(self.offered))
        return tuple(Limit(pair, each if self.fair else left * rate / total) for pair, rate in self.offered.items())


def expected(context: PlanningContext, one: PairDemand, level: float | None = None) -> Rate:
    """What a pair will really carry, as a rate: at the level that counts as the need, or at another.

    Where its connections explain what it sends, they say what it will send, and bytes count with their median: they
    remember being starved, and how that was made up for. No margin, since a link has headroom already; and no more than
    the pair's destination can serve with all the CPU that it may ever have.
    """
    state, size = context.world.pairs[one.pair], _size(context.world.pairs[one.pair], one)
    need = _at(context, one.bytes if size is None else one.connections, level) * (size or 1.0)
    need = max(need, _median_bytes(one)) if size is not None else need
    vm = context.world.vms.get(state.destination or "")
    served = max((_served(vm, relation, state) for relation in vm.relations), default=None) if vm else None
    need = min(one.bytes.need, need if served is None else min(need, served))
    return replace(one.bytes, need=max(one.bytes.measured, need))


def _at(context: PlanningContext, rate: Rate, level: float | None) -> float:
    if level is None or rate.forecast is None:
        return rate.need / context.config.demand.margin
    return rate.forecast.at(level)


def _median_bytes(one: PairDemand) -> BytesPerS:
    """What is foreseen in bytes, where that asks for more than connections do (see `orchestrator/demand.py`)."""
    forecast = one.bytes.forecast
    return forecast.at(MEDIAN) if forecast is not None and forecast.quantity is Quantity.BYTES_PEAK else 0.0


def _size(state: PairState, one: PairDemand) -> float | None:
    """Bytes of a connection, where connections are foreseen and lately explain most of what a pair sent, else None.

    One long stream is not explained by connections.
    """
    size = state.bytes_per_connection
    if size is None or one.connections.forecast is None:
        return None
    explained = UNEXPLAINED_TIMES * state.typical_connections_per_s * size + UNEXPLAINED_BYTES_PER_S
    return size if state.typical_bytes_per_s <= explained else None


def _served(vm: VmState, relation: CpuRelation, state: PairState) -> BytesPerS:
    """The most that a machine can take of a pair in bytes/s, had it all its CPU for that pair."""
    size = 1.0 if relation.feature == "bytes_per_s" else state.bytes_per_connection
    left = ceiling(vm) - relation.base_cores + relation.spread_cores
    return size * max(0.0, left) / relation.slope if size and relation.slope > 0 else float("inf")


def due_in_s(context: PlanningContext, one: PairDemand) -> Seconds:
    """In how many seconds the rise begins that a horizon's window holds, as far as its forecasts tell; 0 without one.

    A rise that is there for a share s of a window has a mean of base + s (peak - base), and before it is measured it
    lies at the window's end. Medians: how much is asked for is cautious already, and a lead time has its own reserve.
    """
    state, size = context.world.pairs[one.pair], _size(context.world.pairs[one.pair], one)
    talks = size is not None and _at(context, one.connections, None) * size >= _median_bytes(one)
    peak, mean = (state.forecasts.get((one.horizon_s, quantity)) for quantity in (CONNECTIONS if talks else BYTES))
    if peak is None or mean is None:
        return 0.0
    base = state.connections_per_s if talks else state.bytes_per_s
    rise = peak.at(0.5) - base
    # What may exceed what is measured is not what is expected: at the window's end at the earliest.
    share = min(1.0, max(0.0, (mean.at(0.5) - base) / rise)) if rise > 0 else 0.0
    return one.horizon_s * (1.0 - share)


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


def most_needed(context: PlanningContext, subject: LinkSubject, horizon_s: int) -> BytesPerS:
    """No less than `link_use` finds, and quickly: most links of a large network have room for everybody."""
    demands = context.demand.at(horizon_s, subject.pairs)
    sums = (max(one.bytes.need, one.bytes.typical, subject.pairs[one.pair].typical_bytes_per_s) for one in demands)
    return sum(sums) + max(subject.link.bytes_per_s, copying_on(context, subject.link.key))


def ranked(state: PairState, granted: Mapping[Pair, Grant]) -> PairState:
    """Who was granted something ranks as high as the request."""
    grant = granted.get(state.pair)
    return state if grant is None else replace(state, priority=max(state.priority, grant.priority))


def link_use(context: PlanningContext, subject: LinkSubject, horizon_s: int) -> LinkUse:
    """What the link will carry within a horizon. What is not due within the lead time is not kept free yet."""
    wants = list(_timely(context, subject, horizon_s))
    others = max(
        0.0, subject.link.bytes_per_s - sum(one.bytes.measured for one in wants), copying_on(context, subject.link.key)
    )
    median = {one.pair: expected(context, one, MEDIAN) for one in wants}
    wants = [replace(one, bytes=expected(context, one)) for one in wants]
    priorities = {pair: state.priority for pair, state in subject.pairs.items()}
    lowest = min(priorities.values())
    if lowest == max(priorities.values()):
        return _use_of_equals(context, subject, wants, _Sides((), (), others, median))
    leader = _leader(subject, [one for one in wants if priorities[one.pair] > lowest])
    giving = [one for one in wants if priorities[one.pair] < priorities[leader.pair]]
    keeping = [one for one in wants if priorities[one.pair] >= priorities[leader.pair]]
    return _use(subject, leader, _Sides(keeping, giving, others, median))


def _timely(context: PlanningContext, subject: LinkSubject, horizon_s: int) -> Iterator[PairDemand]:
    """The demands of a link's pairs; what begins later than the next cycle can still act on is left out."""
    demand = context.demand
    for one, now in zip(demand.at(horizon_s, subject.pairs), demand.at(NOW, subject.pairs), strict=True):
        later = horizon_s != NOW and due_in_s(context, one) > subject.lead_s + context.config.timing.cycle_s
        yield replace(now, horizon_s=horizon_s) if later else one


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
    """Those who keep what they need, those who would give way, what is no pair's in bytes/s, and each one's median."""

    keeping: Sequence[PairDemand]
    giving: Sequence[PairDemand]
    others: BytesPerS
    median: Mapping[Pair, Rate]


def _use(subject: LinkSubject, leader: PairDemand, sides: _Sides, needed: BytesPerS | None = None) -> LinkUse:
    offered = {one.pair: offered_by(subject, one) for one in sides.giving}
    protected = together(one.bytes for one in sides.keeping) + sides.others
    usual = together(_no_more(sides.median[one.pair], one.bytes.need) for one in sides.keeping) + sides.others
    return LinkUse(
        link=subject.link,
        capacity=subject.capacity,
        horizon_s=leader.horizon_s,
        leader=replace(leader, bytes=_no_more(sides.median[leader.pair], min(leader.bytes.need, usual))),
        needed=protected + sum(offered.values()) if needed is None else needed,
        protected=protected,
        usual=usual,
        company=together(one.bytes for one in sides.keeping if one.pair != leader.pair),
        # Who hardly speaks has nothing to give: a limit in proportion to its need would only cut it off.
        offered={pair: rate for pair, rate in offered.items() if rate >= MATTERS_SHARE * subject.capacity},
        fair=needed is not None,
    )


def _no_more(rate: Rate, most: BytesPerS) -> Rate:
    return replace(rate, need=min(rate.need, most))


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
    """
    remembered = subject.pairs[one.pair].typical_bytes_per_s if subject.limits_now(one.pair) else 0.0
    usual = max(one.bytes.typical, one.bytes.measured, remembered)
    return min(usual, subject.limits.get(one.pair, float("inf")))
