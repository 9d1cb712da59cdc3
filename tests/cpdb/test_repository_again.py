"""What seldom changes is made into records once; a row that is another one is made anew."""

import gc

from cpdb import (
    Destination,
    DestinationHealth,
    HealthReport,
    HealthStatus,
    InstallStatus,
    Link,
    Node,
    NodeKind,
    ReservationReport,
    Store,
    VirtualIp,
)
from cpdb.repository import Repository
from cpdb.telemetry.tenures import KeptCounts, switch_counters


def test_of_what_is_as_it_was_the_same_records_are_told(store: Store) -> None:
    store.inventory.put_nodes([Node("s1", NodeKind.SWITCH, dpid=1), Node("c1", NodeKind.CLIENT)])
    store.inventory.put_links([Link("c1", 0, "s1", 1, 1e6), Link("c2", 0, "s1", 2, 1e6)])
    nodes, links = store.inventory.nodes(), store.inventory.links()
    store.inventory.put_links([Link("c2", 0, "s1", 2, 1e6, up=False)])
    again = store.inventory.links()
    assert all(one is before for one, before in zip(store.inventory.nodes(), nodes, strict=True))
    assert again[0] is links[0]
    assert (again[1].up, links[1].up) == (False, True)


def test_what_was_observed_is_read_anew_where_it_says_something_new(store: Store) -> None:
    up, down = (DestinationHealth(one, answered=True) for one in (HealthStatus.UP, HealthStatus.DOWN))
    store.wanted.observe([HealthReport("10.0.0.1", name, up, "", 5.0) for name in ("a", "b")])
    before = store.wanted.observed()
    store.wanted.observe([HealthReport("10.0.0.1", "b", down, "silent", 6.0)])
    (first, second) = store.wanted.observed()
    assert first is before[0]
    assert (second.status, before[1].status) == (HealthStatus.DOWN, HealthStatus.UP)
    assert store.wanted.observed_of(HealthReport) == [first, second]


def test_virtual_ips_follow_what_is_declared(store: Store) -> None:
    shop = VirtualIp("10.0.0.1", "shop", 5, (Destination("a", "10.0.1.1", "m"),))
    store.inventory.declare_virtual_ips([shop])
    assert store.inventory.virtual_ips() == store.inventory.virtual_ips() == [shop]
    store.inventory.declare_virtual_ips([])
    (found,) = store.inventory.virtual_ips()
    assert (found.declared, found.destinations) == (False, ())


def test_what_a_row_was_before_is_not_kept(store: Store) -> None:
    """Otherwise who reads once a second what others write once a second grows for hours: a soak found it."""
    for number in range(100):
        store.wanted.observe([ReservationReport("c1", "leaf1", number, InstallStatus.INSTALLED, "meter", 1.0)])
        (said,) = store.wanted.observed_of(ReservationReport)
        assert said in store.wanted.observed() and said.generation == number
    gc.collect()
    assert sum(isinstance(one, ReservationReport) for one in gc.get_objects()) < 10


def test_what_is_appended_together_is_stored_as_it_is_alone(store: Store) -> None:
    """A column may turn what it is given: the upper half of 64 bits lies below zero in SQLite."""
    counts = Repository(store.engine, switch_counters, KeptCounts)
    kept = [KeptCounts(dpid, 1, "c1", bytes([dpid % 256])) for dpid in (1, 2**63, 2**64 - 1)]
    counts.add_all(kept[:2])
    counts.add(kept[2])
    assert sorted(counts.read(), key=lambda one: one.dpid) == kept
