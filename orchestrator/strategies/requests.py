"""Turns what was granted into leases, link by link: a mark where a guaranteed queue stands, else limits on others.

The means is part of a lease's key, so what was tried before is known from what is held, also after a restart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cpdb import (
    BandwidthRequest,
    BytesPerS,
    InstallStatus,
    Limit,
    Pair,
    Reservation,
    ReservationReport,
    Seconds,
    show_rate,
)
from orchestrator.actions import Action, ReleaseBandwidth, ReserveBandwidth
from orchestrator.config import NOW, QUEUE_DSCP
from orchestrator.context import Grant, PlanningContext
from orchestrator.pair_table import LinkKey
from orchestrator.promises import GrantPromise
from orchestrator.proposal import Proposal, Reason, Step, on_link
from orchestrator.strategies.admission import (
    RequestDecision,
    decide_requests,
    granted_on,
    grants_of,
    rate_of,
    spoken_for,
)
from orchestrator.strategies.bandwidth import fits, tightest
from orchestrator.world import LinkState, World

# From this share of its capacity on a link may be what holds a pair back.
FULL_SHARE = 0.9
# What enters and what leaves is not measured at the same moment: smaller differences say nothing.
NOISE_SHARE = 1.05
OFFERED_SHARE, SHORT_SHARE = 0.95, 0.9


@dataclass(frozen=True, slots=True)
class Obtained:
    """Bytes/s over the last seconds: what the pairs wanted to send, and what arrived; None when they were silent."""

    offered: BytesPerS
    arrived: BytesPerS | None
    granted: BytesPerS

    @property
    def short(self) -> bool:
        """Whether they offered what was granted and did not get it."""
        wanted = self.offered >= OFFERED_SHARE * self.granted > 0
        return wanted and (self.arrived or 0.0) < SHORT_SHARE * self.granted


def obtained(context: PlanningContext, decision: RequestDecision, marked: frozenset[LinkKey]) -> Obtained:
    """What a request obtains. `marked`: links where its packets have a queue of their own."""
    offered = arrived = 0.0
    for pair in decision.case.parts:
        state = context.world.pairs.get(pair)
        if state is not None:
            lost = max((loss(context, key, key in marked) for key in state.links), default=0.0)
            offered += rate_of(context, pair, NOW).need
            arrived += state.bytes_per_s * (1 - lost)
    return Obtained(offered, arrived if arrived > 0 else None, decision.granted)


def loss(context: PlanningContext, key: LinkKey, marked: bool) -> float:
    """The share that a pair loses before a link: dropped by its queue, or by the link, or sent and never carried."""
    link = context.world.links.get(key)
    if link is None or marked:
        return context.world.network.queue_losses.get(">".join(key), 0.0)
    return max(link.drop_share, _overflow(context.world, link, context.world.pairs_on(key)))


def _overflow(world: World, link: LinkState, pairs: list[Pair]) -> float:
    capacity = link.capacity_bytes_per_s
    if not capacity or link.bytes_per_s < FULL_SHARE * capacity:
        return 0.0
    limits = tightest(world.wanted.reservations.values())
    sent = sum(min(world.pairs[one].bytes_per_s, limits.get(one, float("inf"))) for one in pairs)
    return 1 - link.bytes_per_s / sent if sent > NOISE_SHARE * link.bytes_per_s else 0.0


PREFIX = "request-"
# The third stands for limits that were put in place of a queue which had failed: that queue is not tried again.
QUEUE, METERS, INSTEAD = "queue", "meters", "meters-instead"
WORD = {QUEUE: "queue", METERS: "limits", INSTEAD: "limits"}
# A lease has had its chance after this long: a rule takes a poll or two, a measurement some seconds.
SETTLE_S = 6.0
# Who hardly speaks is left at least this share of the link, or the first burst would find it cut off.
QUIET_SHARE = 0.05
# More competitors than this are not limited one by one; the largest needs come first.
MOST_LIMITS = 64
SAME_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class HandledRequest:
    """A request after this cycle: the decision, the leases it should have, what it obtains, and what fell short."""

    decision: RequestDecision
    now: Seconds
    steps: tuple[Step, ...]
    obtained: Obtained
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestProposal(Proposal):
    """Leases, and what stands behind them: each request as it was handled, and what pairs are granted."""

    handled: tuple[HandledRequest, ...] = ()
    granted: Mapping[Pair, Grant] = field(default_factory=dict)


def request_key(request: BandwidthRequest, link: str, means: str) -> str:
    """The key of a request's lease on a link."""
    return f"{PREFIX}{request.id}/{link}/{means}"


def request_of(key: str) -> int | None:
    """The number of the request that a lease is held for; None for other leases."""
    number = key.removeprefix(PREFIX).split("/")[0]
    return int(number) if key.startswith(PREFIX) and number.isdigit() else None


def of_requests(action: Action) -> int | None:
    """The number of the request that an action is for, None for what is done for other reasons."""
    return request_of(action.target) if isinstance(action, ReserveBandwidth | ReleaseBandwidth) else None


def propose(context: PlanningContext) -> RequestProposal:
    """The leases of each open request, what becomes of it, and what pairs may count on because of it."""
    decisions = decide_requests(context)
    found = [_handled(context, decision, decisions) for decision in decisions]
    wanted = {step.action.target for item in found for step in item.steps}
    quiet = {item.decision.case.request.id for item in found if not item.decision.case.parts}
    due = tuple(_due(context, item) for item in found)
    steps = (*(step for item in due for step in item.steps), *_surplus(context.world, wanted, quiet))
    return RequestProposal(steps, (), due, grants_of(decisions))


def _surplus(world: World, wanted: set[str], quiet: set[int | None]) -> Iterator[Step]:
    for key, held in sorted(world.wanted.reservations.items()):
        number = request_of(key)
        # Where the way is not known for a moment, what is held runs on until its lease ends.
        if number is not None and key not in wanted and number not in quiet:
            left = max(0.0, held.expires_at - world.now)
            action = ReleaseBandwidth(key, held.pair, held.bytes_per_s, held.limits, left, held.dscp)
            yield Step(action, f"request {number} does not need it any more", Reason(), world.now, 0.0)


def _handled(
    context: PlanningContext, decision: RequestDecision, decisions: Sequence[RequestDecision]
) -> HandledRequest:
    if decision.granted <= 0 or not decision.case.parts:
        return HandledRequest(decision, context.world.now, (), obtained(context, decision, frozenset()))
    places = [context.world.links[key] for key in decision.case.links if key in context.world.links]
    known = [link for link in places if link.capacity_bytes_per_s]
    queued = frozenset(link.key for link in known if _queue_fits(context, decision, link, decisions))
    before = _held_by(context.world, decision, QUEUE)
    found = obtained(context, decision, frozenset(before))
    troubles = dict(_troubles(context.world, decision, found))
    failed = troubles.keys() | _held_by(context.world, decision, INSTEAD).keys()
    steps = [
        step
        for link in known
        for step in _leases(context, decision, link, _Means(link.key in queued, link.key in failed, tuple(decisions)))
    ]
    said = tuple(dict.fromkeys(troubles.values()))
    return HandledRequest(decision, context.world.now, tuple(steps), found, said)


def _held_by(world: World, decision: RequestDecision, means: str) -> dict[LinkKey, Reservation]:
    request, found = decision.case.request, {}
    for key in decision.case.links:
        start = request_key(request, ">".join(key), means)
        own = sorted(name for name in world.wanted.reservations if name == start or name.startswith(f"{start}/"))
        held = world.wanted.reservations[own[0]] if own else None
        if held is not None:
            found[key] = held
    return found


def _troubles(world: World, decision: RequestDecision, found: Obtained) -> Iterator[tuple[LinkKey, str]]:
    """What does not do its work, by link: refused by a switch, or in place and yet the rate does not arrive."""
    for means in (QUEUE, METERS, INSTEAD):
        for key, held in _held_by(world, decision, means).items():
            reports = (
                one for one in world.wanted.observed if isinstance(one, ReservationReport) and one.key == held.key
            )
            own = (one for one in reports if one.generation >= held.generation)
            refused = next((one for one in own if one.status is InstallStatus.REFUSED), None)
            name = ">".join(key)
            if refused is not None:
                yield key, f"{refused.node} refused the {WORD[means]} for {name}: {refused.detail}"
            elif found.short and world.now - held.created_at >= SETTLE_S:
                got = f"{show_rate(found.arrived or 0.0)} of {show_rate(decision.granted)}"
                yield key, f"only {got} is obtained with the {WORD[means]} for {name} in place"


def _queue_fits(
    context: PlanningContext, decision: RequestDecision, link: LinkState, decisions: Sequence[RequestDecision]
) -> bool:
    queue = context.config.declared.queue(link.name)
    if queue is None or link.name not in context.world.network.queues:
        return False
    # Those decided before this one have gone into the queue first.
    first = decisions[: decisions.index(decision) + 1]
    marked = sum(granted_on(first, link.key).values())
    foreseen = sum(
        one.bytes_per_s
        for one in context.world.wanted.reservations.values()
        if one.dscp is not None and one.key.endswith(f"@{link.name}") and one.pair not in decision.case.parts
    )
    return marked + foreseen <= queue.guaranteed_bytes_per_s * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class _Means:
    """Whether there is a queue for it, whether that has failed, and who else was decided about."""

    queue: bool
    failed: bool
    decisions: tuple[RequestDecision, ...]


def _leases(context: PlanningContext, decision: RequestDecision, link: LinkState, means: _Means) -> Iterator[Step]:
    request = decision.case.request
    pairs = [pair for pair, way in decision.case.ways.items() if link.key in way]
    lease_s = min(context.config.bandwidth.lease_s, request.until - context.world.now)
    limits = () if means.queue and not means.failed else limits_beside(context, decision, link, means.decisions)
    if limits:
        first = max(pairs, key=lambda one: decision.case.parts[one])
        key = request_key(request, link.name, INSTEAD if means.queue else METERS)
        yield _step(context, decision, link, ReserveBandwidth(key, first, decision.on(link.key), limits, lease_s))
        return
    for pair in pairs if means.queue else ():
        key = request_key(request, link.name, QUEUE) + (f"/{pair.source}" if len(decision.case.parts) > 1 else "")
        amount = decision.case.parts[pair] * decision.granted
        yield _step(context, decision, link, ReserveBandwidth(key, pair, amount, (), lease_s, QUEUE_DSCP))


def limits_beside(
    context: PlanningContext, decision: RequestDecision, link: LinkState, decisions: Sequence[RequestDecision]
) -> tuple[Limit, ...]:
    """What less important pairs may have of a link beside a grant: in proportion to need, nobody cut off.

    As long as their needs fit beside it, every limit is above the need.
    """
    capacity = link.capacity_bytes_per_s or 0.0
    horizons = context.acting_horizons(ReserveBandwidth.kind, on_link(link))
    others = [one for one in decisions if one is not decision]
    taken = max(spoken_for(context, decision.case, link, one, others) for one in horizons) + decision.on(link.key)
    free = max(context.config.bandwidth.headroom * capacity - taken, context.config.bandwidth.floor * capacity)
    wants = {
        pair: max(min(capacity, max(rate_of(context, pair, one).need for one in horizons)), QUIET_SHARE * capacity)
        for pair in context.world.pairs_on(link.key)
        if pair not in decision.case.parts and context.world.pairs[pair].priority < decision.case.priority
    }
    largest = sorted(wants, key=lambda one: (-wants[one], str(one)))[:MOST_LIMITS]
    total = sum(wants[one] for one in largest)
    granted = granted_on(others, link.key)
    return tuple(Limit(one, max(free * wants[one] / total, granted.get(one, 0.0))) for one in sorted(largest, key=str))


def _step(context: PlanningContext, decision: RequestDecision, link: LinkState, action: ReserveBandwidth) -> Step:
    request = decision.case.request
    givers = ", ".join(str(one.pair) for one in action.limits)
    means = f"{givers} gives way" if givers else f"it goes through the queue that {link.name} has for it"
    who = f" by {request.asked_by}" if request.asked_by else ""
    why = f"request {request.id}{who}: {show_rate(decision.granted)} for {_subject(request)}; {means}"
    about = on_link(link)
    reason = Reason(
        where={"link": link.name},
        need=decision.on(link.key),
        available=context.config.bandwidth.headroom * (link.capacity_bytes_per_s or 0.0),
        capacity=link.capacity_bytes_per_s,
        circumstances=about,
        promise=GrantPromise(pair=str(action.pair), value=action.bytes_per_s, by=context.world.now),
    )
    renewal = action.key in context.world.wanted.reservations
    return Step(action, why, reason, context.world.now, context.lead_s(action.kind, about), renewal)


def _subject(request: BandwidthRequest) -> str:
    return str(Pair(request.source or "everyone", request.virtual_ip))


def _due(context: PlanningContext, one: HandledRequest) -> HandledRequest:
    """Leaves out what is held as it should be and need not be renewed yet."""
    due = tuple(step for step in one.steps if _changes(context, step, one.decision.case.request.until))
    return replace(one, steps=due)


def _changes(context: PlanningContext, step: Step, until: Seconds) -> bool:
    action = step.action
    held = context.world.wanted.reservations.get(action.target)
    if held is None or not isinstance(action, ReserveBandwidth):
        return True
    ends_soon = (
        held.expires_at - context.world.now < context.config.bandwidth.lease_s / 2 and held.expires_at < until - 0.01
    )
    same = abs(held.bytes_per_s - action.bytes_per_s) <= SAME_SHARE * action.bytes_per_s and held.dscp == action.dscp
    return ends_soon or not same or not fits(held.limits, action.limits, context.config.bandwidth)
