"""One of several holds the lease; the others learn who does, and take over when it is no longer renewed."""

import threading

from cpdb import Store, open_store

ROLE = "orchestrator"


def test_the_first_holds_and_the_second_learns_who_does(store: Store) -> None:
    assert store.leases.holder(ROLE, 10.0) is None
    first = store.leases.hold(ROLE, "a", 10.0, 5.0)
    assert (first.holder, first.since, first.expires_at) == ("a", 10.0, 15.0)
    assert store.leases.hold(ROLE, "b", 12.0, 5.0) == first
    assert store.leases.holder(ROLE, 14.9) == first


def test_a_renewed_lease_goes_on_since_it_began(store: Store) -> None:
    store.leases.hold(ROLE, "a", 10.0, 5.0)
    renewed = store.leases.hold(ROLE, "a", 13.0, 5.0)
    assert (renewed.since, renewed.expires_at) == (10.0, 18.0)
    assert store.leases.hold(ROLE, "b", 16.0, 5.0).holder == "a"


def test_an_expired_lease_is_taken_over_and_not_given_back(store: Store) -> None:
    store.leases.hold(ROLE, "a", 10.0, 5.0)
    taken = store.leases.hold(ROLE, "b", 15.0, 5.0)
    assert (taken.holder, taken.since) == ("b", 15.0)
    assert store.leases.hold(ROLE, "a", 16.0, 5.0).holder == "b"
    assert not store.leases.release(ROLE, "a")
    assert store.leases.holder(ROLE, 16.0) == taken


def test_a_lease_given_back_is_free_at_once_and_others_are_not_touched(store: Store) -> None:
    store.leases.hold(ROLE, "a", 10.0, 5.0)
    store.leases.hold("other", "c", 10.0, 5.0)
    assert store.leases.release(ROLE, "a")
    assert store.leases.hold(ROLE, "b", 11.0, 5.0).holder == "b"
    assert store.leases.hold("other", "d", 11.0, 5.0).holder == "c"


def test_of_many_who_ask_at_once_exactly_one_holds_it(url: str) -> None:
    open_store(url).close()
    found: dict[str, str] = {}

    def ask(name: str, start: threading.Barrier) -> None:
        own = open_store(url, create=False)
        start.wait(30)
        found[name] = own.leases.hold(ROLE, name, 10.0, 5.0).holder
        own.close()

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=ask, args=(f"p{n}", barrier)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert len(found) == 4
    assert len(set(found.values())) == 1
