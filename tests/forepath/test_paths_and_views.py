"""What people are shown about pairs, links and paths, in numbers."""

from collections.abc import Sequence

import pytest
from lab_on_paper import BACKUP, SHOP, SHOP_BYTES, SHOP_PEAK, fill, place

from cpdb import Communication, LinkLoad, Node, NodeKind, Pair, SettingsError, Store
from forepath import views
from forepath.paths import PathFinder

NOW = 1_000_000.0


def test_a_path_goes_leaf_spine_leaf_host_machine(empty: Store) -> None:
    place(empty)
    path = PathFinder.of(empty).path("c1", "shop1")
    assert path[:2] == ("c1", "leaf1") and path[2] in ("spine1", "spine2")
    assert path[3:] == ("leaf2", "hA", "shop1")


def test_a_virtual_ip_stands_for_its_heaviest_destination_until_one_was_chosen(empty: Store) -> None:
    place(empty)
    finder = PathFinder.of(empty)
    assert finder.path("c1", SHOP)[-1] == "shop1"
    assert finder.to_service("c1", "shop", NOW).hops[-1] == "shop1"
    empty.facts.add_communications([Communication("c1", SHOP, "shop2", NOW, 1.0, 10, 1, 1)])
    assert finder.to_service("c1", SHOP, NOW).hops[-1] == "shop2"
    assert finder.to_service("c2", "shop", NOW).hops[-1] == "shop1"
    assert finder.to_service("c1", "leaf3", NOW).hops[-1] == "leaf3"


def test_where_no_way_leads_it_says_so(empty: Store) -> None:
    empty.inventory.put_nodes([Node("island", NodeKind.SWITCH)])
    with pytest.raises(SettingsError, match="no path from 'c1' to 'island'; nodes known: "):
        PathFinder.of(empty).to_service("c1", "island", NOW)


def test_a_pair_is_summed_over_the_last_seconds(empty: Store) -> None:
    fill(empty, NOW)
    found = {view.pair: view for view in views.pairs(empty, NOW)}
    shop = found[Pair("c1", SHOP)]
    assert (shop.service, shop.destination) == ("shop", "shop1")
    assert shop.bytes_per_s == pytest.approx(SHOP_BYTES)
    assert shop.expected_q90[15] == pytest.approx(1.4 * SHOP_PEAK)
    assert shop.models[15] == "ewma"
    assert views.pairs(empty, NOW + 1000) == []


@pytest.mark.parametrize(
    "rows,rate", [([(1.0, 100), (1.0, 300)], 200.0), ([(0.5, 100), (1.5, 100)], 100.0), ([(0.0, 100)], None)]
)
def test_link_rates_weigh_by_time(rows: Sequence[tuple[float, int]], rate: float | None) -> None:
    loads = [LinkLoad("a", "b", NOW, seconds, size, 1) for seconds, size in rows]
    assert views.link_rates(loads).get(("a", "b")) == rate


def test_only_the_newest_load_of_each_machine_counts(empty: Store) -> None:
    fill(empty, NOW)
    vms, hosts = views.newest_vm_loads(empty, NOW), views.newest_host_loads(empty, NOW)
    assert {one.t for one in vms} == {NOW} == {one.t for one in hosts}
    assert [one.host for one in hosts] == ["hA", "hB"]
    assert BACKUP not in {one.vm for one in vms} and "backup1" in {one.vm for one in vms}
