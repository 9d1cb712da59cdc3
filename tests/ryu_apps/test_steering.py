"""The choice of a destination: shares follow weights, and a change moves only whom it must."""

from hypothesis import given
from hypothesis import strategies as st

from cpdb import Destination, VirtualIp
from ryu_apps.rules import virtual_mac
from ryu_apps.services.pairs import choose

VIP = "10.0.0.100"
SOURCES = [f"10.1.{n // 250}.{n % 250}" for n in range(2000)]
weights = st.lists(st.integers(0, 100), min_size=1, max_size=5)


def destinations(values: list[int]) -> list[Destination]:
    return [Destination(f"d{n}", f"10.0.0.{n}", f"02:00:00:00:00:{n:02x}", weight) for n, weight in enumerate(values)]


def test_shares_follow_weights() -> None:
    behind = destinations([300, 100, 0])
    chosen = [choose(source, VIP, behind) for source in SOURCES]
    share = sum(one == behind[0] for one in chosen) / len(chosen)
    assert 0.70 < share < 0.80
    assert behind[2] not in chosen


@given(weights, st.data())
def test_a_changed_weight_moves_sources_only_to_or_from_its_destination(values: list[int], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(values) - 1))
    changed = list(values)
    changed[which] = data.draw(st.integers(0, 100))
    for source in SOURCES[:60]:
        before, after = (choose(source, VIP, destinations(one)) for one in (values, changed))
        names = {one.name if one else None for one in (before, after)}
        assert len(names) == 1 or f"d{which}" in names


def test_all_on_stand_by_means_nobody() -> None:
    assert choose("10.1.0.1", VIP, destinations([0, 0])) is None


def test_wanted_weights_override_declared_ones_where_they_name_a_destination() -> None:
    vip = VirtualIp(VIP, "shop", 0, tuple(destinations([100, 0])))
    wanted = vip.with_weights({"d1": 50, "unknown": 7})
    assert [one.weight for one in wanted.destinations] == [100, 50]
    assert vip.with_weights({}) == vip


def test_virtual_macs_are_local_unicast_and_tell_addresses_apart() -> None:
    first, second = virtual_mac("10.0.0.1"), virtual_mac("10.0.0.2")
    assert first != second
    assert int(first[:2], 16) & 3 == 2
