"""One bad row is set aside, counted and told, and never stops the rest: on each engine, and in every encoding."""

import math
import uuid
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from cpdb import (
    Alarm,
    Batch,
    Communication,
    Destination,
    DestinationHealth,
    FlowKey,
    HealthReport,
    HealthStatus,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Pair,
    RetentionPolicy,
    Store,
    VirtualIp,
    VmLoad,
    Window,
    database_problem,
    open_store,
)
from cpdb.errors import StoreRefused

BIG = 1 << 70
CHINESE = "虚拟机1"


def load(vm: str, memory: int = 1 << 30) -> VmLoad:
    return VmLoad(vm, "hA", 10.0, "running", 1.0, 2.0, 2, memory, memory)


def batch(name: str, size: int) -> Batch:
    columns = (array("q", [number]) for number in (size, 1, 0))
    return Batch("s1", 10.0, 1.0, [FlowKey(name, "10.0.0.100", None)], *columns)


def health(name: str) -> HealthReport:
    return HealthReport("10.0.0.100", name, DestinationHealth(HealthStatus.UP, True), "", 1.0)


def behind(name: str) -> Destination:
    return Destination(name, "10.0.0.3", "02:00:00:00:00:01")


Write = Callable[[Store], None]
Read = Callable[[Store], list[object]]
GOOD_DPID = 0xFFFFFFFFFFFFFF01
WRITERS: list[tuple[str, Write, Read, list[object]]] = [
    (
        "nodes",
        lambda store: store.inventory.put_nodes(
            [Node(name, NodeKind.SWITCH, dpid=dpid) for name, dpid in (("s1", GOOD_DPID), ("s2", BIG), ("s3", None))]
        ),
        lambda store: [(one.name, one.dpid) for one in store.inventory.nodes() if one.name != "s2"],
        [("s1", GOOD_DPID), ("s3", None)],
    ),
    (
        "links",
        lambda store: store.inventory.put_links(
            [Link(a, port, "z", 1, 1.0) for a, port in (("a", 1), ("b", BIG), ("c", 0xFFFFFE00))]
        ),
        lambda store: [(one.a, one.a_port) for one in store.inventory.links()],
        [("a", 1), ("c", 0xFFFFFE00)],
    ),
    (
        "loads",
        lambda store: store.facts.add_loads([load("web1"), load("odd", BIG), load("\ud800"), load("web2")]),
        lambda store: [one.vm for one in store.facts.loads(VmLoad, 0.0)],
        ["web1", "web2"],
    ),
    (
        "links' loads",
        lambda store: store.facts.add_loads([LinkLoad("a", "b", 10.0, 1.0, size, 1) for size in (1, BIG, 3)]),
        lambda store: [one.bytes for one in store.facts.loads(LinkLoad, 0.0)],
        [1, 3],
    ),
    (
        "batches",
        lambda store: store.facts.add_batches([batch("c1", 5), batch("\ud800", 5), batch("c2", 6)]),
        lambda store: sorted(row.source for row in store.facts.communications(0.0)),
        ["c1", "c2"],
    ),
    (
        "observed",
        lambda store: store.wanted.observe(
            [health(name) for name in ("shop1", "\ud800", "shop2")]
        ),
        lambda store: [one.destination for one in store.wanted.observed_of(HealthReport)],
        ["shop1", "shop2"],
    ),
    (
        "alarms",
        lambda store: store.alarms.raise_([Alarm("k", key, "n", "", 1.0, 1.0) for key in ("a", "\ud800", "b")]),
        lambda store: sorted(one.key for one in store.alarms.open()),
        ["a", "b"],
    ),
    (
        "destinations",
        lambda store: store.inventory.declare_virtual_ips(
            [
                VirtualIp("10.0.0.100", "shop", destinations=(behind("shop1"), behind("\ud800"))),
                VirtualIp("10.0.0.101", "bank", BIG, (behind("bank1"),)),
            ]
        ),
        lambda store: [(vip.address, one.name) for vip in store.inventory.virtual_ips() for one in vip.destinations],
        [("10.0.0.100", "shop1"), ("10.0.0.101", "bank1")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("write", "read", "left"), [one[1:] for one in WRITERS], ids=[one[0] for one in WRITERS])
def test_the_others_are_written(store: Store, write: Write, read: Read, left: list[object]) -> None:
    write(store)
    assert read(store) == left
    store.alarms.tell_refusals("tester", 100.0)
    told = [one for one in store.alarms.open() if one.kind == "set_aside"]
    assert told and all(one.detail.isascii() for one in told)
    # Told again while it goes on, and over when it does not.
    write(store)
    store.alarms.tell_refusals("tester", 111.0)
    assert [one.count for one in store.alarms.open() if one.kind == "set_aside"] == [2] * len(told)
    store.alarms.tell_refusals("tester", 180.0)
    assert [one for one in store.alarms.open() if one.kind == "set_aside"] == []


def test_a_row_that_nobody_understands_hides_no_other(store: Store) -> None:
    store.inventory.put_nodes([Node("a", NodeKind.CLIENT), Node("b", NodeKind.CLIENT), Node("c", NodeKind.CLIENT)])
    store.wanted.observe([health(name) for name in "ab"])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE nodes SET kind = 'robot' WHERE name = 'b'"))
        connection.execute(text("UPDATE observed SET status = 'merry' WHERE \"key\" LIKE '%a'"))
    for _ in range(2):
        assert [one.name for one in store.inventory.nodes()] == ["a", "c"]
        assert [one.destination for one in store.wanted.observed_of(HealthReport)] == ["b"]


@pytest.mark.parametrize("body", [b"", b"\x00\x11\x22", b"\xff" * 40], ids=["empty", "short", "foreign"])
def test_a_torn_batch_costs_itself_alone(store: Store, body: bytes) -> None:
    store.facts.add_batches([replace(batch("c1", 5), t=float(second)) for second in range(1, 31)])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE batches SET body = :body WHERE t = 15"), {"body": body})
    assert len(store.facts.communications(0.0)) == 29
    assert len(store.facts.batches(0, 0.0)) == 29
    done = store.retain(4000.0, RetentionPolicy(), 10.0)
    assert done.rolled_up == 30 and not done.left
    rates = [rate[Pair("c1", "10.0.0.100")] for _, rate in store.series.rows(Window(10, 0.0, 30.0))]
    # Ten seconds of which one is not known, and nothing is made up for it.
    assert rates == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e308, -1.0])
def test_a_load_that_nothing_can_have_spoils_no_sum(store: Store, value: float) -> None:
    rows = [load("web1"), replace(load("odd"), cpu_cores_used=value), load("web2")]
    store.facts.add_loads([*rows, LinkLoad("a", "b", value, 1.0, 1, 1)])
    assert [one.vm for one in store.facts.loads(VmLoad, 0.0)] == ["web1", "web2"]
    assert store.facts.loads(LinkLoad, -math.inf) == []


def test_counts_that_no_line_brings_do_not_stop_the_roll_up(store: Store) -> None:
    store.facts.add_batches([replace(batch("c1", (1 << 63) - 1), t=float(second)) for second in range(1, 31)])
    done = store.retain(4000.0, RetentionPolicy(), 10.0)
    assert done.rolled_up == 30 and not done.left


def test_what_must_be_written_alone_still_fails_in_one_line(store: Store) -> None:
    with pytest.raises(StoreRefused) as caught:
        store.facts.add_communications([Communication("\ud800", "10.0.0.1", None, 1.0, 1.0, 1, 1, 1)])
    assert "\n" not in str(caught.value)


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "UTF8"])
def encoded(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[str, Store]]:
    name = f"t{uuid.uuid4().hex}"
    admin = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        options = f"ENCODING '{request.param}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    admin.dispose()
    store = open_store(postgres_url.rsplit("/", 1)[0] + f"/{name}")
    yield request.param, store
    store.close()


@pytest.mark.postgres
def test_a_name_that_the_encoding_cannot_hold_stops_no_other(encoded: tuple[str, Store]) -> None:
    encoding, store = encoded
    store.inventory.put_nodes([Node(name, NodeKind.VM) for name in ("web1", CHINESE, "Büro")])
    store.facts.add_loads([load("web1"), load(CHINESE), load("Büro"), load("x" * 300)])
    whole = ["Büro", "web1", *([CHINESE] if encoding != "LATIN1" else [])]
    assert sorted(one.name for one in store.inventory.nodes()) == whole
    assert sorted(one.vm for one in store.facts.loads(VmLoad, 0.0)) == whole
    store.alarms.tell_refusals("tester", 100.0)
    assert any("web1" not in one.key for one in store.alarms.open())
    store.wanted.observe([health("Büro")])
    assert len(store.wanted.observed()) == 1


def test_a_store_of_this_kind_is_no_surprise_to_another_program(tmp_path: Path) -> None:
    # What is stored is what was meant: read back by who knows nothing of us.
    store = open_store(f"sqlite:///{tmp_path}/own.db")
    store.inventory.put_nodes([Node("s1", NodeKind.SWITCH, dpid=GOOD_DPID)])
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT dpid FROM nodes")).scalar() == GOOD_DPID - (1 << 64)
    store.close()


@pytest.mark.postgres
def test_an_encoding_that_holds_not_every_name_is_a_problem(encoded: tuple[str, Store]) -> None:
    encoding, store = encoded
    problem = database_problem(store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    assert (problem is not None and "LATIN1" in problem and "UTF8" in problem) == (encoding == "LATIN1")
