"""Roles on a real PostgreSQL: each process can do its work with its own, and nothing else."""

import time
import uuid
from array import array
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text

from cpdb import (
    RIGHTS,
    Alarm,
    Batch,
    FlowKey,
    HostLoad,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Pause,
    Room,
    Store,
    StoreError,
    StoreForbidden,
    Watch,
    make_roles,
    open_store,
)
from cpdb.roles import ADD, CHANGE, DELETE, READ, role_statements
from cpdb.schema import metadata

pytestmark = pytest.mark.postgres
# What only the owner changes: it rolls up, forgets and migrates.
OWNERS = {"patterns_10s", "patterns_60s", "covered", "progress"}


@pytest.fixture(scope="module")
def server(postgres_url: str) -> Iterator[str]:
    """A database whose owner has made the roles, and a user in each."""
    name = f"t{uuid.uuid4().hex}"
    admin = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
        store = open_store(url)
        assert make_roles(store.engine, "t_") == make_roles(store.engine, "t_") == [f"t_{room}" for room in Room]
        for room in Room:
            connection.execute(text(f"DROP ROLE IF EXISTS user_{room}"))
            connection.execute(text(f"CREATE USER user_{room} IN ROLE t_{room}"))
        store.inventory.put_nodes([Node("c1", NodeKind.CLIENT)])
        store.close()
    yield url
    admin.dispose()


def opened(server: str, room: Room) -> Store:
    """As a process opens it: it would bring the schema up to date, if it were not."""
    return open_store(server.replace("forepath@", f"user_{room}@"), create=room is not Room.READER)


def test_the_database_gives_each_role_what_the_matrix_says_and_nothing_else(server: str) -> None:
    store = open_store(server)
    asked = "SELECT has_table_privilege(:role, :name, :right)"
    with store.engine.connect() as connection:
        for room, tables in RIGHTS.items():
            for name in metadata.tables:
                has = {
                    right
                    for right in (READ, ADD, CHANGE, DELETE, "TRUNCATE")
                    if connection.execute(text(asked), {"role": f"t_{room}", "name": name, "right": right}).scalar()
                }
                assert has == tables.get(name, frozenset()), (room, name)
    store.close()


def test_every_table_has_somebody_who_fills_it() -> None:
    filled = {name for tables in RIGHTS.values() for name, rights in tables.items() if ADD in rights}
    assert metadata.tables.keys() - filled == OWNERS
    assert all(set(rights) == {READ} for rights in RIGHTS[Room.READER].values())


def batch(t: float) -> Batch:
    columns = (array("q", [100]), array("q", [1]), array("q", [1]))
    return Batch(
        "switch/leaf1", t, 1.0, [FlowKey("c9", "10.0.0.101", "s1")], *columns, complete=True, writer="w", seq=1
    )


def test_the_controller_s_role_mirrors_and_reads_what_is_wanted(server: str) -> None:
    store, now = opened(server, Room.CONTROLLER), time.time()
    store.inventory.put_nodes([Node("leaf1", NodeKind.SWITCH, dpid=1)])
    store.inventory.put_links([Link("c1", 0, "leaf1", 1, None)])
    assert store.facts.add_batches([batch(now)]) == 1
    store.facts.add_loads([LinkLoad("c1", "leaf1", now, 1.0, 1, 1, 0)])
    store.alarms.raise_([Alarm("stranger", "x", "y", "z", now, now, 1)])
    assert store.alarms.clear("stranger", "x", "y", now)
    store.leases.hold("leaf1", "me", now, 5.0)
    assert store.wanted.reservations(now) == [] and store.inventory.virtual_ips()
    watch = Watch.of(server.replace("forepath@", "user_controller@"))
    assert watch.changed()
    watch.close()
    refuses(
        store,
        lambda: store.journal.actions(since=0.0),
        lambda: store.forecasts.recall("x"),
        lambda: store.pauses.pause(Pause(now, "me")),
        lambda: store.facts.loads(HostLoad, 0.0),
    )


def test_the_predictor_s_role_learns_and_forecasts(server: str) -> None:
    import threading

    import predictor

    store, stop, cycles = opened(server, Room.PREDICTOR), threading.Event(), []

    def told(report: object) -> None:
        cycles.append(report)
        if len(cycles) == 2:
            stop.set()

    config = predictor.PredictorConfig(models=("naive", "ewma"))
    assert predictor.run(store, config, 0.2, stop, told) == 0
    assert None not in cycles
    store.forecasts.remember("x", b"learnt", 1.0)
    refuses(
        store,
        lambda: store.inventory.put_nodes([Node("fresh", NodeKind.HOST)]),
        lambda: store.facts.add_batches([batch(2.0)]),
        lambda: store.journal.actions(since=0.0),
    )


def test_the_orchestrator_s_role_decides_and_the_reader_s_only_looks(server: str) -> None:
    from forepath.processes import make_orchestrator, orchestrator_config
    from forepath.settings import Settings, declare

    settings, now = Settings(), time.time()
    store = opened(server, Room.ORCHESTRATOR)
    declare(settings, store)
    decider = make_orchestrator(orchestrator_config(settings, act=False), store, time.time)
    decider.observe(now)
    decider.cycle(now)
    decider.close()
    refuses(store, lambda: store.facts.add_batches([batch(3.0)]), lambda: store.forecasts.remember("x", b"", 1.0))
    reader = opened(server, Room.READER)
    assert reader.inventory.nodes() and reader.alarms.open() == []
    reader.series.newest(now)
    refuses(reader, lambda: reader.leases.hold("x", "y", 1.0, 1.0), lambda: reader.pauses.resume(1.0, "me"))


def refuses(store: Store, *forbidden: Callable[[], object]) -> None:
    for one in forbidden:
        with pytest.raises(StoreForbidden, match="permission denied"):
            one()
    store.close()


@pytest.mark.parametrize("prefix", ["a; DROP TABLE nodes; --", "A", "", "x" * 40, "a-b", "é"])
def test_a_prefix_is_a_plain_name(prefix: str) -> None:
    with pytest.raises(StoreError, match="prefix"):
        list(role_statements(prefix, {}))


def test_sqlite_has_no_roles(tmp_path: object) -> None:
    store = open_store(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(StoreError, match="PostgreSQL"):
        make_roles(store.engine)
    store.close()
