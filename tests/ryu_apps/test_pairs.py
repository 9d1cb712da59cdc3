"""Pairs keep their destination while they live, are taken over from switches, and have a budget."""

from cpdb import Destination, VirtualIp
from ryu_apps.pipeline import PairShare, Rewrite, Share, desired
from ryu_apps.services.pairs import PairBudget, Pairs

S1, S2 = (Destination(f"s{n}", f"10.0.1.{n}", f"02:00:00:00:01:0{n}", 100) for n in (1, 2))
VIP = VirtualIp("10.0.0.100", "shop", 0, (S1,))


def pairs(max_pairs: int = 10) -> Pairs:
    return Pairs(PairBudget(max_pairs), idle_s=60.0, forget_s=900.0)


def test_there_is_a_budget() -> None:
    made = pairs(max_pairs=1)
    assert made.meet("10.0.0.1", VIP, 0.0) is not None
    assert made.meet("10.0.0.2", VIP, 0.0) is None
    assert made.meet("10.0.0.1", VIP, 0.0) is not None


def test_a_destination_that_is_gone_is_left_at_once() -> None:
    made = pairs()
    made.meet("10.0.0.1", VIP, 0.0)
    other = VirtualIp(VIP.address, "shop", 0, (S2,))
    before = made.revision
    made.refresh({VIP.address: other}, 1.0)
    assert made.revision != before
    assert [pair.destination for pair in made] == [S2]


def test_silence_ends_a_pair_and_so_does_the_end_of_its_virtual_ip() -> None:
    made = pairs()
    made.meet("10.0.0.1", VIP, 0.0)
    before, vips = made.revision, {VIP.address: VIP}
    made.refresh(vips, 800.0)
    assert made.revision == before
    made.refresh(vips, 901.0)
    assert made.revision != before
    assert len(made) == 0
    made.meet("10.0.0.1", VIP, 902.0)
    before = made.revision
    made.refresh({}, 903.0)
    assert made.revision != before
    assert len(made) == 0


def test_rules_found_in_a_switch_show_who_serves_whom() -> None:
    steer = Rewrite("10.0.0.1", VIP.address, S2.address, S2.mac)
    both = VirtualIp(VIP.address, "shop", 0, (S1, S2))
    for share in (PairShare(towards=(steer,)), PairShare(back=(steer,))):
        made = pairs()
        made.adopt(desired(Share(pairs=share), {}).rules.values(), {VIP.address: both}, 0.0)
        assert [(pair.source_address, pair.destination) for pair in made] == [("10.0.0.1", S2)]
