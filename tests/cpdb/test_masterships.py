"""One controller is master of a switch at a time, and every counted byte is stored by exactly one of them."""

import time
from array import array

from cpdb import Batch, ControlClaim, FlowKey, KeptCounts, Store, tenure_mark

LEASE_S = 1.0
ONE, TWO = 0x11, 0xFFFF_FFFF_FFFF_FF12


def claim(store: Store, name: str, take: tuple[int, ...] = (), give: tuple[int, ...] = ()) -> dict[int, str]:
    picture = store.leases.claim(ControlClaim(name, (ONE, TWO), take, give), LEASE_S)
    assert name in {one.name for one in picture.controllers}
    return {dpid: held.holder for dpid, held in picture.masters.items()}


def batch(store: Store, dpid: int, seq: int, token: int | None = None, name: str = "w") -> Batch:
    """1,000 bytes of one pair, counted in the present tenure or in that with `token`."""
    now = store.leases.now()
    tenure = store.leases.masters(now)[dpid].token if token is None else token
    column = array("q", [1000])
    mark = tenure_mark(dpid, tenure)
    return Batch(
        "switch/x", now, 1.0, [FlowKey("c", "10.0.0.100", "s")], column, column, column, writer=f"{name}{mark}", seq=seq
    )


def told(store: Store) -> int:
    return sum(one.bytes for one in store.facts.communications(0.0))


def test_the_first_becomes_master_and_the_other_waits_for_its_end(store: Store) -> None:
    assert claim(store, "a", take=(ONE, TWO)) == {ONE: "a", TWO: "a"}
    assert claim(store, "b", take=(ONE, TWO)) == {ONE: "a", TWO: "a"}
    assert claim(store, "a", give=(TWO,)) == {ONE: "a"}
    assert claim(store, "b", take=(ONE, TWO)) == {ONE: "a", TWO: "b"}
    time.sleep(LEASE_S + 0.1)
    # Late, but nobody took it: it goes on in the same tenure.
    before = store.leases.now()
    assert claim(store, "a") == {ONE: "a"}
    assert store.leases.masters(before)[ONE].since < before - LEASE_S
    time.sleep(LEASE_S + 0.1)
    assert claim(store, "b", take=(ONE,)) == {ONE: "b", TWO: "b"}
    assert claim(store, "a", take=(ONE,)) == {ONE: "b", TWO: "b"}
    store.leases.leave("b")
    assert claim(store, "a", take=(ONE,)) == {ONE: "a"}


def test_a_later_tenure_has_a_larger_token_also_within_a_millisecond(store: Store) -> None:
    tokens = []
    for name in "abab":
        claim(store, name, take=(ONE,))
        tokens.append(store.leases.masters(store.leases.now())[ONE].token)
        store.leases.leave(name)
    assert tokens == sorted(tokens)
    assert abs(tokens[0] / 1000 - time.time()) < 60


def test_what_was_counted_in_an_earlier_tenure_is_refused_and_what_is_kept_is_what_is_stored(store: Store) -> None:
    claim(store, "a", take=(ONE,))
    first = store.leases.masters(store.leases.now())[ONE].token
    counts = KeptCounts(ONE, first, "a's folder", b"counters")
    assert store.facts.add_batches([batch(store, ONE, 1)], [counts]) == 1
    assert store.leases.kept_counts([ONE]).get(ONE) == counts
    late = batch(store, ONE, 2)
    store.leases.leave("a")
    claim(store, "b", take=(ONE,))
    # The next master begins with what the stored rows end with.
    kept = store.leases.kept_counts([ONE]).get(ONE)
    assert kept is not None and (kept.keeper, kept.body) == ("a's folder", b"counters") and kept.token > first
    assert store.facts.add_batches([late], [KeptCounts(ONE, first, "a's folder", b"newer")]) == 0
    assert store.leases.kept_counts([ONE]).get(ONE) == kept
    assert told(store) == 1000
    assert store.facts.add_batches([late, batch(store, ONE, 3, name="v")]) == 1
    assert told(store) == 2000


def test_rows_without_counters_take_away_older_ones_and_silence_does_not(store: Store) -> None:
    claim(store, "a", take=(ONE,))
    token = store.leases.masters(store.leases.now())[ONE].token
    store.facts.add_batches([batch(store, ONE, 1)], [KeptCounts(ONE, token, "here", b"counters")])
    silent = Batch("switch/x", 9.0, 1.0, [], array("q"), array("q"), array("q"), complete=True)
    mark = f"w{tenure_mark(ONE, token)}"
    store.facts.add_batches([Batch(**{name: getattr(silent, name) for name in silent.__slots__} | {"writer": mark})])
    assert store.leases.kept_counts([ONE]).get(ONE) == KeptCounts(ONE, token, "here", b"counters")
    store.facts.add_batches([batch(store, ONE, 5)])
    assert store.leases.kept_counts([ONE]).get(ONE) == KeptCounts(ONE, token, "here", None)


def test_whoever_asks_gets_the_first_key(store: Store) -> None:
    assert store.leases.lldp_key(b"one") == store.leases.lldp_key(b"other") == b"one"
