"""Decides how much of the bandwidth asked for can be promised: what every link on the way will have left, all the time.

The order is by priority, then by time: what was granted stands against equals that ask or speak later, and yields only
to what matters more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cpdb import BandwidthRequest, BytesPerS, Pair, RequestState, Seconds, VirtualIp, show_rate
from orchestrator.config import NOW
from orchestrator.context import Grant, PlanningContext
from orchestrator.declared import TenantCap
from orchestrator.demand_table import Rate, together
from orchestrator.pair_table import LinkKey
from orchestrator.proposal import when
from orchestrator.world import LinkState, World

STANDING = frozenset({RequestState.GRANTED, RequestState.PARTLY})
OPEN = STANDING | {RequestState.ASKED}
# Less than this share of what is asked, or less than 8 kbit/s, is no partial grant but a refusal.
LEAST_SHARE, LEAST_BYTES_PER_S = 0.05, 1000.0
# A grant stays while at least this share of it fits, and grows when there is room for so many times of it.
KEPT_SHARE, MORE_TIMES = 0.9, 1.2


@dataclass(frozen=True, slots=True)
class PlacedRequest:
    """A request with what it is about: the share of its rate that each pair has, and the links that the pair takes."""

    request: BandwidthRequest
    priority: int
    tenant: str | None
    parts: Mapping[Pair, float]
    ways: Mapping[Pair, tuple[LinkKey, ...]]

    @property
    def standing(self) -> bool:
        return self.request.answer.state in STANDING

    @property
    def links(self) -> tuple[LinkKey, ...]:
        return tuple(dict.fromkeys(key for way in self.ways.values() for key in way))

    def share_on(self, key: LinkKey) -> float:
        """The share of its rate that crosses a link."""
        return sum(part for pair, part in self.parts.items() if key in self.ways[pair])


@dataclass(frozen=True, slots=True)
class RequestDecision:
    """What becomes of a request; `granted` is in bytes/s."""

    case: PlacedRequest
    state: RequestState
    granted: BytesPerS
    why: str

    def on(self, key: LinkKey) -> BytesPerS:
        """What is promised on a link."""
        return self.granted * self.case.share_on(key)

    def amended(self, now: Seconds) -> BandwidthRequest:
        """The request as it stands after the decision."""
        news = {"state": self.state, "granted_bytes_per_s": self.granted, "why": self.why, "decided_at": now}
        return self.case.request.answered(**news)


@dataclass(frozen=True, slots=True)
class _Room:
    """What one link leaves for a whole request (bytes/s), and why no more."""

    bytes_per_s: BytesPerS
    text: str


def rate_of(context: PlanningContext, pair: Pair, horizon_s: int) -> Rate:
    """A pair's need at one of the horizons of seconds, or of minutes where those are foreseen."""
    if horizon_s in context.config.horizons_s:
        return context.demand.of(pair, horizon_s).bytes
    state = context.world.pairs[pair]
    peak = context.world.network.outlook.pairs.get((pair, horizon_s), 0.0)
    return Rate(state.bytes_per_s, state.typical_bytes_per_s, max(state.bytes_per_s, peak), 0.0)


def _others(context: PlanningContext, link: LinkState, horizon_s: int) -> BytesPerS:
    """What a link carries beside all pairs: measured now, or foreseen of the link and not explained by pairs."""
    rates = [rate_of(context, pair, horizon_s) for pair in context.world.pairs_on(link.key)]
    now = max(0.0, link.bytes_per_s - sum(rate.measured for rate in rates))
    foreseen = context.world.network.outlook.links.get((link.key, horizon_s), 0.0)
    return max(now, foreseen - together(rates))


def _horizons_s(context: PlanningContext, until: Seconds) -> tuple[int, ...]:
    """Now, and each horizon whose window begins before `until`."""
    known = sorted({*context.config.horizons_s, *context.world.network.outlook.slow_horizons_s})
    return (NOW, *(far for close, far in pairwise(known) if close < until - context.world.now))


def decide_requests(context: PlanningContext) -> list[RequestDecision]:
    """A decision about every request that is open, in the order in which they were weighed."""
    made: list[RequestDecision] = []
    for case in placed_requests(context):
        made.append(_decision(context, case, made))
    return made


def placed_requests(context: PlanningContext) -> list[PlacedRequest]:
    """Open requests, most important first, then those that stand, then those asked first."""
    alive = [one for one in context.world.wanted.requests if one.answer.state in OPEN and one.until > context.world.now]
    found = [_placed(context, one) for one in alive]
    return sorted(found, key=lambda one: (-one.priority, not one.standing, one.request.asked_at, one.request.id or 0))


def _placed(context: PlanningContext, request: BandwidthRequest) -> PlacedRequest:
    vip = context.world.virtual_ips.get(request.virtual_ip)
    priority = request.priority if request.priority is not None else (vip.priority if vip else 0)
    own = [one for one in context.world.pairs.values() if one.pair.virtual_ip == request.virtual_ip]
    pairs = [Pair(request.source, request.virtual_ip)] if request.source else sorted((one.pair for one in own), key=str)
    ways = {pair: _way(context.world, pair, vip) for pair in pairs}
    known = {pair: way for pair, way in ways.items() if way}
    rates = {
        pair: max(context.world.pairs[pair].bytes_per_s, 1.0) if pair in context.world.pairs else 1.0 for pair in known
    }
    total = sum(rates.values())
    parts = {pair: rate / total for pair, rate in rates.items()}
    return PlacedRequest(
        request, priority, request.tenant or context.config.declared.tenants.get(request.virtual_ip), parts, known
    )


def _way(world: World, pair: Pair, vip: VirtualIp | None) -> tuple[LinkKey, ...]:
    if pair in world.pairs:
        return world.pairs[pair].links
    eligible = world.eligible(vip) if vip else ()
    if not eligible:
        return ()
    name = eligible[0].name
    return world.network.ways(pair.source, world.vms[name].host if name in world.vms else name)


def _decision(context: PlanningContext, case: PlacedRequest, made: Sequence[RequestDecision]) -> RequestDecision:
    request = case.request
    if not case.parts:
        who = f"the way from {request.source} is not known" if request.source else "nobody talks to it yet"
        return RequestDecision(
            case, request.answer.state, request.answer.granted_bytes_per_s, f"{who}: nothing can be held"
        )
    rooms = [*_rooms(context, case, made), *_capped(context, case, made)]
    if not rooms:
        return _refused(case, 0.0, "no link on its way has a known capacity")
    tightest = min(rooms, key=lambda one: one.bytes_per_s)
    return _weighed(case, max(0.0, tightest.bytes_per_s), tightest.text)


def _weighed(case: PlacedRequest, offer: BytesPerS, text: str) -> RequestDecision:
    asked = case.request.bytes_per_s
    least = max(LEAST_BYTES_PER_S, LEAST_SHARE * asked)
    if not case.standing:
        granted = min(asked, offer)
        if granted < min(least, asked):
            return _refused(case, granted, text)
        return _granted(case, granted, text)
    before = case.request.answer.granted_bytes_per_s
    if before < asked and offer >= min(asked, MORE_TIMES * before):
        return _granted(case, min(asked, offer), text)
    if offer >= KEPT_SHARE * before:
        return _granted(case, before, text)
    return _granted(case, offer if offer >= least else 0.0, text)


def _granted(case: PlacedRequest, granted: BytesPerS, text: str) -> RequestDecision:
    asked = case.request.bytes_per_s
    if granted >= 0.999 * asked:
        return RequestDecision(case, RequestState.GRANTED, granted, f"it fits: {text}")
    said = f"{show_rate(granted)} of {show_rate(asked)} fit: {text}"
    return RequestDecision(case, RequestState.PARTLY, granted, said)


def _refused(case: PlacedRequest, fits: BytesPerS, text: str) -> RequestDecision:
    would = f"; {show_rate(fits)} would fit" if fits >= LEAST_BYTES_PER_S else "; nothing would fit"
    return RequestDecision(case, RequestState.REFUSED, 0.0, f"{text}{would}")


def _rooms(context: PlanningContext, case: PlacedRequest, made: Sequence[RequestDecision]) -> Iterator[_Room]:
    horizons = _horizons_s(context, case.request.until)
    for key in case.links:
        link = context.world.links.get(key)
        if link is not None and link.capacity_bytes_per_s:
            free, horizon_s = min((_free(context, case, link, one, made), one) for one in horizons)
            said = f"{link.name} has {show_rate(max(0.0, free))} of {show_rate(link.capacity_bytes_per_s)} left"
            yield _Room(free / case.share_on(key), f"{said} {when(horizon_s)} at priority {case.priority}")


def _free(
    context: PlanningContext, case: PlacedRequest, link: LinkState, horizon_s: int, made: Sequence[RequestDecision]
) -> BytesPerS:
    capacity = link.capacity_bytes_per_s or 0.0
    lower = [one for one in context.world.pairs_on(link.key) if context.world.pairs[one].priority < case.priority]
    floor = context.config.bandwidth.floor * capacity if set(lower) - set(case.parts) else 0.0
    return context.config.bandwidth.headroom * capacity - spoken_for(context, case, link, horizon_s, made) - floor


def spoken_for(
    context: PlanningContext, case: PlacedRequest, link: LinkState, horizon_s: int, decisions: Iterable[RequestDecision]
) -> BytesPerS:
    """What others may count on at a link, bytes/s: grants, the needs of pairs as important, and what is no pair's.

    A request that stands has come before the others of its priority: only higher ones are heard then.
    """
    granted = granted_on(decisions, link.key)
    pairs = [one for one in context.world.pairs_on(link.key) if one not in case.parts]
    above = case.priority + (1 if case.standing else 0)
    wants = {one: rate_of(context, one, horizon_s) for one in pairs if context.world.pairs[one].priority >= above}
    free_ones = together(rate for pair, rate in wants.items() if pair not in granted)
    promised = sum(max(amount, wants[pair].need if pair in wants else 0.0) for pair, amount in granted.items())
    return free_ones + promised + _others(context, link, horizon_s)


def granted_on(decisions: Iterable[RequestDecision], key: LinkKey | None = None) -> dict[Pair, BytesPerS]:
    """What each pair was granted, in all or where it crosses a link."""
    found: dict[Pair, BytesPerS] = {}
    for one in decisions:
        for pair, part in one.case.parts.items():
            if one.granted > 0 and (key is None or key in one.case.ways[pair]):
                found[pair] = found.get(pair, 0.0) + part * one.granted
    return found


def _capped(context: PlanningContext, case: PlacedRequest, made: Sequence[RequestDecision]) -> Iterator[_Room]:
    cap = next((one for one in context.config.declared.tenant_caps if one.tenant == case.tenant), None)
    if cap is None:
        return
    own = [one for one in made if one.case.tenant == cap.tenant]
    if cap.bytes_per_s is not None:
        left = cap.bytes_per_s - sum(one.granted for one in own)
        yield _Room(
            left, f"{cap.tenant} may have {show_rate(cap.bytes_per_s)} in all, {show_rate(left)} of it are free"
        )
    for key in case.links if cap.link_share is not None else ():
        yield from _capped_on(context, case, cap, key, sum(one.on(key) for one in own))


def _capped_on(
    context: PlanningContext, case: PlacedRequest, cap: TenantCap, key: LinkKey, taken: BytesPerS
) -> Iterator[_Room]:
    link = context.world.links.get(key)
    if link is not None and link.capacity_bytes_per_s and cap.link_share is not None:
        left = cap.link_share * link.capacity_bytes_per_s - taken
        said = f"{cap.tenant} may have {cap.link_share:.0%} of {link.name}, {show_rate(max(0.0, left))} of it are free"
        yield _Room(left / case.share_on(key), said)


def grants_of(decisions: Sequence[RequestDecision]) -> dict[Pair, Grant]:
    """What each pair was granted, and the rank that it has because of that."""
    ranks: dict[Pair, int] = {}
    for decision in decisions:
        for pair in decision.case.parts if decision.granted > 0 else ():
            ranks[pair] = max(decision.case.priority, ranks.get(pair, 0))
    return {pair: Grant(amount, ranks[pair]) for pair, amount in granted_on(decisions).items()}
