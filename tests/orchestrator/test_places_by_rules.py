"""Machines leave hosts under maintenance and short links, keep together or apart, and follow callers if asked to."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, GIB, LINK, RELATION, changed, foreseen, machines, pair_state, vm, world

from orchestrator import (
    HostSpec,
    LinkState,
    MigrateVm,
    OrchestratorConfig,
    Plan,
    ReserveBandwidth,
    VmState,
    World,
    apply,
    plan,
)
from orchestrator.context import PlanningContext
from orchestrator.pair_table import LinkKey
from orchestrator.strategies.destinations import forbidden

PEAKS = {5: 20.0, 15: 20.0, 30: 20.0}


def planned(start: World, config: OrchestratorConfig = CONFIG) -> Plan:
    return plan(PlanningContext.of(start, config))


def moves(found: Plan) -> list[MigrateVm]:
    return [one.action for one in found.steps if isinstance(one.action, MigrateVm)]


def host(name: str, cores: float = 1.0, **more: bool) -> HostSpec:
    return HostSpec(name, "", "", cores, GIB, **more)


def quiet(*guests: VmState, hosts: tuple[HostSpec, ...]) -> World:
    return world([pair_state("c1", "shop", 10, 1.0, links=())], **machines(*guests, hosts=hosts))


def batch(name: str, on: str, used: float = 0.1, **spec: object) -> VmState:
    return vm(name, on, used, 0.4, **({"movable": True} | spec))


# -- maintenance and cordons

CLOSED = host("h1", maintenance=True)


def test_a_host_under_maintenance_is_left_by_those_that_may_move_and_by_nobody_else() -> None:
    start = quiet(batch("a", "h1"), batch("b", "h1", movable=False), batch("c", "h2"), hosts=(CLOSED, host("h2")))
    (step,) = planned(start).steps
    assert step.action == MigrateVm("a", "h1", "h2")
    assert "under maintenance" in step.why
    assert step.reason.to_json()["promise"] == {"what": "vm_on_host", "vm": "a", "host": "h2", "by": start.now}
    assert step.reason.to_json()["pre_copy"]["converges"]


def test_a_cordoned_host_only_takes_nobody() -> None:
    start = quiet(batch("a", "h1"), hosts=(host("h1", cordoned=True), host("h2")))
    assert planned(start).steps == ()


def test_those_that_leave_are_spread_over_hosts_with_room_and_who_fits_nowhere_stays() -> None:
    guests = [batch(f"b{n}", "h1", 0.35) for n in range(3)]
    found = planned(quiet(*guests, hosts=(CLOSED, host("h2", 0.5), host("h3", 0.5))))
    assert {one.after for one in moves(found)} == {"h2", "h3"}
    assert len(moves(found)) == 2
    assert any("no room" in one.why_not for one in found.refusals)


def test_nothing_is_moved_onto_another_closed_host() -> None:
    found = planned(quiet(batch("a", "h1"), hosts=(CLOSED, host("h2", cordoned=True), host("h3", maintenance=True))))
    assert moves(found) == []
    assert any("h2 is cordoned; h3 is cordoned" in one.why_not for one in found.refusals)


# -- together and apart


def test_machines_that_should_be_apart_are_separated_and_never_brought_together() -> None:
    pair = [batch("a", "h1", anti_affinity="db"), batch("b", "h1", anti_affinity="db", priority=5)]
    found = planned(quiet(*pair, hosts=(host("h1"), host("h2"))))
    assert moves(found) == [MigrateVm("a", "h1", "h2")]
    elsewhere = [pair[0], replace(pair[1], host="h2")]
    assert moves(planned(quiet(*elsewhere, hosts=(CLOSED, host("h2"))))) == []
    assert moves(planned(quiet(*elsewhere, hosts=(CLOSED, host("h2"), host("h3"))))) == [MigrateVm("a", "h1", "h3")]


def test_a_scattered_group_meets_where_it_cannot_leave() -> None:
    group = [batch("a", "h1", affinity="web"), batch("b", "h2", affinity="web", movable=False)]
    assert moves(planned(quiet(*group, hosts=(host("h1"), host("h2"))))) == [MigrateVm("a", "h1", "h2")]
    assert moves(planned(quiet(*group, hosts=(host("h1"), host("h2", 0.15))))) == []  # no room for both
    met = [replace(group[0], host="h2"), group[1]]
    assert planned(quiet(*met, hosts=(host("h1"), host("h2")))).steps == ()


def test_a_group_leaves_together_and_to_one_host() -> None:
    group = [batch(f"w{n}", "h1", affinity="web") for n in range(3)]
    hosts = (CLOSED, host("h2", 0.25), host("h3", 2.0))
    assert [(one.vm, one.after) for one in moves(planned(quiet(*group, hosts=hosts)))] == [
        ("w0", "h3"), ("w1", "h3"), ("w2", "h3"),
    ]  # fmt: skip
    tied = [*group[:2], replace(group[2], spec=replace(group[2].spec, movable=False))]  # type: ignore[type-var]
    found = planned(quiet(*tied, hosts=hosts))
    assert moves(found) == []
    assert any("stays with w2 on h1" in one.why_not for one in found.refusals)


def short_host(*low: VmState, others: tuple[HostSpec, ...]) -> World:
    """A surge for shop that h1 cannot carry beside the machines `low`."""
    surging = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), PEAKS)
    shop = vm("shop", "h1", 0.05, 0.2, priority=10, cpu_cores_max=0.8, relation=RELATION)
    steady = vm("steady", "h1", 0.35, 0.5, priority=10)
    return world([surging], **machines(shop, steady, *low, hosts=(host("h1"), *others)))


def test_a_short_host_sends_a_whole_group_or_another_machine() -> None:
    both = [batch("w0", "h1", 0.2, affinity="web"), batch("w1", "h1", 0.2, affinity="web")]
    assert [one.vm for one in moves(planned(short_host(*both, others=(host("h2"),))))] == ["w0", "w1"]
    assert moves(planned(short_host(*both, others=(host("h2", 0.25), host("h3", 0.25))))) == []
    alone = batch("x", "h1", 0.3)
    found = moves(planned(short_host(*both, alone, others=(host("h2", 0.35), host("h3", 0.1)))))
    assert [one.vm for one in found] == ["x"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rules_hold_after_every_step_and_no_host_is_made_short(data: st.DataObject) -> None:
    names = ["h1", "h2", "h3"]
    hosts = tuple(
        host(name, data.draw(st.sampled_from([0.3, 0.6, 1.5])), maintenance=data.draw(st.booleans())) for name in names
    )
    guests = [
        batch(
            f"v{n}",
            data.draw(st.sampled_from(names)),
            data.draw(st.sampled_from([0.05, 0.2])),
            movable=data.draw(st.booleans()),
            affinity=data.draw(st.sampled_from([None, None, "web"])),
            anti_affinity=data.draw(st.sampled_from([None, None, "db"])),
        )
        for n in range(data.draw(st.integers(1, 5)))
    ]
    start = quiet(*guests, hosts=hosts)
    after = start
    for step in planned(start).steps:
        assert isinstance(step.action, MigrateVm)
        assert not after.hosts[step.action.after].closed
        before = {name: _rivals(after, name) for name in names}
        after = apply(after, step.action)
        for one in hosts:
            assert _rivals(after, one.name) <= before[one.name]
            used = sum(min(each.cores_limit, each.cores_used) for each in after.on_host(one.name))
            held = sum(min(each.cores_limit, each.cores_used) for each in start.on_host(one.name))
            assert used <= max(held, CONFIG.cpu.host_headroom * one.cpu_cores_capacity) + 1e-6


def _rivals(here: World, name: str) -> int:
    return max(0, sum(one.spec is not None and one.spec.anti_affinity == "db" for one in here.on_host(name)) - 1)


def test_why_a_rule_forbids_a_host_is_told() -> None:
    start = quiet(
        batch("a", "h1", anti_affinity="db"), batch("b", "h2", anti_affinity="db"), hosts=(host("h1"), host("h2"))
    )
    assert forbidden(start, "h2", start.vms["a"]) == "h2 has b, from which a stays apart"
    coming = replace(start, in_flight=(MigrateVm("b", "h2", "h3"),))
    assert "h3 has b" in (forbidden(coming, "h3", start.vms["a"]) or "")


# -- links

ACCESS_1, ACCESS_2 = ("leaf", "h1"), ("leaf", "h2")


def between(source: str, destination: str) -> tuple[LinkKey, ...]:
    """One leaf; c9 sits on h2's side, whose ways are shorter by a hop."""
    if source == "c9":
        return ((source, "h2"),) if destination == "h2" else ((source, "leaf"), ("leaf", destination))
    return ((source, "leaf"), ("leaf", destination))


def short_link(bulk_priority: int = 0, bulk_rate: float = 25.0, capacity: float = 1_300_000.0) -> World:
    """shop's surge and bulk's pairs share the link to h1; both machines are calm."""
    links = (("c1", "leaf"), ACCESS_1)
    surge = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=links), PEAKS, longest_share=0.8)
    bulk = pair_state("c2", "bulk", bulk_priority, bulk_rate, destination="bulk", links=(("c2", "leaf"), ACCESS_1))
    guests = (
        vm("shop", "h1", 0.05, 0.5, priority=10),
        vm("bulk", "h1", 0.1, 0.2, priority=bulk_priority, movable=True),
        vm("tiny", "h1", 0.1, 0.2, movable=True),
    )
    start = world([surge, bulk], **machines(*guests, hosts=(host("h1", 4.0), host("h2", 4.0))))
    states = {key: LinkState(key, capacity, 0.0) for key in (ACCESS_1, ACCESS_2)}
    states[ACCESS_1] = replace(states[ACCESS_1], bytes_per_s=bulk_rate * 30_000 + 60_000)
    return changed(start, links=states, ways=between)


def test_the_less_important_machine_behind_a_link_that_will_be_short_goes_to_another() -> None:
    start = short_link(bulk_rate=28.0)
    found = planned(start)
    assert moves(found) == [MigrateVm("bulk", "h1", "h2")]
    (step,) = [one for one in found.steps if isinstance(one.action, MigrateVm)]
    assert step.reason.to_json()["where"] == {"link": "leaf>h1", "vm": "bulk"}
    assert step.reason.to_json()["promise"]["what"] == "link_bytes_per_s"
    assert step.needed_at > start.now
    # until it has gone, the fast tier keeps the important pair whole
    assert any(isinstance(one.action, ReserveBandwidth) for one in found.steps)


def test_who_matters_as_much_or_brings_little_or_would_take_the_link_along_stays() -> None:
    assert moves(planned(short_link(bulk_priority=10))) == []
    assert moves(planned(short_link(bulk_rate=1.0, capacity=650_000.0))) == []
    same = changed(short_link(), ways=lambda source, _end: ((source, "leaf"), ACCESS_1))
    found = planned(same)
    assert moves(found) == []
    assert any("would still go over leaf>h1" in one.why_not for one in found.refusals)
    assert moves(planned(changed(short_link(), ways=lambda _source, _end: ()))) == []


def test_nobody_is_sent_behind_a_link_that_has_no_room() -> None:
    start = short_link()
    full = {**start.links, ACCESS_2: replace(start.links[ACCESS_2], bytes_per_s=1_000_000.0)}
    found = planned(replace(start, links=full))
    assert moves(found) == []
    assert any("leaf>h2 on the way to h2 would carry" in one.why_not for one in found.refusals)


def test_after_the_move_there_is_nothing_left_to_do_for_the_link() -> None:
    start = short_link()
    action = moves(planned(start))[0]
    pairs = {
        pair: replace(one, links=between(pair.source, "h2")) if pair.virtual_ip == "bulk" else one
        for pair, one in start.pairs.items()
    }
    links = {key: replace(one, bytes_per_s=60_000.0) for key, one in start.links.items()}
    assert moves(planned(replace(apply(start, action), pairs=pairs, links=links))) == []


# -- nearness


def callers(of: str, rate: float = 5.0) -> World:
    talk = pair_state(of, "web", 0, rate, destination="web", links=between(of, "h1"))
    start = world([talk], **machines(vm("web", "h1", 0.1, 0.2, movable=True), hosts=(host("h1"), host("h2"))))
    return changed(start, links={}, ways=between)


def test_a_machine_follows_its_callers_only_where_asked_for_and_only_for_a_clear_gain() -> None:
    following = CONFIG.tuned(moves={"follow_sources": True})
    assert planned(callers("c9")).steps == ()
    (step,) = planned(callers("c9"), following).steps
    assert step.action == MigrateVm("web", "h1", "h2")
    assert "nearer to its callers on h2" in step.why
    assert planned(callers("c1"), following).steps == ()
    assert planned(callers("c9", rate=0.0), following).steps == ()
    nowhere = changed(callers("c9"), ways=lambda _source, end: () if end == "h2" else (("c9", "leaf"), ACCESS_1))
    assert planned(nowhere, following).steps == ()


@pytest.mark.parametrize(("caller", "goes"), [("c9", "h2"), ("c1", "h3")])
def test_of_hosts_with_room_the_nearer_to_the_callers_is_taken(caller: str, goes: str) -> None:
    start = short_host(batch("b", "h1", 0.3), others=(host("h2"), host("h3", 1.2)))
    talk = pair_state(caller, "b", 0, 3.0, destination="b", links=between(caller, "h1"))
    start = changed(start, pairs={**start.pairs, talk.pair: talk}, ways=between, links={})
    assert moves(planned(start)) == [MigrateVm("b", "h1", goes)]
    assert LINK not in start.links
