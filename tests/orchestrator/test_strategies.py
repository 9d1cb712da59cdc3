"""The three strategies on hand-made worlds: what they do, how much, when, and what they refuse."""

from dataclasses import replace
from typing import Any

import pytest
from worlds import CONFIG, GIB, LINK, NOW, RELATION, changed, foreseen, machines, pair_state, vm, world

from cpdb import Pair, Quantity, Reservation
from orchestrator import (
    HostSpec,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    ReleaseBandwidth,
    ReserveBandwidth,
    SetCpuLimit,
    SetVcpus,
    World,
    apply,
    plan,
)
from orchestrator.context import PlanningContext
from orchestrator.lead_times import LeadGroup, LeadTimes

QUIET = pair_state("c1", "shop", 10, 2.0)
FLOOD = pair_state("c9", "backup", 0, 0.0, bytes_per_s=1_060_000.0, typical_bytes_per_s=1_060_000.0)
SHOP = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
BATCH = vm("batch", "h1", 0.25, 0.25, movable=True)


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def served(peaks: dict[int, float]):
    return foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), peaks)


# -- bandwidth


def test_a_foreseen_surge_makes_the_less_important_pair_give_way() -> None:
    start = world([foreseen(QUIET, {5: 25.0}), FLOOD])
    (step,) = planned(start).steps
    assert isinstance(step.action, ReserveBandwidth)
    assert step.action.pair == QUIET.pair
    (limit,) = step.action.limits
    assert limit.pair == FLOOD.pair
    assert 0.05 * 1_500_000 <= limit.bytes_per_s <= CONFIG.bandwidth.trigger * 1_500_000 - 25 * 30_000 * 0.7
    assert step.needed_at == NOW + 5
    assert step.reason.to_json()["forecast"]["model"] == "oracle"
    assert step.reason.to_json()["where"] == {"link": "leaf>h1"}
    assert step.reason.to_json()["promise"]["by"] == NOW + 5


def test_nobody_is_held_back_before_the_lead_time_asks_for_it() -> None:
    far = world([foreseen(QUIET, {5: 2.0, 15: 25.0, 30: 25.0}), FLOOD])
    assert planned(far).steps == ()
    slow = replace(far, leads=LeadTimes({LeadGroup("reserve_bandwidth"): 6.0}))
    assert [one.needed_at for one in planned(slow).steps] == [NOW + 15]


def test_equals_share_a_full_link_fairly_and_only_who_takes_more_gives_way() -> None:
    flood, quiet = replace(FLOOD, priority=10), pair_state("c3", "shop", 10, 1.0)
    (step,) = planned(world([foreseen(QUIET, {5: 17.0}), flood, quiet])).steps
    assert isinstance(step.action, ReserveBandwidth)
    (limit,) = step.action.limits
    assert limit.pair == FLOOD.pair
    # What the others need is theirs; the rest is left to who wants more than an equal part.
    assert CONFIG.bandwidth.trigger * 1_500_000 - 600_000 < limit.bytes_per_s < 1_060_000
    assert "more than a fair share" in step.why
    room = world([foreseen(QUIET, {5: 5.0}), flood, quiet])
    assert planned(room).steps == ()


def test_equals_who_all_want_more_than_a_fair_share_are_left_alone() -> None:
    floods = [replace(FLOOD, pair=Pair(f"c{n}", "backup"), priority=10) for n in range(3)]
    found = planned(world(floods))
    assert found.steps == ()
    assert "same priority" in found.refusals[0].why_not


def test_a_link_of_unknown_capacity_is_left_alone() -> None:
    assert planned(world([foreseen(QUIET, {5: 500.0}), FLOOD], capacity=None)).steps == ()


def test_a_lease_is_renewed_at_half_time_while_needed_and_not_after() -> None:
    start = world([foreseen(QUIET, {5: 25.0}), FLOOD])
    held = apply(start, planned(start).steps[0].action)
    later = replace(held, now=NOW + 3)
    assert planned(later).steps == ()
    half = replace(held, now=NOW + 6, pairs={**held.pairs, QUIET.pair: fresh(QUIET, 25.0, NOW + 6)})
    (step,) = planned(half).steps
    assert step.renewal
    over = replace(half, pairs={**held.pairs, QUIET.pair: QUIET})
    (end,) = planned(over).steps
    assert isinstance(end.action, ReleaseBandwidth)


def fresh(state, peak: float, issued_at: float):
    return foreseen(state, {5: peak}, issued_at)


def test_a_competitor_that_backs_off_does_not_end_the_reservation() -> None:
    start = world([foreseen(QUIET, {5: 25.0}), FLOOD])
    (step,) = planned(start).steps
    held = apply(start, step.action)
    # What it sent before it was limited is what is typical of it (see orchestrator/observe/offered.py).
    meek = replace(FLOOD, bytes_per_s=100_000.0)
    pairs = {QUIET.pair: fresh(QUIET, 25.0, NOW + 6), FLOOD.pair: meek}
    link = {LINK: replace(held.links[LINK], bytes_per_s=160_000.0)}
    (renewal,) = planned(replace(held, now=NOW + 6, pairs=pairs, links=link)).steps
    assert renewal.renewal
    assert renewal.action == step.action
    gone = {**pairs, FLOOD.pair: replace(meek, typical_bytes_per_s=100_000.0)}
    (end,) = planned(replace(held, now=NOW + 6, pairs=gone, links=link)).steps
    assert isinstance(end.action, ReleaseBandwidth)


def test_a_lower_limit_that_becomes_necessary_is_set_at_once() -> None:
    start = world([foreseen(QUIET, {5: 25.0}), FLOOD])
    action = planned(start).steps[0].action
    assert isinstance(action, ReserveBandwidth)
    loose = tuple(replace(one, bytes_per_s=2 * one.bytes_per_s) for one in action.limits)
    held = Reservation(action.key, action.pair, 1.0, loose, "o", "", NOW, NOW + CONFIG.bandwidth.lease_s)
    (step,) = planned(changed(start, reservations={held.key: held})).steps
    assert step.renewal
    assert isinstance(step.action, ReserveBandwidth)
    assert step.action.limits == action.limits


def test_other_traffic_on_the_link_counts() -> None:
    start = world([foreseen(QUIET, {5: 12.0, 30: 12.0}), replace(FLOOD, bytes_per_s=5e5, typical_bytes_per_s=5e5)])
    assert planned(start).steps == ()
    busy = replace(start, links={LINK: replace(start.links[LINK], bytes_per_s=1_450_000.0)})
    assert len(planned(busy).steps) == 1


def test_a_reservation_for_a_pair_that_calmed_down_is_not_prolonged_for_another() -> None:
    other = pair_state("c2", "search", 10, 0.5)
    start = world([QUIET, other, replace(FLOOD, bytes_per_s=1_500_000.0, typical_bytes_per_s=1_500_000.0)])
    held = apply(start, planned(start).steps[0].action)
    (key,) = held.wanted.reservations
    assert key.startswith(str(QUIET.pair))
    calm = {**held.pairs, FLOOD.pair: FLOOD}
    link = {LINK: replace(held.links[LINK], bytes_per_s=0.0)}
    (end,) = planned(replace(held, now=NOW + 6, pairs=calm, links=link)).steps
    assert isinstance(end.action, ReleaseBandwidth)


# -- compute


def test_predicted_connections_raise_the_cpu_limit_before_they_come() -> None:
    start = world([served({5: 20.0, 15: 20.0})], **machines(SHOP))
    (step,) = planned(start).steps
    assert step.action == SetCpuLimit("shop", 0.2, step.action.after)  # type: ignore[union-attr]
    assert 0.45 <= step.action.after <= 0.7  # type: ignore[union-attr,operator]
    assert step.needed_at == NOW + 5


def test_a_grant_stops_at_the_ceiling_and_at_what_the_host_has() -> None:
    low = replace(SHOP, spec=replace(SHOP.spec, cpu_cores_max=0.3))  # type: ignore[type-var]
    assert planned(world([served({5: 40.0})], **machines(low))).steps[0].action == SetCpuLimit("shop", 0.2, 0.3)
    tight = machines(SHOP, vm("other", "h1", 0.5, 0.5, priority=10), hosts=(HostSpec("h1", "", "", 1.0, GIB),))
    assert planned(world([served({5: 40.0})], **tight)).steps[0].action == SetCpuLimit("shop", 0.2, 0.4)


def big(limit: float, peaks: dict[int, float], **more: Any) -> World:
    """A machine of one vCPU that may have three, with 0.9 cores as its everyday limit."""
    spec = replace(SHOP.spec, cpu_cores_min=0.9, cpu_cores_max=3.0, vcpus_max=3)  # type: ignore[type-var]
    return world([served(peaks)], **machines(replace(SHOP, cores_limit=limit, spec=spec, **more), hosts=WIDE))


WIDE = (HostSpec("h1", "", "", 4.0, GIB),)


def test_beyond_its_vcpus_it_gets_the_quota_at_once_then_a_vcpu_then_the_rest() -> None:
    steps = planned(big(0.9, {5: 60.0})).steps
    assert [(type(one.action), one.waits) for one in steps] == [
        (SetCpuLimit, False), (SetVcpus, True), (SetCpuLimit, True),
    ]  # fmt: skip
    assert [one.action.after for one in steps] == [1.0, 2, pytest.approx(1.6, abs=0.4)]  # type: ignore[union-attr]
    chosen = steps[0].reason.to_json()["choice"]["set"]
    assert [one["action"] for one in chosen] == ["a limit of 1.00 cores", "another vCPU"]
    full = planned(big(1.0, {5: 60.0})).steps
    assert [(type(one.action), one.waits) for one in full] == [(SetVcpus, False), (SetCpuLimit, True)]


def test_a_vcpu_that_takes_longer_is_plugged_in_for_a_farther_need_and_the_quota_waits_for_it() -> None:
    slow = LeadTimes({LeadGroup("set_vcpus"): 8.0})
    start = replace(big(1.0, {5: 2.0, 15: 60.0, 30: 60.0}), leads=slow)
    (step,) = planned(start).steps
    assert step.action == SetVcpus("shop", 1, 2)
    assert step.needed_at == NOW + 15
    under_way = replace(big(1.0, {5: 60.0, 15: 60.0}), in_flight=(SetVcpus("shop", 1, 2),))
    (quota,) = planned(under_way).steps
    assert isinstance(quota.action, SetCpuLimit)
    assert quota.waits


def test_what_was_not_chosen_is_told_with_its_lead_time() -> None:
    (step,) = planned(world([served({5: 20.0})], **machines(SHOP))).steps
    told = {one["action"]: one["why_not"] for one in step.reason.to_json()["alternatives"]}
    assert "it has all of its 1 vCPUs" in told["another vCPU"]
    assert "h1 has the cores" in told["moving another machine away"]


def test_a_limit_goes_back_at_once_where_trusted_forecasts_see_nothing_and_else_after_calm() -> None:
    raised, unknown = replace(SHOP, cores_limit=0.6), pair_state("c1", "shop", 10, 2.0, destination="shop", links=())
    (step,) = planned(world([served({5: 2.0, 15: 2.0})], **machines(raised))).steps
    assert step.action == SetCpuLimit("shop", 0.6, 0.2)
    calm = replace(raised, calm=True)
    blind = replace(unknown, pair=Pair("c2", "shop"))
    for pairs in ([unknown], [served({5: 2.0, 15: 2.0}), blind]):
        assert planned(world(pairs, **machines(raised))).steps == ()
        (step,) = planned(world(pairs, **machines(calm))).steps
        assert step.action == SetCpuLimit("shop", 0.6, 0.2)
    foreseen_only = world([served({5: 2.0})], **machines(raised))
    assert planned(foreseen_only, CONFIG.tuned(policy="reactive")).steps == ()


def test_a_limit_is_kept_for_what_comes_before_it_could_be_raised_again_however_calm_it_is() -> None:
    calm = replace(SHOP, cores_limit=0.6, calm=True)
    assert planned(world([served({5: 20.0, 15: 20.0})], **machines(calm))).steps == ()
    later = world([served({5: 2.0, 15: 20.0})], **machines(calm))
    assert len(planned(later).steps) == 1
    assert planned(replace(later, leads=LeadTimes({LeadGroup("set_cpu_limit"): 8.0}))).steps == ()


def test_a_machine_keeps_what_seconds_need_soon() -> None:
    raised = replace(SHOP, cores_limit=0.6)
    for rate in (11.9, 12.0):
        start = world([served({5: rate, 15: rate})], **machines(raised))
        (step,) = planned(start).steps
        assert isinstance(step.action, SetCpuLimit)
        assert 0.2 < step.action.after < 0.45
        mean = start.pairs[Pair("c1", "shop")].forecasts[5, Quantity.CONNECTIONS_MEAN].at(0.5)
        assert step.action.after >= RELATION.cores(mean)
        assert "enough for what may come" in step.why
        assert planned(apply(start, step.action)).steps == ()


def test_an_undeclared_machine_is_never_touched() -> None:
    stranger = replace(SHOP, spec=None)
    assert planned(world([served({5: 40.0, 15: 40.0, 30: 40.0})], **machines(stranger))).steps == ()


# -- placement


def crowded(peaks: dict[int, float], **more: object) -> World:
    steady = vm("steady", "h1", 0.35, 0.5, priority=10)
    return world([served(peaks)], **(machines(SHOP, BATCH, steady) | more))


def moves(found: Plan) -> list[MigrateVm]:
    return [one.action for one in found.steps if isinstance(one.action, MigrateVm)]


def test_the_least_important_machine_leaves_before_the_host_is_short() -> None:
    found = planned(crowded({5: 2.0, 15: 20.0, 30: 20.0}))
    assert moves(found) == [MigrateVm("batch", "h1", "h2")]
    (step,) = [one for one in found.steps if isinstance(one.action, MigrateVm)]
    assert step.needed_at == NOW + 15
    assert step.reason.to_json()["where"]["host"] == "h1"


def test_a_need_that_soon_passes_is_not_worth_a_move() -> None:
    brief = foreseen(
        pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), {15: 20.0, 30: 20.0}, longest_share=0.1
    )
    steady = vm("steady", "h1", 0.35, 0.5, priority=10)
    found = planned(world([brief], **machines(SHOP, BATCH, steady)))
    assert moves(found) == []
    assert any("too short" in one.why_not and one.action is not None for one in found.refusals)


def test_too_late_is_refused_and_says_so() -> None:
    start = replace(crowded({5: 20.0, 15: 20.0, 30: 20.0}), leads=LeadTimes({LeadGroup("migrate_vm"): 20.0}))
    found = planned(start)
    assert moves(found) == []
    assert any("too late" in one.why_not and one.action is not None for one in found.refusals)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        (HostSpec("h2", "", "", 1.0, GIB, cordoned=True), "cordoned"),
        (HostSpec("h2", "", "", 1.0, 64 << 20), "MiB memory"),
        (HostSpec("h2", "", "", 0.1, GIB), "short itself"),
    ],
)
def test_a_host_without_room_is_not_a_destination(host: HostSpec, why: str) -> None:
    hosts = {"h1": HostSpec("h1", "", "", 1.0, GIB), "h2": host}
    found = planned(crowded({15: 20.0, 30: 20.0}, hosts=hosts))
    assert moves(found) == []
    assert any(why in one.why_not for one in found.refusals)


def test_a_machine_of_the_same_importance_stays() -> None:
    peer = replace(BATCH, spec=replace(BATCH.spec, priority=10))  # type: ignore[type-var]
    steady = vm("steady", "h1", 0.35, 0.5, priority=10)
    found = planned(world([served({15: 20.0, 30: 20.0})], **machines(SHOP, peer, steady)))
    assert moves(found) == []
    assert any("no movable machine" in one.why_not for one in found.refusals)


def test_a_machine_under_way_is_not_sent_again_and_counts_on_both_hosts() -> None:
    start = replace(crowded({5: 20.0, 15: 20.0, 30: 20.0}), in_flight=(MigrateVm("batch", "h1", "h2"),))
    found = planned(start)
    assert moves(found) == []
    grants = [one.action.after for one in found.steps if isinstance(one.action, SetCpuLimit)]
    assert grants == [pytest.approx(0.3)]  # 0.9 - 0.35 - 0.25 for the one that is still there


def test_what_a_move_frees_is_granted_after_it() -> None:
    found = planned(crowded({5: 20.0, 15: 20.0, 30: 20.0}))
    kinds = [(type(one.action).__name__, one.waits) for one in found.steps]
    assert kinds == [("SetCpuLimit", False), ("MigrateVm", False), ("SetCpuLimit", True)]


def test_a_machine_on_its_way_already_takes_its_share_of_the_destination() -> None:
    here = vm("shop", "h2", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    start = world([served({5: 40.0})], **machines(here, BATCH))
    (free,) = planned(start).steps
    (shared,) = planned(replace(start, in_flight=(MigrateVm("batch", "h1", "h2"),))).steps
    assert free.action == SetCpuLimit("shop", 0.2, 0.8)
    assert shared.action == SetCpuLimit("shop", 0.2, pytest.approx(0.65))  # 0.9 without the 0.25 that are coming
