"""Admission: what is promised fits on every link all the time that was asked for, and in which order it is given."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, LINK, NOW, changed, foreseen, pair_state, world

from cpdb import BandwidthRequest, Destination, InstallStatus, Pair, RequestState, ReservationReport, VirtualIp
from orchestrator import LinkState, Plan, QueueSpec, ReserveBandwidth, TenantCap, World, apply, plan
from orchestrator.actions import ReleaseBandwidth
from orchestrator.context import PlanningContext
from orchestrator.world import Outlook

CAPACITY = 1_500_000.0
NARROW = ("core", "leaf")
QUEUE = QueueSpec("leaf>h1", "leaf-eth1", CAPACITY, 0.8)
FLOOD = pair_state("c9", "backup", 0, bytes_per_s=1_060_000.0, typical_bytes_per_s=1_060_000.0)
VIPS = {
    name: VirtualIp(name, name, priority, (Destination("h1", "10.0.0.1", "52:54:00:00:00:01"),))
    for name, priority in (("shop", 10), ("search", 10), ("backup", 0))
}


def ask(number: int, rate: float, **more) -> BandwidthRequest:
    values = {"source": "c1", "virtual_ip": "shop", "until": NOW + 20, "reason": "r", "asked_by": "me", "asked_at": NOW}
    return BandwidthRequest(**({"bytes_per_s": rate, "id": number} | values | more))


def asking(*requests: BandwidthRequest, pairs=(), **more) -> World:
    known = [pair_state("c1", "shop", 10, 2.0), *pairs]
    ways = {"ways": lambda _source, end: (LINK,) if end == "h1" else ()}
    return world(known, virtual_ips=VIPS, requests=requests, **(ways | more))


def planned(start: World, config=CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def answer(start: World, number: int = 1, config=CONFIG) -> BandwidthRequest:
    found = planned(start, config).requests
    return next(one.decision.amended(NOW) for one in found if one.decision.case.request.id == number)


def leases(start: World, config=CONFIG) -> list[ReserveBandwidth]:
    return [one.action for one in planned(start, config).steps if isinstance(one.action, ReserveBandwidth)]


def standing(request: BandwidthRequest, granted: float) -> BandwidthRequest:
    state = RequestState.GRANTED if granted >= request.bytes_per_s else RequestState.PARTLY
    return request.answered(state=state, granted_bytes_per_s=granted)


# -- how much


def test_what_fits_is_granted_and_competitors_give_way_without_being_cut_off() -> None:
    start = asking(ask(1, 900_000.0), pairs=[FLOOD])
    found = answer(start)
    assert (found.answer.state, found.answer.granted_bytes_per_s) == (RequestState.GRANTED, 900_000.0)
    (lease,) = leases(start)
    (limit,) = lease.limits
    assert lease.key == "request-1/leaf>h1/meters"
    assert limit.pair == FLOOD.pair
    assert 0.05 * CAPACITY <= limit.bytes_per_s <= 0.9 * CAPACITY - 900_000


def test_part_of_it_is_granted_when_all_does_not_fit_and_nothing_when_hardly_any_does() -> None:
    busy = pair_state("c2", "search", 10, bytes_per_s=800_000.0, typical_bytes_per_s=800_000.0)
    partly = answer(asking(ask(1, 900_000.0), pairs=[busy]))
    assert partly.answer.state is RequestState.PARTLY
    assert partly.answer.granted_bytes_per_s == pytest.approx(0.9 * CAPACITY - 800_000, rel=0.01)
    assert "leaf>h1 has" in partly.answer.why
    full = replace(busy, bytes_per_s=1_400_000.0, typical_bytes_per_s=1_400_000.0)
    refused = answer(asking(ask(1, 900_000.0), pairs=[full]))
    assert (refused.answer.state, refused.answer.granted_bytes_per_s) == (RequestState.REFUSED, 0.0)
    assert "nothing would fit" in refused.answer.why
    assert leases(asking(ask(1, 900_000.0), pairs=[full])) == []


def test_a_need_that_is_foreseen_counts_only_if_it_comes_before_the_end() -> None:
    rising = foreseen(pair_state("c2", "search", 10, 2.0), {5: 2.0, 15: 2.0, 30: 25.0})
    brief, long = ask(1, 900_000.0, until=NOW + 10), ask(1, 900_000.0, until=NOW + 25)
    assert answer(asking(brief, pairs=[rising])).answer.state is RequestState.GRANTED
    told = answer(asking(long, pairs=[rising]))
    assert told.answer.state is RequestState.PARTLY
    assert "within 30 s" in told.answer.why


def test_what_is_foreseen_of_the_link_and_minutes_ahead_counts_too() -> None:
    quiet = pair_state("c2", "search", 10, 1.0)
    request = ask(1, 900_000.0, until=NOW + 500)
    of_link = Outlook(links={(LINK, 15): 1_200_000.0})
    assert answer(asking(request, outlook=of_link)).answer.state is RequestState.PARTLY
    of_pair = Outlook(pairs={(quiet.pair, 300): 1_000_000.0})
    assert answer(asking(request, pairs=[quiet], outlook=of_pair)).answer.state is RequestState.PARTLY
    assert answer(asking(ask(1, 900_000.0), pairs=[quiet], outlook=of_pair)).answer.state is RequestState.GRANTED


def test_every_link_of_the_way_must_have_room() -> None:
    state = pair_state("c1", "shop", 10, 2.0, links=(NARROW, LINK))
    start = asking(ask(1, 900_000.0))
    start = replace(start, pairs={state.pair: state}, links={**start.links, NARROW: LinkState(NARROW, 500_000.0, 0.0)})
    found = answer(start)
    assert found.answer.granted_bytes_per_s == pytest.approx(450_000, rel=0.01)
    assert "core>leaf has" in found.answer.why
    unknown = {key: replace(one, capacity_bytes_per_s=None) for key, one in start.links.items()}
    assert "no link on its way has a known capacity" in answer(replace(start, links=unknown)).answer.why


def test_a_source_that_never_spoke_is_asked_for_along_the_way_to_the_destination() -> None:
    new = ask(1, 900_000.0, source="c7")
    (lease,) = leases(asking(new, pairs=[FLOOD]))
    assert lease.pair == Pair("c7", "shop")
    lost = answer(asking(new, ways=lambda _source, _end: ()))
    assert lost.answer.state is RequestState.ASKED
    assert "not known" in lost.answer.why


def test_a_whole_service_shares_its_grant_among_its_sources() -> None:
    others = [pair_state(f"c{n}", "shop", 10, 2.0) for n in (2, 3)]
    start = asking(ask(1, 600_000.0, source=""), pairs=[*others, FLOOD])
    assert answer(start).answer.state is RequestState.GRANTED
    (lease,) = leases(start)
    assert [one.pair for one in lease.limits] == [FLOOD.pair]
    queued = changed(start, queues=frozenset({QUEUE.link}))
    marked = leases(queued, CONFIG.tuned(declared={"queues": (QUEUE,)}))
    assert {one.pair.source for one in marked} == {"c1", "c2", "c3"}
    assert sum(one.bytes_per_s for one in marked) == pytest.approx(600_000)
    assert "nobody talks" in answer(asking(ask(1, 600_000.0, source="", virtual_ip="search"))).answer.why


# -- in which order


def test_the_more_important_comes_first_then_the_one_asked_first() -> None:
    early, late = ask(1, 900_000.0), ask(2, 900_000.0, source="c2", virtual_ip="search", asked_at=NOW + 1)
    both = asking(early, late, pairs=[pair_state("c2", "search", 10, 1.0)])
    assert [answer(both, n).answer.state for n in (1, 2)] == [RequestState.GRANTED, RequestState.PARTLY]
    urgent = replace(late, priority=20)
    turned = changed(both, requests=(early, urgent))
    assert [answer(turned, n).answer.state for n in (1, 2)] == [RequestState.PARTLY, RequestState.GRANTED]


def test_what_stands_yields_to_what_matters_more_and_to_nobody_else() -> None:
    mine = standing(ask(1, 900_000.0), 900_000.0)
    equal = pair_state("c2", "search", 10, bytes_per_s=800_000.0, typical_bytes_per_s=800_000.0)
    assert answer(asking(mine, pairs=[equal])).answer.granted_bytes_per_s == 900_000.0
    higher = replace(equal, priority=20)
    assert answer(asking(mine, pairs=[higher])).answer.granted_bytes_per_s == pytest.approx(550_000, rel=0.01)
    part = standing(ask(1, 900_000.0), 300_000.0)
    assert answer(asking(part)).answer.state is RequestState.GRANTED
    nearly = standing(ask(1, 900_000.0), 520_000.0)
    assert answer(asking(nearly, pairs=[higher])).answer.granted_bytes_per_s == 520_000.0


def test_a_tenant_gets_no_more_than_its_caps() -> None:
    config = CONFIG.tuned(
        declared={"tenants": {"shop": "retail"}, "tenant_caps": (TenantCap("retail", bytes_per_s=500_000.0),)}
    )
    first, second = ask(1, 400_000.0), ask(2, 400_000.0, source="c2")
    both = asking(first, second, pairs=[pair_state("c2", "shop", 10, 1.0)])
    assert answer(both, 1, config).answer.state is RequestState.GRANTED
    told = answer(both, 2, config)
    assert told.answer.granted_bytes_per_s == pytest.approx(100_000.0)
    assert "retail may have 4.0 Mbit/s" in told.answer.why
    by_link = config.tuned(declared={"tenant_caps": (TenantCap("retail", link_share=0.1),)})
    assert answer(both, 1, by_link).answer.granted_bytes_per_s == pytest.approx(0.1 * CAPACITY)
    other = replace(first, tenant="other")
    assert answer(asking(other), 1, config).answer.state is RequestState.GRANTED


# -- by what means, and until when


def queued(*requests: BandwidthRequest, **more) -> World:
    return changed(asking(*requests, pairs=[FLOOD]), queues=frozenset({QUEUE.link}), **more)


QUEUED = CONFIG.tuned(declared={"queues": (QUEUE,)})


def test_where_a_queue_stands_it_is_used_while_it_has_room() -> None:
    (lease,) = leases(queued(ask(1, 900_000.0)), QUEUED)
    assert (lease.key, lease.dscp, lease.limits) == ("request-1/leaf>h1/queue", 46, ())
    small = CONFIG.tuned(declared={"queues": (replace(QUEUE, guaranteed_share=0.5),)})
    (other,) = leases(queued(ask(1, 900_000.0)), small)
    assert other.dscp is None
    assert other.limits


def test_a_queue_that_is_refused_or_does_not_help_gives_way_to_limits_and_says_so() -> None:
    start = queued(standing(ask(1, 900_000.0), 900_000.0))
    held = apply(start, leases(start, QUEUED)[0])
    word = ReservationReport("request-1/leaf>h1/queue", "leaf1", 0, InstallStatus.REFUSED, "no such action", NOW)
    (request,) = planned(changed(held, observed=(word,)), QUEUED).requests
    assert "leaf1 refused the queue for leaf>h1: no such action" in request.troubles[0]
    after = changed(held, observed=(word,))
    for step in planned(after, QUEUED).steps:
        after = apply(after, step.action)
    assert list(after.wanted.reservations) == ["request-1/leaf>h1/meters-instead"]
    assert planned(changed(after, observed=()), QUEUED).steps == ()


def test_a_queue_that_drops_what_was_granted_has_failed() -> None:
    sending = pair_state("c1", "shop", 10, bytes_per_s=900_000.0, typical_bytes_per_s=900_000.0)
    start = queued(standing(ask(1, 900_000.0), 900_000.0))
    start = changed(start, pairs={**start.pairs, sending.pair: sending}, queue_losses={QUEUE.link: 0.2})
    held = apply(start, leases(start, QUEUED)[0])
    old = {key: replace(one, created_at=NOW - 10) for key, one in held.wanted.reservations.items()}
    found = planned(changed(held, reservations=old), QUEUED)
    assert "with the queue for leaf>h1 in place" in found.requests[0].troubles[0]
    assert "request-1/leaf>h1/meters-instead" in {one.action.target for one in found.steps}


def test_a_queue_that_is_whole_again_takes_over_from_limits() -> None:
    start = changed(queued(standing(ask(1, 900_000.0), 900_000.0)), queues=frozenset())
    held = apply(start, leases(start, QUEUED)[0])
    assert list(held.wanted.reservations) == ["request-1/leaf>h1/meters"]
    after = changed(held, queues=frozenset({QUEUE.link}))
    for step in planned(after, QUEUED).steps:
        after = apply(after, step.action)
    assert list(after.wanted.reservations) == ["request-1/leaf>h1/queue"]


def test_a_rate_that_does_not_arrive_is_told_with_figures() -> None:
    sending = pair_state("c1", "shop", 10, bytes_per_s=900_000.0, typical_bytes_per_s=900_000.0)
    start = replace(asking(standing(ask(1, 900_000.0), 900_000.0), pairs=[FLOOD]), now=NOW)
    start = replace(start, pairs={**start.pairs, sending.pair: sending})
    held = apply(start, leases(start)[0])
    lossy = {LINK: replace(held.links[LINK], bytes_per_s=1_400_000.0, drop_share=0.3)}
    young = planned(replace(held, links=lossy)).requests[0]
    assert young.obtained.arrived == pytest.approx(630_000)
    assert young.troubles == ()
    old = {key: replace(one, created_at=NOW - 10) for key, one in held.wanted.reservations.items()}
    (request,) = planned(changed(held, links=lossy, reservations=old)).requests
    assert "only 5.0 Mbit/s of 7.2 Mbit/s is obtained" in request.troubles[0]
    silent = replace(sending, bytes_per_s=10_000.0, typical_bytes_per_s=10_000.0)
    quiet = changed(held, links=lossy, reservations=old, pairs={**held.pairs, sending.pair: silent})
    assert planned(quiet).requests[0].troubles == ()


def test_leases_are_renewed_at_half_time_and_never_beyond_the_end() -> None:
    start = asking(standing(ask(1, 900_000.0, until=NOW + 20), 900_000.0), pairs=[FLOOD])
    held = apply(start, leases(start)[0])
    assert planned(replace(held, now=NOW + 3)).steps == ()
    (step,) = planned(replace(held, now=NOW + 5)).steps
    assert step.renewal
    last = planned(replace(held, now=NOW + 17)).steps[0].action
    assert isinstance(last, ReserveBandwidth)
    assert last.lease_s == pytest.approx(3.0)
    assert planned(replace(held, now=NOW + 20)).requests == ()


def test_what_is_withdrawn_is_given_back() -> None:
    start = asking(standing(ask(1, 900_000.0), 900_000.0), pairs=[FLOOD])
    held = apply(start, leases(start)[0])
    gone = changed(held, requests=(replace(start.wanted.requests[0], until=NOW).answered(state=RequestState.ENDED),))
    (step,) = planned(gone).steps
    assert isinstance(step.action, ReleaseBandwidth)
    assert apply(gone, step.action).wanted.reservations == {}


def test_the_reactive_and_predictive_strategy_spares_who_holds_a_grant() -> None:
    surge = foreseen(pair_state("c2", "search", 20, 2.0), {5: 30.0})
    mine = standing(ask(1, 300_000.0, source="c9", virtual_ip="backup"), 300_000.0)
    found = leases(asking(mine, pairs=[surge, FLOOD]))
    strategy = next(one for one in found if not one.key.startswith("request-"))
    assert {one.pair: one.bytes_per_s for one in strategy.limits}[FLOOD.pair] >= 300_000.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e4, 2e6), st.sampled_from([0, 10, 20]), st.floats(0, 8e5)), min_size=1, max_size=5),
    st.floats(2e5, 4e6),
)
def test_grants_and_limits_never_promise_more_than_a_link_has(asked: list, capacity: float) -> None:
    pairs = [
        pair_state(f"p{n}", "shop", 10, bytes_per_s=now, typical_bytes_per_s=now) for n, (_, _, now) in enumerate(asked)
    ]
    requests = [ask(n, rate, source=f"p{n}", priority=rank) for n, (rate, rank, _) in enumerate(asked)]
    start = asking(*requests, pairs=[*pairs, FLOOD])
    start = replace(start, links={LINK: LinkState(LINK, capacity, 0.0)})
    found = planned(start).requests
    assert sum(one.decision.granted for one in found) <= 0.9 * capacity * (1 + 1e-6)
    after = start
    for step in planned(start).steps:
        after = apply(after, step.action)
    assert [one.action.describe() for one in planned(after).steps] == []
