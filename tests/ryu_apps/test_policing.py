"""Reservations become limits: the tightest wins, the dead have no say, unknown sources are left out."""

from dataclasses import replace

from cpdb import Limit, Pair, Reservation
from ryu_apps.policers import MIN_BURST_KBIT, meter, police, reservation_entries

VIP = "10.0.0.100"
ADDRESSES = {"c1": ("10.0.0.1",), "c2": ("10.0.0.2",), "c3": ("fd00::3", "fd00::33")}
BASE = Reservation("r", Pair("c2", VIP), 1e6, (Limit(Pair("c1", VIP), 125_000.0),), "o", "why", 0.0, 10.0)


def merged(*items: Reservation, now: float = 1.0) -> list[tuple[str, float, int | None, int | None]]:
    found = police(reservation_entries(items, now), lambda pair: ADDRESSES.get(pair.source, ()))
    return [(one.source_address, one.lease_until, one.rate_kbit_s, one.dscp) for one in found]


def test_a_limit_in_bytes_becomes_kilobits() -> None:
    assert merged(BASE) == [("10.0.0.1", 10.0, 1000, None)]


def test_the_tightest_limit_wins_with_its_own_lease() -> None:
    tighter = replace(BASE, key="t", limits=(Limit(Pair("c1", VIP), 50_000.0),), expires_at=5.0)
    assert merged(BASE, tighter) == [("10.0.0.1", 5.0, 400, None)]
    assert merged(BASE, tighter, now=6.0) == [("10.0.0.1", 10.0, 1000, None)]


def test_a_mark_is_for_the_reserved_pair_and_may_meet_a_limit_of_another() -> None:
    other = Reservation("q", Pair("c1", VIP), 1e6, (), "o", "why", 0.0, 8.0, dscp=46)
    assert merged(BASE, other) == [("10.0.0.1", 10.0, 1000, 46)]
    assert merged(replace(BASE, dscp=10)) == [("10.0.0.1", 10.0, 1000, None), ("10.0.0.2", 10.0, None, 10)]


def test_what_has_ended_or_is_nowhere_is_left_out() -> None:
    assert merged(BASE, now=10.0) == []
    nowhere = replace(BASE, limits=(Limit(Pair("c9", VIP), 1.0),))
    assert merged(nowhere) == []


def test_a_bucket_is_never_too_small_for_a_few_packets() -> None:
    assert meter(1, 1).burst_kbit == MIN_BURST_KBIT
    assert meter(1, 10_000).burst_kbit == 5000


def test_a_source_with_several_addresses_has_one_limit_for_all() -> None:
    limit = replace(BASE, limits=(Limit(Pair("c3", "fd00::100"), 125_000.0),))
    found = police(reservation_entries([limit], 1.0), lambda pair: ADDRESSES[pair.source])
    assert [one.source_address for one in found] == ["fd00::3", "fd00::33"]
    assert len({one.number for one in found}) == 1
