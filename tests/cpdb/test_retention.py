"""Rolling up and forgetting: bytes are conserved, silence is told from absence, nothing is counted twice."""

import threading
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from cpdb import (
    ActionRecord,
    ActionTiming,
    Batch,
    FlowKey,
    Forecast,
    HorizonMove,
    HostLoad,
    LinkLoad,
    Pair,
    PlanRecord,
    Quantity,
    Reservation,
    RetentionPolicy,
    RetentionResult,
    Score,
    ScoreBatch,
    Store,
    Subject,
    SubjectKind,
    VmLoad,
    open_store,
)
from cpdb.telemetry.retention import bucket_end, roll_ups, tiers

SHOP = "10.0.0.101"
C1, C2 = FlowKey("c1", SHOP, "shop1"), FlowKey("c2", SHOP, None)
POLICY = RetentionPolicy()
# Minutes begin at multiples of 60.
T0 = 1_700_000_040.0
assert T0 % 60 == 0


def batch(t: float, sizes: dict[FlowKey, int], observer: str = "switch/leaf1", complete: bool = True) -> Batch:
    sized = array("q", sizes.values())
    packets, connections = array("q", [10] * len(sizes)), array("q", [1] * len(sizes))
    return Batch(observer, t, 1.0, list(sizes), sized, packets, connections, complete=complete)


def retain(store: Store, now: float, policy: RetentionPolicy = POLICY) -> RetentionResult:
    done = store.retain(now, policy, budget_s=60.0)
    assert not done.left
    return done


def rows(store: Store, step: int) -> list[dict[str, Any]]:
    query = f"SELECT p.*, n.name FROM patterns_{step}s p JOIN flow_keys k ON k.id = p.flow_key_id " + (
        "JOIN nodes n ON n.id = k.source_id ORDER BY p.t, n.name"
    )
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def total(store: Store, step: int) -> int:
    return sum(row["bytes"] for row in rows(store, step))


def test_ten_seconds_become_a_row_for_each_who_spoke(store: Store) -> None:
    store.facts.add_batches([batch(T0 + n, {C1: 100 * n} if n % 2 else {C1: n, C2: 5}) for n in range(1, 11)])
    assert retain(store, T0 + 13.0).rolled_up == 10
    c1, c2 = rows(store, 10)
    assert (c1["t"], c1["bytes"], c1["peak_bytes_per_s"]) == (T0 + 10, 100 * 25 + 30, 900)
    assert (c1["packets"], c1["connections"], c1["covered_s"]) == (100, 10, 10.0)
    # C2 spoke in five of ten seconds and was silent, not absent, in the others
    assert (c2["bytes"], c2["packets"], c2["covered_s"]) == (25, 50, 10.0)


def test_a_bucket_that_is_not_over_waits(store: Store) -> None:
    store.facts.add_batches([batch(T0 + 9.5, {C1: 1}), batch(T0 + 10.5, {C1: 2})])
    assert retain(store, T0 + 13.0).rolled_up == 1
    assert total(store, 10) == 1


def test_a_minute_is_built_once_and_late_batches_are_added_to_it(store: Store) -> None:
    store.facts.add_batches([batch(T0 + n, {C1: 7}) for n in range(1, 61) if n != 30])
    retain(store, T0 + 90.0)
    assert [(row["bytes"], row["covered_s"]) for row in rows(store, 60)] == [(59 * 7, 59.0)]
    store.facts.add_batches([batch(T0 + 30, {C2: 11})])
    retain(store, T0 + 91.0)
    c1, c2 = rows(store, 60)
    assert (c1["bytes"], c1["covered_s"]) == (59 * 7, 60.0)
    assert (c2["bytes"], c2["covered_s"]) == (11, 60.0)
    assert total(store, 10) == 59 * 7 + 11


def test_rows_without_proof_of_silence_cover_only_themselves(store: Store) -> None:
    store.facts.add_batches([batch(T0 + n, {C1: 5}, "sflow/leaf1", complete=False) for n in (2, 4, 31)])
    retain(store, T0 + 90.0)
    assert [(row["t"], row["covered_s"]) for row in rows(store, 10)] == [(T0 + 10, 2.0), (T0 + 40, 1.0)]
    assert [(row["bytes"], row["covered_s"]) for row in rows(store, 60)] == [(15, 3.0)]


def test_a_flag_stays_with_the_rolled_up_row(store: Store) -> None:
    store.facts.add_batches([replace(batch(T0 + 1, {C1: 1}), flags=array("B", [1])), batch(T0 + 2, {C1: 1})])
    retain(store, T0 + 90.0)
    assert [row["flags"] for row in rows(store, 10) + rows(store, 60)] == [1, 1]


TIMES = st.floats(0.1, 400.0, allow_nan=False)
SAID = st.lists(st.tuples(TIMES, st.sampled_from([C1, C2]), st.integers(0, 2**40), st.booleans()), max_size=25)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, runs=st.lists(st.floats(0.0, 500.0), max_size=4))
def test_bytes_are_conserved_in_whatever_order_they_come(
    store: Store, said: list[tuple[float, FlowKey, int, bool]], runs: list[float]
) -> None:
    with store.engine.begin() as connection:
        for table in ("pending", "batches", "patterns_10s", "patterns_60s", "covered"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("UPDATE progress SET value = 0"))
    parts = len(runs) + 1
    for part, now in enumerate([*sorted(runs), 1000.0]):
        for t, talk, size, complete in said[part::parts]:
            store.facts.add_batches([batch(T0 + t, {talk: size}, complete=complete)])
        retain(store, T0 + now)
    expected = sum(size for _, _, size, _ in said)
    assert total(store, 10) == total(store, 60) == expected
    assert sum(row.bytes for row in store.facts.communications(0.0)) == expected


def test_two_runners_count_nothing_twice(url: str) -> None:
    one, other = open_store(url), open_store(url)
    one.facts.add_batches([batch(T0 + n, {C1: 7}) for n in range(1, 130)])
    retain(one, T0 + 140.0)
    assert retain(other, T0 + 140.0).rolled_up == 0
    assert total(other, 10) == 129 * 7
    assert total(other, 60) == 120 * 7
    one.close()
    other.close()


def test_writers_go_on_while_room_is_made(store: Store, url: str) -> None:
    written = 200

    def write() -> None:
        own = open_store(url)
        for n in range(1, written + 1):
            own.facts.add_batches([batch(T0 + n, {C1: n, C2: 1})])
        own.close()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        store.retain(T0 + 1000.0, POLICY, budget_s=1.0)
    writer.join()
    retain(store, T0 + 1000.0)
    expected = written * (written + 1) // 2 + written
    assert total(store, 10) == total(store, 60) == expected


def test_a_budget_stops_the_work_and_the_next_call_goes_on(store: Store) -> None:
    store.facts.add_batches([batch(T0 + n, {C1: 1}) for n in range(1, 100)])
    assert store.retain(T0 + 200.0, POLICY, budget_s=-1.0).left
    assert total(store, 10) == 0
    retain(store, T0 + 200.0)
    assert total(store, 10) == 99


def test_partitions_are_made_ahead_of_what_falls_into_them(store: Store) -> None:
    if store.engine.dialect.name != "postgresql":
        pytest.skip("only PostgreSQL has partitions")
    retain(store, T0)
    store.facts.add_batches([batch(T0 + n, {C1: 1}) for n in (1, 3601)])
    with store.engine.connect() as connection:
        places = connection.execute(text("SELECT tableoid::regclass::text FROM batches ORDER BY t")).scalars().all()
    assert places == [f"batches_from_{int((T0 + n) // 3600) * 3600}" for n in (1, 3601)]


def test_each_tier_lasts_its_time(store: Store) -> None:
    policy = RetentionPolicy(second_s=120, ten_seconds_s=600, minute_s=1800)
    store.facts.add_batches([batch(T0 + n, {C1: 1}) for n in range(1, 61)])
    retain(store, T0 + 90, policy)
    assert len(store.facts.batches(0, 0.0)) == 60
    much_later = T0 + 7300 if store.engine.dialect.name == "postgresql" else T0 + 200
    retain(store, much_later, policy)
    assert store.facts.batches(0, 0.0) == []
    assert (total(store, 10), total(store, 60)) == (60, 60)
    later = T0 + 90_000 if store.engine.dialect.name == "postgresql" else T0 + 700
    retain(store, later, replace(policy, minute_s=100_000))
    assert (total(store, 10), total(store, 60)) == (0, 60)
    retain(store, T0 + 1_000_000, policy)
    assert total(store, 60) == 0


def test_each_record_lasts_its_time(store: Store) -> None:
    """Of two of each, the one that is younger than its time by a minute stays."""
    ages = {"forecasts_s": 300, "past_forecasts_s": 0, "scores_s": 4000, "journal_s": 20_000}
    policy = RetentionPolicy(second_s=2000, minute_s=9000, **ages)
    pair, now = Pair("c1", SHOP), T0 + 100_000
    subject = Subject(SubjectKind.PAIR, pair.source, pair.virtual_ip)
    for more_s in (60, -60):
        forecast = Forecast(pair, now - 300 + more_s, 5, Quantity.BYTES_PEAK, "naive", {0.5: 1.0})
        store.forecasts.add_forecasts([forecast])
        t = now - 4000 + more_s
        store.forecasts.add_scores([Score(pair, t - 5, t, 5, Quantity.BYTES_PEAK, "naive", 1.0, 1.0, True)])
        one = array("f", [1.0]).tobytes()
        store.forecasts.add_score_batch(
            ScoreBatch(t, (subject,), ("naive",), (5,), (Quantity.BYTES_PEAK,), one, one, array("I", [1]).tobytes())
        )
        t = now - 9000 + more_s
        store.forecasts.add_moves([HorizonMove(t, subject, 5, 15, "better")])
        store.facts.add_loads([HostLoad("hA", t, 0.5, 1.0, 1, 2)])
        t = now - 20_000 + more_s
        store.journal.add_plan(PlanRecord(t, t + 60, "open", {}))
        store.journal.add_action(ActionRecord("limit", "c1", {}, "", {}, "", t, ActionTiming(None, 1.0)))
        for key in ("ends", "withdrawn"):
            store.wanted.reserve(Reservation(f"{key} {t}", pair, 1e6, (), "test", "", t - 60, t))
        store.wanted.release(f"withdrawn {t}", t)
    retain(store, now, policy)
    tables = (
        "forecast_batches",
        "scores",
        "score_batches",
        "horizon_moves",
        "host_loads",
        "plans",
        "actions",
        "reservations",
        "past_reservations",
    )
    with store.engine.connect() as connection:
        left = {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in tables}
    assert set(left.values()) == {1}, left
    assert [move.t for move in store.forecasts.moves(0.0)] == [now - 9000 + 60]


def foresee(store: Store, through: float, seconds: int) -> None:
    """Issues of one pair, each second until then."""
    for age_s in reversed(range(seconds)):
        said = Forecast(Pair("c1", SHOP), through - age_s, 5, Quantity.BYTES_PEAK, "naive", {0.5: 1.0})
        store.forecasts.add_forecasts([said])


def test_of_past_forecasts_one_a_minute_is_kept_and_found(store: Store) -> None:
    now = T0 + 600
    foresee(store, now, 600)
    retain(store, now)
    kept = [one.issued_at for one in store.forecasts.issued_between(0.0, now)]
    assert [t for t in kept if t <= now - 120] == [T0 + 60 * n for n in range(1, 9)]
    assert [t for t in kept if t > now - 120] == [now - n for n in reversed(range(120))]
    # A moment of the past is told what was said in the minute before; the present, and who plans, nothing so old.
    for t, said in ((T0 + 119.0, T0 + 60), (T0 + 120.0, T0 + 120), (now - 0.5, now - 1), (now + 31, None)):
        issue = store.forecasts.issue_at(t, 30.0)
        assert (issue.issued_at if issue else None) == said, t
        assert {one.issued_at for one in store.forecasts.latest(t, 30.0)} == ({said} - {None}), t
    assert store.forecasts.batch(T0 + 119.0, 30.0) is None
    retain(store, now)
    assert len(store.forecasts.issued_between(0.0, now)) == len(kept)


def test_past_forecasts_are_bounded_in_time_and_in_bytes(store: Store) -> None:
    now = T0 + 3600
    foresee(store, T0 + 600, 600)
    size = store.read_usage(T0 + 601, POLICY).forecast_bytes
    assert size > 0
    retain(store, T0 + 800, replace(POLICY, past_forecasts_bytes=0.01 * size / 120))
    assert store.forecasts.issued_between(0.0, now) == []
    foresee(store, now, 600)
    retain(store, now + 200)
    kept = [one.issued_at for one in store.forecasts.issued_between(0.0, now)]
    assert kept == [now - 60 * n for n in reversed(range(10))]
    retain(store, now + 200, replace(POLICY, past_forecasts_s=500.0))
    assert [one.issued_at for one in store.forecasts.issued_between(0.0, now)] == kept[-6:]


def test_what_waits_is_never_forgotten(store: Store) -> None:
    """As after a week without anybody who rolls up."""
    store.facts.add_batches([batch(T0 + n, {C1: 1}) for n in range(1, 61)])
    retain(store, T0 + 7 * 86_400.0)
    assert total(store, 60) == 60
    assert store.facts.batches(0, 0.0) == []


def test_old_loads_are_thinned_to_a_row_a_minute(store: Store) -> None:
    store.facts.add_loads([LinkLoad("leaf", "hA", T0 + n, 1.0, 500, 5, 1) for n in range(1, 61)])
    store.facts.add_loads([HostLoad("hA", T0 + n, n / 60, 2.0, 100, 200) for n in range(1, 61)])
    store.facts.add_loads([VmLoad("vm1", "hA", T0 + n, "running", 0.5, 1.0, 1, 50, 100, 8.0, n) for n in range(1, 61)])
    retain(store, T0 + 3000)
    assert len(store.facts.loads(LinkLoad, 0.0)) == 60
    retain(store, T0 + 3700)
    assert store.facts.loads(LinkLoad, 0.0) == [LinkLoad("leaf", "hA", T0 + 60, 60.0, 30_000, 300, 60)]
    (host,) = store.facts.loads(HostLoad, 0.0)
    assert (host.t, host.cpu_cores_used, host.memory_bytes_capacity) == (T0 + 60, pytest.approx(61 / 120), 200)
    (machine,) = store.facts.loads(VmLoad, 0.0)
    assert (machine.network_rx_bytes_per_s, machine.network_tx_bytes_per_s) == (8.0, pytest.approx(30.5))
    retain(store, T0 + 3701)
    assert len(store.facts.loads(LinkLoad, 0.0)) == 1


def test_the_view_shows_people_what_was_said(store: Store) -> None:
    store.facts.add_batches([batch(T0 + n, {C1: 100}) for n in range(1, 71)])
    retain(store, T0 + 90, RetentionPolicy())
    query = (
        "SELECT source, virtual_ip, destination, timestamp, bytes, packets, mean_packet_bytes, connections_per_s "
        "FROM communication_patterns ORDER BY timestamp"
    )
    with store.engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(query))]
    assert found[0] == ("c1", SHOP, "shop1", T0 + 10, 1000, 100, 10.0, 1.0)
    assert len(found) == 7


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0.0, 5000.0)), unique_by=lambda one: one[0], max_size=300))
def test_every_batch_whose_bucket_is_over_is_in_exactly_one_step(pending: list[tuple[int, float]]) -> None:
    found = [number for step in roll_ups(pending, 2500.0) for number in step.batch_ids]
    assert sorted(found) == sorted(number for number, t in pending if bucket_end(t, 10) + 2.0 <= 2500.0)


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.floats(0, 2e6))
def test_a_batch_always_reaches_a_tier_that_is_still_kept(bucket: int, built: int, now: float) -> None:
    t = bucket * 10
    found = dict(tiers(t, built * 60.0, now, POLICY))
    minute = bucket_end(t, 60)
    if minute > now - POLICY.minute_s:
        assert found
        # either the minute is still to be built from the 10 s row, or it gets its share directly
        assert (60 in found) == (minute <= built * 60)
    assert all(t <= end for end in found.values())


def test_the_file_shrinks_when_much_was_forgotten(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/cpdb.db")
    store.forecasts.remember("much", bytes(40_000_000), 1.0)
    store.forecasts.remember("much", b"little", 2.0)
    full = _pragma(store, "page_count")
    for _ in range(10):
        retain(store, T0)
    assert _pragma(store, "page_count") < full / 2
    store.close()


def _pragma(store: Store, name: str) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(text(f"PRAGMA {name}")).scalar_one())
