"""Guaranteed queues: what is decided about a port, who goes through them, and that a keeper never holds up a cycle."""

from dataclasses import replace

import pytest
from fake_queues import FakeQueues, eventually, settled
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import CONFIG, LINK, NOW, changed, foreseen, pair_state, world

from cpdb import DriverError
from orchestrator import (
    OrchestratorConfig,
    OvsQueues,
    Plan,
    QueueKeeper,
    QueueSpec,
    ReserveBandwidth,
    World,
    apply,
    plan,
    problem_lines,
)
from orchestrator.act.ovs_qos import CLASSES, PortState, QosChange, QueueCounts, faults, making, rates, removing
from orchestrator.context import PlanningContext

SPEC = QueueSpec("leaf>h1", "leaf-eth1", 1_500_000.0, 0.8)
OTHER = QueueSpec("leaf>h2", "leaf-eth2", 1_500_000.0)
QUEUED = CONFIG.tuned(declared={"queues": (SPEC,)})
QUIET = pair_state("c1", "shop", 10, 2.0)
FLOOD = pair_state("c9", "backup", 0, 0.0, bytes_per_s=1_060_000.0, typical_bytes_per_s=1_060_000.0)
WHOLE = PortState(
    port_exists=True,
    userspace=True,
    qos="u1",
    own=("u1", "u2", "u3"),
    rates=rates(SPEC),
    classes=CLASSES | {"1:fffe"},
    sorted_by_mark=True,
    queue_packets=50,
    queue_packets_before=1000,
)
BARE = PortState(port_exists=True, userspace=True, queue_packets=1000)


def planned(start: World, config: OrchestratorConfig = QUEUED) -> Plan:
    return plan(PlanningContext.of(start, config))


def reserved(start: World, config: OrchestratorConfig = QUEUED) -> ReserveBandwidth:
    (step,) = planned(start, config).steps
    assert isinstance(step.action, ReserveBandwidth)
    return step.action


def short(*more, ready: bool = True) -> World:
    """The link is about to be short; its queue stands or does not."""
    found = world([foreseen(QUIET, {5: 25.0}), FLOOD, *more])
    return changed(found, queues=frozenset({SPEC.link} if ready else ()))


# -- who goes through a queue


def test_where_a_queue_stands_the_pair_is_marked_and_nobody_is_limited() -> None:
    (step,) = planned(short()).steps
    action = reserved(short())
    assert (action.pair, action.dscp, action.limits) == (QUIET.pair, 46, ())
    assert 0 < action.bytes_per_s <= SPEC.guaranteed_bytes_per_s
    assert "DSCP 46" in action.describe()
    assert "limiting" not in action.describe()
    assert "queue" in step.why


def test_no_more_is_promised_than_the_queue_guarantees() -> None:
    small = CONFIG.tuned(declared={"queues": (replace(SPEC, guaranteed_share=0.2),)})
    assert reserved(short(), small).bytes_per_s == pytest.approx(300_000)


@pytest.mark.parametrize(
    ("start", "config"),
    [
        (short(ready=False), QUEUED),
        (short(), CONFIG),
    ],
    ids=["declared but not whole", "not declared"],
)
def test_otherwise_competitors_are_limited(start: World, config: OrchestratorConfig) -> None:
    action = reserved(start, config)
    assert action.dscp is None
    assert [one.pair for one in action.limits] == [FLOOD.pair]


def test_where_another_important_pair_would_share_with_the_flood_that_is_limited_as_well() -> None:
    action = reserved(short(pair_state("c2", "search", 10, 10.0)))
    assert (action.pair, action.dscp) == (QUIET.pair, 46)
    assert [one.pair for one in action.limits] == [FLOOD.pair]
    assert "limiting" in action.describe()
    assert "DSCP 46" in action.describe()


def test_a_queue_also_helps_against_traffic_that_is_no_pair_of_ours() -> None:
    start = changed(world([foreseen(QUIET, {5: 25.0})]), queues=frozenset({SPEC.link}))
    busy = replace(start, links={LINK: replace(start.links[LINK], bytes_per_s=1_450_000.0)})
    action = reserved(busy)
    assert (action.pair, action.dscp, action.limits) == (QUIET.pair, 46, ())
    assert planned(changed(busy, queues=frozenset())).steps == ()


def test_a_mark_is_held_renewed_and_exchanged_for_limits_when_the_queue_breaks() -> None:
    start = short()
    held = apply(start, reserved(start))
    assert [one.dscp for one in held.wanted.reservations.values()] == [46]
    assert planned(held).steps == ()
    later = {QUIET.pair: foreseen(QUIET, {5: 25.0}, NOW + 6), FLOOD.pair: FLOOD}
    half = replace(held, now=NOW + 6, pairs=later)
    (renewal,) = planned(half).steps
    assert (renewal.renewal, renewal.action) == (True, reserved(start))
    (exchange,) = planned(changed(held, queues=frozenset())).steps
    assert exchange.renewal
    assert isinstance(exchange.action, ReserveBandwidth)
    assert exchange.action.dscp is None
    assert exchange.action.limits


def test_a_mark_outlives_the_shortage_on_the_link_while_its_pair_needs_it() -> None:
    start = short()
    held = apply(start, reserved(start))
    meek = replace(FLOOD, bytes_per_s=100_000.0, typical_bytes_per_s=100_000.0)
    later = {QUIET.pair: foreseen(QUIET, {5: 25.0}, NOW + 6), FLOOD.pair: meek}
    links = {LINK: replace(held.links[LINK], bytes_per_s=160_000.0)}
    (renewal,) = planned(replace(held, now=NOW + 6, pairs=later, links=links)).steps
    assert renewal.action == reserved(start)


def test_contradictory_queues_are_refused_all_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        CONFIG.tuned(
            declared={"queues": (SPEC, replace(SPEC, link="x>y", guaranteed_share=1.0), replace(SPEC, device="z"))}
        )
    text = "\n".join(problem_lines(caught.value))
    assert "leaf-eth1 is named twice" in text
    assert "leaf>h1 is named twice" in text
    assert "x>y" in text


# -- what is decided about a port


def test_a_whole_queue_needs_nothing() -> None:
    assert faults(SPEC, WHOLE) == ()
    assert making(SPEC, WHOLE) == []


def test_the_queue_is_shortened_before_the_qos_and_the_filter_comes_last() -> None:
    length, qos, sorting = making(SPEC, BARE)
    assert length == ["ip", "link", "set", "dev", SPEC.device, "txqueuelen", "50"]
    assert qos == QosChange(
        (), (("0", "2400000", "12000000"), ("1", "9600000", "12000000"), ("all", None, "12000000")), 1000
    )
    assert isinstance(sorting, list)
    assert sorting[:5] == ["tc", "filter", "add", "dev", SPEC.device]
    assert making(SPEC, replace(BARE, userspace=False)) == [qos, sorting]


def test_only_what_is_missing_is_made() -> None:
    (sorting,) = making(SPEC, replace(WHOLE, sorted_by_mark=False))
    assert isinstance(sorting, list)
    assert sorting[:3] == ["tc", "filter", "add"]


@pytest.mark.parametrize(
    "seen",
    [
        replace(WHOLE, rates=rates(replace(SPEC, guaranteed_share=0.5))),
        replace(WHOLE, classes=frozenset(), sorted_by_mark=False),
        replace(WHOLE, qos=None, rates=(), classes=frozenset(), sorted_by_mark=False),
    ],
    ids=["other rates", "deleted in the kernel", "cleared by hand"],
)
def test_a_broken_qos_is_cleared_with_all_its_rows_and_remembers_the_old_length(seen: PortState) -> None:
    assert making(SPEC, seen) == [QosChange(("u1", "u2", "u3")), *making(SPEC, BARE)]


def test_a_foreign_qos_is_no_queue_of_ours_and_nothing_of_it_is_removed() -> None:
    foreign = replace(WHOLE, own=())
    assert "did not make" in faults(SPEC, foreign)[0]
    assert removing(SPEC, foreign) == []


def test_removal_takes_all_rows_and_gives_the_length_back() -> None:
    length = ["ip", "link", "set", "dev", SPEC.device, "txqueuelen", "1000"]
    assert removing(SPEC, WHOLE) == [QosChange(("u1", "u2", "u3")), length]
    assert removing(SPEC, replace(WHOLE, port_exists=False, qos=None)) == [QosChange(("u1", "u2", "u3"))]


@given(st.floats(1_000, 1e11), st.floats(0.01, 0.99))
def test_the_two_queues_share_exactly_the_capacity(capacity: float, share: float) -> None:
    (_, rest, most), (_, guaranteed, _), (_, _, whole) = rates(QueueSpec("a>b", "d", capacity, share))
    assert int(rest or "") + int(guaranteed or "") == int(whole or "") == int(most or "")


def test_a_switch_that_is_away_and_a_missing_tool_are_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = OvsQueues((SPEC,), "unix:/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    for look, said in (
        (queues.ensure, "Open vSwitch at unix:/nonexistent: No such file"),
        (queues.counts, "tc is not"),
    ):
        with pytest.raises(DriverError, match=f"leaf>h1 on leaf-eth1: {said}") as caught:
            look(SPEC)
        assert "\n" not in str(caught.value)


# -- the keeper


def test_a_keeper_makes_repairs_and_removes() -> None:
    queues = FakeQueues((SPEC, OTHER))
    keeper = QueueKeeper(queues, act=True, every_s=10)
    assert settled(keeper, 0.0, {SPEC.link, OTHER.link})
    queues.standing.clear()
    assert keeper.ready(9.0) == {SPEC.link, OTHER.link}
    assert queues.standing == set()
    keeper.ready(10.0)
    assert settled(keeper, 10.0, {SPEC.link, OTHER.link})
    keeper.close()
    assert queues.standing == set()


def test_without_permission_a_keeper_only_looks() -> None:
    queues = FakeQueues((SPEC, OTHER), standing={OTHER.link})
    keeper = QueueKeeper(queues, act=False)
    assert settled(keeper, 0.0, {OTHER.link})
    keeper.close()
    assert queues.standing == {OTHER.link}


def test_a_paused_keeper_repairs_nothing_until_it_may_go_on() -> None:
    queues = FakeQueues((SPEC, OTHER), standing={OTHER.link})
    keeper = QueueKeeper(queues, act=True, every_s=10)
    keeper.ready(0.0, paused=True)
    assert settled(keeper, 0.0, {OTHER.link})
    assert queues.standing == {OTHER.link}
    keeper.ready(10.0)
    assert settled(keeper, 10.0, {SPEC.link, OTHER.link})
    keeper.close()


def test_one_refusal_costs_only_its_own_link() -> None:
    queues = FakeQueues((SPEC, OTHER), refusing={SPEC.link})
    keeper = QueueKeeper(queues, act=True)
    assert settled(keeper, 0.0, {OTHER.link})
    keeper.close()
    assert queues.standing == set()


def test_a_switch_that_does_not_answer_holds_nobody_up() -> None:
    queues = FakeQueues((SPEC, OTHER))
    queues.open.clear()
    keeper = QueueKeeper(queues, act=True)
    assert [keeper.ready(float(now)) for now in range(30)] == [frozenset()] * 30
    queues.open.set()
    assert settled(keeper, 30.0, {SPEC.link, OTHER.link})
    keeper.close()


def test_what_a_guaranteed_queue_drops_is_told_as_a_share_of_its_packets() -> None:
    queues = FakeQueues((SPEC, OTHER), standing={SPEC.link})
    keeper = QueueKeeper(queues, act=False)

    def lost(link: str, share: float) -> bool:
        return eventually(lambda: keeper.losses().get(link) == share)

    queues.counted = {SPEC.link: QueueCounts(1000, 50)}
    assert lost(SPEC.link, 0.0)
    queues.counted = {SPEC.link: QueueCounts(1090, 60), OTHER.link: QueueCounts(5, 5)}
    assert lost(SPEC.link, 0.1)
    queues.counted = {SPEC.link: QueueCounts(10, 1)}  # made anew
    assert lost(SPEC.link, 0.0)
    keeper.close()
