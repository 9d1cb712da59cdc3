"""Rows: samples become communications and loads, and the writer keeps the database's troubles to itself."""

from cpdb import Communication, Store, StoreError, open_store
from ryu_apps.accounting import Accounts, Neighbour, Party
from ryu_apps.rules import Kind, Table, cookie
from ryu_apps.samples import FlowSample, PortSample
from ryu_apps.writer import Row, Writer, store_rows


def flow(kind: Kind, t: float, age_s: float, packets: int, size: int) -> FlowSample:
    return FlowSample(1, cookie(Table.ACCOUNT, kind, 7), t, age_s, packets, size)


def party(number: int) -> Party | None:
    return Party("c1", "10.0.0.100", "s1") if number == 7 else None


def look(
    accounts: Accounts, t: float, age_s: float, every: tuple[int, int], first: tuple[int, int]
) -> list[Communication]:
    samples = [flow(Kind.PAIR, t, age_s, *every), flow(Kind.PAIR_SYN, t, age_s, *first)]
    return list(accounts.pairs(1, samples, t, party).values())


def test_both_entries_of_a_pair_make_one_row_and_openings_are_counted() -> None:
    accounts = Accounts()
    accounts.connected(1, 10.0)
    (row,) = look(accounts, 11.0, 0.5, (10, 5000), (2, 120))
    assert (row.bytes, row.packets, row.new_connections, row.interval_s) == (5120, 12, 2, 1.0)
    (row,) = look(accounts, 12.0, 1.5, (10, 5000), (2, 120))
    assert (row.bytes, row.packets, row.new_connections, row.interval_s) == (0, 0, 0, 1.0)
    assert (row.source, row.virtual_ip, row.destination) == ("c1", "10.0.0.100", "s1")


def test_what_a_switch_counted_before_the_controller_came_is_not_told() -> None:
    accounts = Accounts()
    accounts.connected(1, 10.0)
    assert look(accounts, 11.0, 100.0, (10, 5000), (2, 120)) == []
    (row,) = look(accounts, 12.0, 101.0, (11, 6000), (3, 180))
    assert (row.bytes, row.new_connections) == (1060, 1)


def test_an_edge_port_tells_both_directions() -> None:
    accounts = Accounts()
    accounts.connected(1, 10.0)
    names = {1: Neighbour("leaf", "spine", False), 2: Neighbour("leaf", "c1", True)}

    def at(t: float, grown: int) -> list[tuple[str, str, int]]:
        samples = [PortSample(1, port, t, t, 1, grown, 0, 1, 2 * grown, 0) for port in (1, 2, 3)]
        loads = accounts.ports(samples, t, lambda _dpid, port: names.get(port))
        return [(load.from_node, load.to_node, load.bytes) for load in loads]

    assert at(11.0, 1000) == []
    assert at(12.0, 1500) == [("leaf", "spine", 500), ("leaf", "c1", 500), ("c1", "leaf", 1000)]


def rows(count: int) -> list[Row]:
    return [Communication("c1", "10.0.0.100", None, float(n), 1.0, n, 1, 0) for n in range(count)]


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    writer, written = Writer(most=5), list[Row]()
    writer.offer(rows(8))
    assert writer.flush(written.extend) == 5
    assert [row.t for row in written if isinstance(row, Communication)] == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert writer.lost == 3
    assert writer.flush(written.extend) == 0


def test_a_database_that_is_away_costs_rows_only() -> None:
    def away(_rows: list[Row]) -> None:
        raise StoreError("database x: writing: gone")

    writer = Writer(most=5)
    writer.offer(rows(3))
    assert writer.flush(away) == 0
    assert writer.lost == 3


def test_rows_of_all_kinds_reach_the_store() -> None:
    store: Store = open_store("sqlite://")
    store_rows(store, rows(3))
    assert [row.bytes for row in store.facts.communications(-1.0)] == [0, 1, 2]
    store.close()
