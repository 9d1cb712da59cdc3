"""One contract for both engines: what goes in comes out, and each law of the records holds in the database."""

from array import array
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpdb import (
    ActionRecord,
    ActionTiming,
    AuditRecord,
    Batch,
    Communication,
    Destination,
    FlowKey,
    Forecast,
    HostLoad,
    InstallStatus,
    Limit,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    OutcomeKind,
    Pair,
    Pause,
    PlanRecord,
    Quantity,
    Reservation,
    ReservationReport,
    RetentionPolicy,
    Score,
    Store,
    StoreError,
    VirtualIp,
    VmLoad,
    WantedWeights,
    open_store,
)

SHOP = "10.0.0.101"
PAIR = Pair("c1", SHOP)
LEASE = Reservation(
    key="c1->shop@leaf",
    pair=PAIR,
    bytes_per_s=6e5,
    limits=(Limit(Pair("c4", "10.0.0.103"), 4e5),),
    owner="test",
    reason="a surge is expected",
    created_at=100.0,
    expires_at=110.0,
)
ACTION = ActionRecord(
    kind="set_cpu_limit",
    target="shop1",
    body={"to": 0.4},
    why="needs more",
    reason={"need": 0.4},
    policy="predictive",
    issued_at=10.0,
    timing=ActionTiming(15.0, 0.5),
)


def row(t: float, source: str = "c1", size: int = 1000) -> Communication:
    return Communication(source, SHOP, "shop1", t, 1.0, size, 10, 2)


def test_communications_come_back_as_written_and_in_order_of_time(store: Store) -> None:
    rows = [row(2.0), row(1.0, "c2"), Communication("c3", "10.0.0.9", None, 3.0, 1.0, 0, 0, 0)]
    store.facts.add_communications(rows)
    assert store.facts.communications(0.0) == sorted(rows, key=lambda one: one.t)
    assert store.facts.communications(1.0, 2.0) == [rows[0]]
    assert store.facts.span() == (1.0, 3.0)


def test_large_counters_are_not_cut(store: Store) -> None:
    huge = row(1.0, size=2**62)
    store.facts.add_communications([huge])
    assert store.facts.communications(0.0) == [huge]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2**40)), max_size=20))
def test_bytes_are_conserved(store: Store, written: list[tuple[str, int]]) -> None:
    before = sum(one.bytes for one in store.facts.communications(0.0))
    store.facts.add_communications([row(float(n), name, size) for n, (name, size) in enumerate(written, 1)])
    now = sum(one.bytes for one in store.facts.communications(0.0))
    assert now - before == sum(size for _, size in written)


def test_loads_of_each_kind_come_back(store: Store) -> None:
    loads = [
        LinkLoad("leaf", "hA", 1.0, 1.0, 500, 5, 1),
        HostLoad("hA", 1.0, 0.5, 0.8, 100, 200),
        VmLoad("shop1", "hA", 1.0, "running", 0.2, 0.3, 1, 50, 100),
    ]
    store.facts.add_loads(loads)
    assert [store.facts.loads(type(one), 0.0) for one in loads] == [[one] for one in loads]
    assert store.facts.loads(HostLoad, 1.0) == []


def test_loads_of_one_machine_come_back_oldest_first(store: Store) -> None:
    at = {t: VmLoad("shop1", "hA", t, "running", 0.2, 0.3, 1, 50, 100) for t in (3.0, 1.0, 2.0, 4.0)}
    store.facts.add_loads([*at.values(), replace(at[2.0], vm="shop2")])
    assert store.facts.vm_loads("shop1", 1.0, 3.0) == [at[2.0], at[3.0]]
    assert store.facts.vm_loads("shop3", 0.0, 9.0) == []


def test_a_declared_capacity_survives_discovery(store: Store) -> None:
    store.inventory.put_links([Link("leaf2", 3, "hA", 0, 1.5e6, declared=True)])
    store.inventory.put_links([Link("hA", 0, "leaf2", 3, None, up=False)])
    assert store.inventory.links() == [Link("hA", 0, "leaf2", 3, 1.5e6, up=False, declared=True)]


def test_a_node_keeps_what_a_later_word_leaves_out(store: Store) -> None:
    store.inventory.put_nodes([Node("c1", NodeKind.CLIENT, address="10.0.0.1")])
    store.inventory.put_nodes([Node("c1", NodeKind.CLIENT, attached_to="leaf1", port=3, last_seen=5.0)])
    assert store.inventory.nodes() == [Node("c1", NodeKind.CLIENT, "10.0.0.1", None, None, "leaf1", 3, 5.0)]


def test_virtual_ips_are_exactly_those_declared_last(store: Store) -> None:
    shop = VirtualIp(SHOP, "shop", 10, (Destination("shop1", "10.0.0.11", "02:00:00:00:00:11"),))
    store.inventory.declare_virtual_ips([shop, VirtualIp("10.0.0.102", "search")])
    store.inventory.declare_virtual_ips([shop])
    assert [item for item in store.inventory.virtual_ips() if item.declared] == [shop]


def test_an_address_seen_on_the_wire_becomes_an_undeclared_virtual_ip(store: Store) -> None:
    store.facts.add_communications([row(1.0)])
    assert store.inventory.virtual_ips() == [VirtualIp(SHOP, SHOP, 0, (), declared=False)]


def test_latest_forecasts_are_the_newest_issue_and_never_from_the_future(store: Store) -> None:
    old = Forecast(PAIR, 10.0, 5, Quantity.BYTES_PEAK, "naive", {0.5: 1.0, 0.9: 3.0})
    new = replace(old, issued_at=11.0)
    store.forecasts.add_forecasts([old, new, replace(old, issued_at=99.0)])
    assert [replace(one, id=None) for one in store.forecasts.latest(now=12.0, max_age_s=5.0)] == [new]
    assert store.forecasts.latest(now=30.0, max_age_s=5.0) == []


def test_scores_come_back(store: Store) -> None:
    score = Score(PAIR, 10.0, 15.0, 5, Quantity.CONNECTIONS_PEAK, "ewma", 4.0, 0.7, True)
    store.forecasts.add_scores([score])
    assert store.forecasts.scores(0.0) == [score]


def test_a_lease_ends_by_itself(store: Store) -> None:
    store.wanted.reserve(LEASE)
    assert [one.limits for one in store.wanted.reservations(now=109.0)] == [LEASE.limits]
    assert store.wanted.reservations(now=110.0) == []


def test_renewing_replaces_and_every_change_has_a_generation_of_its_own(store: Store) -> None:
    first = store.wanted.reserve(LEASE)
    second = store.wanted.reserve(replace(LEASE, expires_at=120.0))
    third = store.wanted.want_weights(WantedWeights(SHOP, {"shop1": 50, "shop2": 50}, "test", "even"))
    assert first < second < third == store.wanted.generation()
    assert [one.expires_at for one in store.wanted.reservations(now=100.0)] == [120.0]
    assert store.wanted.weights()[0].weights == {"shop1": 50, "shop2": 50}
    assert store.wanted.release(LEASE.key, 105.0)
    assert not store.wanted.release(LEASE.key, 105.0)
    assert store.wanted.generation() == third + 1


def test_the_newest_observation_of_a_switch_stands(store: Store) -> None:
    seen = ReservationReport(LEASE.key, "leaf1", 1, InstallStatus.INSTALLED, "meter 1", 100.0)
    store.wanted.observe([seen])
    store.wanted.observe([seen.removed("lease ended", 110.0)])
    assert [(one.status, one.observed_at) for one in store.wanted.observed_of(ReservationReport)] == [
        ("removed", 110.0)
    ]


def test_an_action_is_amended_with_its_outcome(store: Store) -> None:
    number = store.journal.add_action(ACTION)
    done = replace(
        ACTION, id=number, timing=ActionTiming(15.0, 0.5, 10.4), outcome=OutcomeKind.DONE, sentence="limit is 0.40"
    )
    store.journal.amend_action(done)
    assert store.journal.action(number) == done
    assert store.journal.actions() == [done]
    assert store.journal.actions(since=10.0) == []
    assert store.journal.action(number + 1) is None


def test_a_newer_plan_supersedes_an_open_one(store: Store) -> None:
    first = store.journal.add_plan(PlanRecord(1.0, 31.0, "open", {"actions": []}))
    second = store.journal.add_plan(PlanRecord(2.0, 32.0, "open", {"actions": []}))
    assert not store.journal.close_plan(first, "applied")
    assert store.journal.close_plan(second, "applied")
    assert [getattr(store.journal.plan(number), "state", None) for number in (first, second, 99)] == [
        "superseded",
        "applied",
        None,
    ]


def test_two_processes_may_name_the_same_node_at_once(url: str) -> None:
    one, other = open_store(url), open_store(url)
    one.facts.add_communications([row(1.0, "new")])
    other.facts.add_communications([row(2.0, "new")])
    assert [item.source for item in one.facts.communications(0.0)] == ["new", "new"]
    one.close()
    other.close()


def test_the_schema_in_the_database_is_the_one_in_the_code(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from cpdb.schema import metadata

    def is_ours(_item: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        partition = "_from_" in (name or "") or (name or "").endswith("_rest")
        return not (kind == "table" and partition)

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("level,value", [(0.05, 1.0), (0.5, 1.0), (0.7, 2.0), (0.9, 3.0), (0.99, 3.0)])
def test_a_forecast_is_linear_between_its_levels(level: float, value: float) -> None:
    forecast = Forecast(PAIR, 0.0, 5, Quantity.BYTES_PEAK, "naive", {0.5: 1.0, 0.9: 3.0})
    assert forecast.at(level) == pytest.approx(value)


def test_a_reading_store_reads_and_the_database_refuses_its_writes(url: str, store: Store) -> None:
    store.facts.add_communications([Communication("c1", SHOP, "shop1", 10.0, 1.0, 100, 1, 1)])
    reading = open_store(url, create=False, read_only=True)
    try:
        assert [one.bytes for one in reading.facts.communications(0.0)] == [100]
        for write in (
            lambda: reading.facts.add_communications([Communication("c2", SHOP, None, 11.0, 1.0, 1, 1, 1)]),
            lambda: reading.wanted.reserve(LEASE),
            lambda: reading.pauses.pause(Pause(1.0, "anna")),
        ):
            with pytest.raises(StoreError):
                write()
    finally:
        reading.close()
    assert [one.pair for one in store.facts.communications(0.0)] == [PAIR] and store.wanted.reservations(0.0) == []


def test_the_history_of_a_pair_knows_silence_and_survives_the_roll_up(store: Store) -> None:
    for second in range(1, 121):
        keys = [FlowKey("c1", SHOP, "shop1")] if second % 2 else []
        column = [array("q", [value] * len(keys)) for value in (1000, 10, 2)]
        batch = Batch("leaf1", float(second), 1.0, keys, *column, complete=True, writer="w", seq=second)
        other = Batch("leaf2", float(second), 1.0, [], *(array("q") for _ in range(3)), complete=True)
        store.facts.add_batches([batch, other])
    fine = store.series.history(PAIR, 60.0, 120.0)
    assert [one.bytes_per_s for one in fine[-4:]] == [1000.0, 0.0, 1000.0, 0.0] and fine[-2].connections_per_s == 2.0
    assert len(fine) in (59, 60) and store.series.step_at(100.0) == 1
    policy = RetentionPolicy(second_s=10.0)
    while store.retain(20_000.0, policy, 5.0).left:
        pass
    rolled = store.series.history(PAIR, 60.0, 120.0)
    assert store.series.step_at(100.0) == 10
    assert [(one.t, one.bytes_per_s) for one in rolled] == [(t, 500.0) for t in (70, 80, 90, 100, 110, 120)]
    assert store.series.history(Pair("nobody", SHOP), 60.0, 120.0) == []


def test_who_had_something_changed_is_told_newest_first(store: Store) -> None:
    told = [AuditRecord(t, "anna", "10.0.0.9", "pause", {"for_s": t}) for t in (1.0, 2.0, 3.0)]
    for one in told:
        store.journal.add_audit(one)
    assert store.journal.audits(1.0) == [told[2], told[1]] and store.journal.audits(0.0, 1.0) == [told[0]]
