"""An old database is brought up to date with everything that was measured in it."""

from array import array
from typing import Any

from alembic import command
from sqlalchemy import JSON, Boolean, Column, LargeBinary, MetaData, String, func, insert, select, text

from cpdb import (
    ActionTiming,
    Communication,
    DestinationHealth,
    EventCount,
    HealthReport,
    HealthStatus,
    HostLoad,
    InstallStatus,
    Limit,
    LinkLoad,
    LiveCount,
    ObservedKind,
    OutcomeKind,
    Pair,
    RefreshReport,
    RequestState,
    ReservationReport,
    RetentionPolicy,
    VmLoad,
    open_store,
    schema_versions,
)
from cpdb.engine import _alembic, connect
from cpdb.telemetry.columns import pack

FIRST = "0001"
ROWS = [
    # source, virtual IP, destination, t, interval, bytes, packets, new connections
    (1, 1, "shop1", 10.0, 1.0, 1000, 10, 2),
    (2, 1, None, 10.0, 1.0, 7, 1, 0),
    (1, 1, "shop2", 11.0, 2.5, 2**40, 3, 1),
]


def make_old(url: str) -> None:
    engine = connect(url)
    command.upgrade(_alembic(engine), FIRST)
    with engine.begin() as connection:
        for number in (1, 2):
            connection.execute(text("INSERT INTO nodes (name, kind) VALUES (:name, 'host')"), {"name": f"c{number}"})
        connection.execute(
            text("INSERT INTO virtual_ips (address, name, priority, declared) VALUES ('10.0.0.1', 'shop', 3, :yes)"),
            {"yes": True},
        )
        for row in ROWS:
            connection.execute(
                text(
                    "INSERT INTO communications (source_id, virtual_ip_id, destination, t, interval_s, bytes, packets,"
                    " mean_packet_bytes, new_connections) VALUES (:0, :1, :2, :3, :4, :5, :6, 0, :7)"
                ),
                {str(place): value for place, value in enumerate(row)},
            )
        connection.execute(
            text(
                "INSERT INTO vm_loads (vm, host, t, state, cpu_cores_used, cpu_cores_limit, vcpus, memory_bytes_used,"
                " memory_bytes_limit) VALUES ('shop1', 'hA', 10, 'running', 0.1, 0.2, 1, 5, 6)"
            )
        )
    engine.dispose()


def test_what_was_measured_survives_the_second_version(url: str) -> None:
    make_old(url)
    assert schema_versions(url)[0] == FIRST
    store = open_store(url)
    assert store.facts.communications(0.0) == [
        Communication("c1", "10.0.0.1", "shop1", 10.0, 1.0, 1000, 10, 2),
        Communication("c2", "10.0.0.1", None, 10.0, 1.0, 7, 1, 0),
        Communication("c1", "10.0.0.1", "shop2", 11.0, 2.5, 2**40, 3, 1),
    ]
    assert [one.priority for one in store.inventory.virtual_ips()] == [3]
    store.close()


def test_what_came_from_the_old_version_is_rolled_up_like_any_other(url: str) -> None:
    make_old(url)
    store = open_store(url)
    store.retain(100.0, RetentionPolicy(), budget_s=60.0)
    with store.engine.connect() as connection:
        found = connection.execute(text("SELECT sum(bytes) FROM patterns_60s")).scalar_one()
    assert int(found) == sum(row[5] for row in ROWS)
    store.close()


def test_a_version_is_read_without_making_anything(url: str) -> None:
    assert schema_versions(url)[0] is None
    open_store(url).close()
    before, needed = schema_versions(url)
    assert before == needed


def test_observed_state_of_an_old_version_gets_its_numbers(url: str) -> None:
    engine = connect(url)
    command.upgrade(_alembic(engine), "0006")
    rows = [
        ("health", "10.0.0.1/a", "controller", "up", "answers by ARP"),
        ("health", "10.0.0.1/b", "controller", "removed", "is no longer a destination"),
        ("live", "10.0.0.1/a", "controller", "17", "connections or sources that it still has"),
        ("live", "10.0.0.1/b", "controller", "removed", "does not drain"),
        ("lost", "rows", "controller", "counted", "3"),
        ("refresh", "leaf1", "leaf1", "measured", "1.05"),
        ("reservation", "r", "leaf1", "removed", "lease ended or withdrawn"),
    ]
    with engine.begin() as connection:
        for row in rows:
            connection.execute(
                text(
                    "INSERT INTO observed (kind, key, node, generation, status, detail, observed_at)"
                    " VALUES (:0, :1, :2, 4, :3, :4, 5.0)"
                ),
                {str(place): value for place, value in enumerate(row)},
            )
    engine.dispose()
    store = open_store(url)
    assert store.wanted.observed() == [
        HealthReport("10.0.0.1", "a", DestinationHealth(HealthStatus.UP, True), "answers by ARP", 5.0),
        LiveCount("10.0.0.1", "a", 17, 5.0),
        EventCount(ObservedKind.LOST, "rows", 3, 5.0),
        RefreshReport("leaf1", 1.05, 5.0),
        ReservationReport("r", "leaf1", 4, InstallStatus.REMOVED, "lease ended or withdrawn", 5.0),
    ]
    store.close()
    engine = connect(url)
    command.downgrade(_alembic(engine), "0006")
    with engine.connect() as connection:
        query = "SELECT kind, status, detail FROM observed WHERE kind IN ('live', 'refresh')"
        found = connection.execute(text(query)).all()
    assert sorted(tuple(row) for row in found) == [("live", "17", rows[2][4]), ("refresh", "measured", "1.05")]
    engine.dispose()


# The last version that spoke of talks, lanes and fans.
OLD_HEAD = "0005"


def filled_old(url: str) -> dict[str, int]:
    """A database of the old version with a row in every table; returns how many rows each has."""
    engine = connect(url)
    command.upgrade(_alembic(engine), OLD_HEAD)
    metadata = MetaData()
    metadata.reflect(engine)
    # Parents first; partitions and alembic's own table are filled by others.
    tables = [
        table
        for table in metadata.sorted_tables
        if table.name != "alembic_version" and not table.name.endswith("_rest") and "_from_" not in table.name
    ]
    with engine.begin() as connection:
        for table in tables:
            if connection.execute(select(func.count()).select_from(table)).scalar_one():
                continue
            connection.execute(insert(table), {column.name: made(column) for column in table.columns})
            if engine.dialect.name == "postgresql" and "id" in table.columns:
                # The number was given, not taken: the sequence has to know.
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 1)"))
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
        }
    engine.dispose()
    return counts


MADE = {
    "kind": "client", "quantity": "bytes_per_s_peak", "outcome": "done", "standing": "serving", "state": "granted",
    "status": "installed", "affinity": "source", "paths": [["s1", "s2"]], "ratios": [1.0], "tags": [3072],
    "limits": [{"source": "c2", "virtual_ip": "10.0.0.2", "bytes_per_s": 5.0}], "generation": 7,
}  # fmt: skip


def made(column: Column[Any]) -> Any:
    """A value of the column's type; every number is 1, so that rows refer to one another."""
    if column.name in MADE:
        return MADE[column.name]
    if column.name in ("expires_at", "until", "ends_at"):
        return 1e12
    if column.name in ("resumed_at", "resumed_by", "cleared_at"):
        return None
    kinds = {JSON: {}, LargeBinary: pack(array("I", [1]), [array("q", [5])] * 3, None), String: "x", Boolean: True}
    return next((value for kind, value in kinds.items() if isinstance(column.type, kind)), 1)


def test_every_row_of_the_last_old_version_is_there_and_is_read(url: str) -> None:
    before = filled_old(url)
    store = open_store(url)
    with store.engine.connect() as connection:
        renamed = {"talks": "flow_keys"}
        after = {
            name: connection.execute(text(f"SELECT count(*) FROM {renamed.get(name, name)}")).scalar_one()
            for name in before
        }
        assert connection.execute(text("SELECT source FROM communication_patterns")).scalars().first() == "x"
    assert len(before) >= 30
    assert after == before and all(before.values())
    assert list(store.facts.flow_keys()) == [1]
    assert [row.bytes for row in store.facts.communications(0.0)] == [5]
    assert store.facts.loads(LinkLoad, 0.0) and store.facts.loads(HostLoad, 0.0) and store.facts.loads(VmLoad, 0.0)
    (action,) = store.journal.actions()
    assert (action.outcome, action.timing) == (OutcomeKind.DONE, ActionTiming(1.0, 1.0, 1.0))
    (request,) = store.requests.open(5.0)
    assert (request.answer.state, request.answer.granted_bytes_per_s) == (RequestState.GRANTED, 1.0)
    (lease,) = store.wanted.reservations(5.0)
    assert lease.limits == (Limit(Pair("c2", "10.0.0.2"), 5.0),)
    assert store.wanted.splits()[0].paths == (("s1", "s2"),)
    assert (store.wanted.generation(), len(store.wanted.weights()), len(store.inventory.changes())) == (7, 1, 1)
    assert store.pauses.in_force(5.0) is not None and store.leases.holder("x", 5.0) is not None
    assert store.alarms.open() and store.workflow.steps_of(1) and store.journal.plan(1) is not None
    assert store.forecasts.recall("x") and store.forecasts.scores(0.0)
    assert len(store.inventory.nodes()) == len(store.inventory.links()) == len(store.inventory.virtual_ips()) == 1
    # Numbers go on after those that were copied.
    store.facts.add_communications([Communication("new", "10.9.9.9", None, 2.0, 1.0, 1, 1, 0)])
    assert sorted(store.facts.flow_keys()) == [1, 2]
    store.close()
