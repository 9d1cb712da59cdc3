"""An old database is brought up to date with everything that was measured in it."""

from alembic import command
from sqlalchemy import text

from cpdb import (
    Communication,
    DestinationHealth,
    EventCount,
    HealthReport,
    HealthStatus,
    InstallStatus,
    LiveCount,
    ObservedKind,
    RefreshReport,
    ReservationReport,
    RetentionPolicy,
    open_store,
    schema_versions,
)
from cpdb.engine import _alembic, connect

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
