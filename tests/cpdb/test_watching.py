"""A watch notices every change of what is wanted, by anybody, and nothing else."""

from cpdb import (
    DestinationChange,
    InstallStatus,
    Node,
    NodeKind,
    Pair,
    Reservation,
    ReservationReport,
    Standing,
    Store,
    Watch,
    open_store,
)


def reservation(key: str = "r") -> Reservation:
    return Reservation(key, Pair("a", "10.0.0.100"), 1.0, (), "test", "a test", 1.0, 1e10)


def test_every_change_of_what_is_wanted_is_noticed_once(store: Store, url: str) -> None:
    watch, other = Watch.of(url), open_store(url)
    try:
        assert watch.changed()
        assert not watch.changed()
        store.wanted.reserve(reservation())
        other.wanted.reserve(reservation("s"))
        assert watch.changed()
        assert not watch.changed()
        other.inventory.put_change(
            DestinationChange("10.0.0.100", "d", "10.0.0.1", "02:00:00:00:00:01", 1, Standing.JOINING, "o", "why", 1.0)
        )
        assert watch.changed()
        store.wanted.release("s", 1.0)
        assert watch.changed()
    finally:
        watch.close()
        other.close()


def test_other_rows_are_no_news(store: Store, url: str) -> None:
    watch = Watch.of(url)
    try:
        watch.changed()
        store.inventory.put_nodes([Node("a", NodeKind.CLIENT)])
        store.wanted.observe([ReservationReport("a", "n", 1, InstallStatus.INSTALLED, "", 1.0)])
        assert not watch.changed()
    finally:
        watch.close()


def test_a_closed_watch_knows_what_it_saw(store: Store, url: str) -> None:
    watch = Watch.of(url)
    assert watch.changed()
    watch.close()
    assert not watch.changed()
    store.wanted.reserve(reservation())
    assert watch.changed()
    watch.close()


def test_many_observations_at_once_leave_the_latest_word_on_each(store: Store) -> None:
    store.wanted.observe([ReservationReport("old", "n", 1, InstallStatus.INSTALLED, "", 1.0)])
    rows = [
        ReservationReport(f"key{number % 500}", "n", number, InstallStatus.INSTALLED, str(number), 2.0)
        for number in range(1000)
    ]
    store.wanted.observe([*rows, ReservationReport("old", "n", 2, InstallStatus.REMOVED, "", 2.0)])
    found = {row.key: row for row in store.wanted.observed_of(ReservationReport)}
    assert len(found) == 501
    assert found["old"].status == "removed"
    assert found["key7"].generation == 507
    store.wanted.observe([])
    assert len(store.wanted.observed()) == 501
