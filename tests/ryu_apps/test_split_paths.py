"""Split paths in whole simulated networks: who goes where, who may change, and that nothing ever gets lost."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import networkx as nx
import pytest
from routed_world import RoutedWorld, random_splits, split
from simulated import address, ip

from cpdb import FIRST_TAG, HeavyPair, WantedSplit
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.paths.next_hops import label_groups, label_rules, undivided
from ryu_apps.paths.routing import DRAINED_S, NOTE_S
from ryu_apps.paths.splits import SplitPath, choose_path, find_split_paths, spread_over
from ryu_apps.rules import PROTO_UDP, GroupKind, Kind, Table, kind_of
from ryu_apps.topology.paths import Topology

# 0 and 3 are joined over 1, over 2, and the long way over 4 and 5.
RING = nx.Graph([(0, 1), (1, 3), (0, 2), (2, 3), (0, 4), (4, 5), (5, 3)])
BOTH = split({(0, 1, 3): 0.5, (0, 4, 5, 3): 0.5})


@pytest.fixture
def world() -> RoutedWorld:
    made = RoutedWorld(RING)
    made.begin()
    made.talk(0, 3)
    made.now += 5
    return made


def calm(world: RoutedWorld, seconds: float = 8.0) -> None:
    """Time passes; whatever is due is sent."""
    for _ in world.update(Random(1), seconds, lambda: None):
        pass


def test_a_split_takes_a_silent_pair_to_its_path_and_back_again(world: RoutedWorld) -> None:
    before = world.talk(0, 3)
    world.want((split({(0, 4, 5, 3): 1.0}), split({(3, 5, 4, 0): 1.0}, FIRST_TAG + 9)))
    world.now += 5
    calm(world)
    assert world.talk(0, 3) == [("w0", "w4", "w5", "w3"), ("w3", "w5", "w4", "w0")]
    world.want(())
    calm(world, 20)
    assert world.talk(0, 3) == before
    held = [rule for switch in world.switches.values() for rule in switch.rules(world.now)]
    assert not [rule for rule in held if kind_of(rule.cookie) in (Kind.PIN, Kind.LABEL)]


def test_a_speaking_connection_keeps_its_path_and_a_new_one_takes_the_other(world: RoutedWorld) -> None:
    (old, new), other = connections(range(2)), split({(0, 4, 5, 3): 1.0})
    before = world.crossed("c0", old, "s3")
    world.want((other,))
    for _ in range(int(2 * NOTE_S) + 4):
        assert world.crossed("c0", old, "s3") == before
        calm(world, 0.5)
    for _ in range(60):
        calm(world, 0.5)
        assert world.crossed("c0", old, "s3") == before
        assert world.crossed("c0", new, "s3") == other.paths[0]
    # The turn is over although a connection goes on.
    assert world.network.routes.progress["w0", "w3"].away == 0
    assert world.network.routes.keeping == {1}
    calm(world, 2 * DRAINED_S)
    assert world.crossed("c0", old, "s3") == other.paths[0]
    assert not world.network.routes.keeping
    held = world.switches[1].rules(world.now)
    assert not [rule for rule in held if rule.table in (Table.PAIR_BUCKETS, Table.NOTE)]


def test_connections_of_a_divided_pair_keep_their_paths_over_turns_and_a_restart(world: RoutedWorld) -> None:
    ports = connections(range(40))

    def crossed() -> list[tuple[str, ...]]:
        return [world.crossed("c0", one, "s3") for one in ports]

    def speak(seconds: float) -> None:
        for _ in range(int(2 * seconds)):
            calm(world, 0.5)
            assert crossed() == before

    world.want((divided(0.25),))
    calm(world)
    before = crossed()
    assert set(before) == set(BOTH.paths)
    world.want((divided(0.75),))
    speak(NOTE_S + 2)
    world.begin((divided(0.75),))
    speak(20)
    # Turned once more while some still keep what they had before the last time
    world.want((divided(0.5),))
    speak(NOTE_S + 10)
    assert {world.crossed("c0", one, "s3") for one in connections(range(40, 80))} == set(BOTH.paths)
    calm(world, 2 * DRAINED_S)
    assert crossed() != before


def connections(ports: range) -> list[Packet]:
    """A packet of each of these connections from c0 to s3."""
    return [replace(TO_SERVER, ip_proto=PROTO_UDP, transport=Transport(1000 + port, 80)) for port in ports]


def divided(share: float) -> WantedSplit:
    """All of c0 to s3 by both paths, this share by the first."""
    return replace(BOTH, heavy=(HeavyPair("c0", "s3", 1.0, (share, 1 - share)),))


def test_where_nothing_is_written_down_a_pair_stays_until_it_is_silent_or_time_is_over(world: RoutedWorld) -> None:
    (pair,) = world.network.services.pairs
    world.network.services.unplacing = {1}
    before, other = world.talk(0, 3)[0], split({(0, 4, 5, 3): 1.0})
    world.want((other,))
    for _ in range(10):
        pair.active = world.now
        calm(world, 0.5)
        assert world.talk(0, 3)[0] == before
    assert world.network.routes.progress["w0", "w3"].away == 1
    calm(world, 3)
    assert world.talk(0, 3)[0] == other.paths[0]
    world.want((split({(0, 2, 3): 1.0}, FIRST_TAG + 5),))
    for _ in range(int(2 * world.network.routes.timing.timeout_s) + 2):
        pair.active = world.now
        calm(world, 0.5)
    assert world.talk(0, 3)[0] != other.paths[0]


def choose(one: WantedSplit) -> tuple[str, ...]:
    own = [SplitPath(tag, hops, ratio) for tag, hops, ratio in zip(one.tags, one.paths, one.ratios, strict=True)]
    found = choose_path(address("c0"), address("s3"), own)
    assert found is not None
    return found.hops


def test_a_broken_path_is_left_at_once_and_its_share_goes_to_the_others(world: RoutedWorld) -> None:
    world.want((BOTH,))
    calm(world)
    used = world.talk(0, 3)[0]
    assert used in BOTH.paths
    (pair,) = world.network.services.pairs
    pair.active = world.now
    at = next(a for a, b in world.wires.items() if {f"w{a.dpid - 1}", f"w{b.dpid - 1}"} == set(used[1:3]))
    world.network.topology.port_changed(at, False, world.now)
    world.network.topology.port_changed(world.wires[at], False, world.now)
    calm(world, 0.5)
    world.now -= 0.5
    assert world.talk(0, 3)[0] == next(path for path in BOTH.paths if path != used)
    assert [next_hop.ratio for next_hop in world.network.routes.in_force["w0", "w3"]] == [1.0]


def test_a_switch_that_is_gone_is_gone_round(world: RoutedWorld) -> None:
    world.want((BOTH,))
    calm(world)
    used = world.talk(0, 3)[0]
    (pair,) = world.network.services.pairs
    pair.active = world.now
    world.network.topology.switch_down(int(used[1][1:]) + 1)
    calm(world, 0.5)
    world.now -= 0.5
    assert world.talk(0, 3)[0] == next(path for path in BOTH.paths if path != used)


def test_a_restarted_controller_finds_everybody_where_they_were(world: RoutedWorld) -> None:
    world.want((split({(0, 4, 5, 3): 0.7, (0, 1, 3): 0.3}),))
    calm(world, 20)
    before, (held,) = world.talk(0, 3), [world.network.declared.splits]
    rules = {dpid: {rule.key for rule in switch.rules(world.now)} for dpid, switch in world.switches.items()}
    world.begin(held)
    calm(world)
    assert world.talk(0, 3) == before
    assert {dpid: {rule.key for rule in one.rules(world.now)} for dpid, one in world.switches.items()} == rules


TO_SERVER = replace(ip("c0", "s3"), eth_dst="f2:ea:00:00:00:00", ip_dst="10.0.0.103")


def ways(world: RoutedWorld, connections: int) -> list[tuple[str, ...]]:
    """The switches that each of so many connections from c0 to s3 crosses."""
    found = []
    for port in range(connections):
        found.append(world.crossed("c0", replace(TO_SERVER, transport=Transport(port, 80)), "s3"))
    return found


def test_a_large_pair_is_divided_by_connection_and_a_restart_keeps_each_where_it_is(world: RoutedWorld) -> None:
    heavy = (HeavyPair("c0", "s3", 1.0, (0.25, 0.75)),)
    world.want((replace(BOTH, heavy=heavy),))
    calm(world)
    before = ways(world, 400)
    assert before.count(BOTH.paths[0]) / 400 == pytest.approx(0.25, abs=0.08)
    assert before == ways(world, 400)
    (held,) = [world.network.declared.splits]
    world.begin(held)
    calm(world)
    assert ways(world, 400) == before
    # A pair that is placed whole needs no group.
    world.want((replace(BOTH, heavy=(replace(heavy[0], ratios=(0.0, 1.0)),)),))
    calm(world, 30)
    assert set(ways(world, 50)) == {BOTH.paths[1]}
    assert not any(group.kind is GroupKind.SELECT for switch in world.switches.values() for group in switch.groups())


def test_a_divided_pair_leaves_a_path_that_broke(world: RoutedWorld) -> None:
    world.want((replace(BOTH, heavy=(HeavyPair("c0", "s3", 1.0, (0.5, 0.5)),)),))
    calm(world)
    assert set(ways(world, 50)) == set(BOTH.paths)
    at = next(a for a, b in world.wires.items() if (a.dpid, b.dpid) == (5, 6))
    for end in (at, world.wires[at]):
        world.network.topology.port_changed(end, False, world.now)
    calm(world, 0.5)
    assert set(ways(world, 50)) == {BOTH.paths[0]}


def udp_ways(world: RoutedWorld, connections: int) -> list[tuple[str, ...]]:
    """As `ways`, of UDP: by rules of ours, since groups leave its ports out of account."""
    return [
        world.crossed("c0", replace(TO_SERVER, ip_proto=PROTO_UDP, transport=Transport(port, 80)), "s3")
        for port in range(connections)
    ]


def test_udp_of_a_large_pair_is_divided_as_well(world: RoutedWorld) -> None:
    world.want((replace(BOTH, heavy=(HeavyPair("c0", "s3", 1.0, (0.25, 0.75)),)),))
    calm(world)
    before = udp_ways(world, 400)
    assert before.count(BOTH.paths[0]) / 400 == pytest.approx(0.25, abs=0.08)
    assert before == udp_ways(world, 400)
    # A switch without registers divides as well as its group does, one without groups not at all.
    share = world.network.routes.tagging[1]
    assert not [one for one in label_rules(replace(share, by_ports=False)) if one.table == Table.PAIR_BUCKETS]
    assert any(one.kind is GroupKind.SELECT for one in label_groups(replace(share, by_ports=False)))
    assert not list(label_groups(undivided(share)))


def cut(world: RoutedWorld, a: int, b: int) -> None:
    """The link between two switches goes down, and the controller is dead."""
    world.alive = False
    for here, there in world.wires.items():
        if {here.dpid - 1, there.dpid - 1} == {a, b}:
            world.switches[here.dpid].down.add(here.port)


@pytest.mark.parametrize("ratios", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 4)])
def test_a_switch_turns_by_itself_where_the_first_link_of_a_path_is_down(
    world: RoutedWorld, ratios: tuple[float, float], a: int, b: int
) -> None:
    world.want((replace(BOTH, heavy=(HeavyPair("c0", "s3", 1.0, ratios),)),))
    calm(world)
    cut(world, a, b)
    assert all((f"w{a}", f"w{b}") not in pairwise(way) for way in ways(world, 20))
    if all(ratios):
        assert all((f"w{a}", f"w{b}") not in pairwise(way) for way in udp_ways(world, 20))


def test_a_switch_on_the_way_turns_by_itself_as_well() -> None:
    made = RoutedWorld(nx.Graph([(0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 5), (4, 5)]))
    made.begin()
    made.talk(0, 5)
    made.now += 5
    for middle in (3, 4):
        made.alive = True
        made.want((split({(0, 1, middle, 5): 1.0}),))
        calm(made, 20)
        assert made.talk(0, 5)[0] == ("w0", "w1", f"w{middle}", "w5")
        cut(made, 1, middle)
        assert made.talk(0, 5)[0] == ("w0", "w1", f"w{7 - middle}", "w5")
        for switch in made.switches.values():
            switch.down.clear()


def test_others_take_what_large_pairs_leave() -> None:
    made = RoutedWorld(RING)
    made.begin()
    topology = made.network.topology.snapshot.topology
    row = replace(BOTH, heavy=(HeavyPair("c0", "s3", 0.4, (1.0, 0.0)), HeavyPair("c9", "s3", 0.1, (0.0, 1.0))))
    (first, second) = find_split_paths([row], topology, 0.0)["w0", "w3"]
    assert (first.weight, second.weight) == pytest.approx((0.2, 0.8))
    assert spread_over(("c9", "s3"), ("", ""), (first, second)) == ((second, 1.0),)


def test_no_packet_goes_a_path_that_a_switch_has_not_confirmed(world: RoutedWorld) -> None:
    before = world.talk(0, 3)[0]
    world.want((split({(0, 4, 5, 3): 1.0}),))
    world.now += 5
    deaf = world.switches[6]
    confirmed = world._holds
    world._holds = lambda dpid, key: dpid != deaf.dpid and confirmed(dpid, key)  # type: ignore[method-assign]
    calm(world)
    assert world.talk(0, 3)[0] == before
    assert [path.hops for path in world.network.routes.progress["w0", "w3"].unready] == [("w0", "w4", "w5", "w3")]


def test_hosts_cannot_use_tags_and_lost_tags_do_no_harm(world: RoutedWorld) -> None:
    world.want((split({(0, 4, 5, 3): 1.0}),))
    calm(world)
    forged = replace(ip("c0", "s3"), label=FIRST_TAG)
    assert world.send("c0", forged) == []
    # A packet that was tagged just before its tag was forgotten: it goes on from where it is.
    lost = replace(ip("c0", "s3"), label=FIRST_TAG + 500)
    world.arrived, world.hops = [], 0
    world._walk(next(end for end in world.wires if end.dpid == 5), lost)
    assert [(name, packet.label) for name, packet in world.arrived] == [("s3", None)]
    assert [name for name, _ in world.send("c0", replace(ip("c0", "s3"), label=100))] == ["s3"]


LONG_SILENT_S = 60.0


def _ends(one: WantedSplit) -> tuple[int, int]:
    return int(one.from_switch[1:]), int(one.to_switch[1:])


def update_prefix_by_prefix(seed: int) -> None:
    """Random splits come, change and go; after every single message everybody still reaches everybody once."""
    chance = Random(seed)
    graph = nx.connected_watts_strogatz_graph(6, 4, 0.5, seed=seed)
    world = RoutedWorld(graph)
    world.begin()
    sample = chance.sample([(a, b) for a in graph for b in graph if a != b], 4)

    def check() -> None:
        for a, b in sample:
            world.talk(a, b)

    check()
    check()
    world.now += 5
    for first_tag in (FIRST_TAG, FIRST_TAG + 100, FIRST_TAG):
        wanted = random_splits(graph, chance, 12, first_tag)
        world.want(wanted)
        assert list(world.update(chance, NOTE_S + 3, check))
        spoke = {pair: one for one in wanted if (pair := _ends(one)) in sample}
        if any(world.talk(*pair, first_tag + pair[0])[0] not in one.paths for pair, one in spoke.items()):
            # The turn before was not over, since somebody went on speaking: it ends when they fall silent.
            world.now += LONG_SILENT_S
            assert list(world.update(chance, NOTE_S + 3, lambda: None))
        for pair, one in spoke.items():
            assert world.talk(*pair, first_tag + pair[0])[0] in one.paths
    world.want(())
    assert list(world.update(chance, 12, check))


@pytest.mark.parametrize("seed", range(2))
def test_every_prefix_of_every_update_delivers_everything_once(seed: int) -> None:
    update_prefix_by_prefix(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 20))
def test_every_prefix_of_many_updates_delivers_everything_once(seed: int) -> None:
    update_prefix_by_prefix(seed)


def test_shares_are_met_over_many_pairs_and_a_change_moves_no_more_than_it_must() -> None:
    upper, lower = SplitPath(1, ("a", "b", "d"), 0.75), SplitPath(2, ("a", "c", "d"), 0.25)
    ends = [(f"10.0.{n // 200}.{n % 200}", f"10.1.0.{n % 7}") for n in range(4000)]
    before = [choose_path(*one, (upper, lower)) for one in ends]
    assert before.count(upper) / len(ends) == pytest.approx(0.75, abs=0.03)
    after = [choose_path(*one, (replace(upper, ratio=0.6), replace(lower, ratio=0.4))) for one in ends]
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert all(new == lower for _, new in moved)
    assert len(moved) / len(ends) == pytest.approx(0.15, abs=0.03)


def test_splits_that_cannot_be_are_left_out() -> None:
    world = RoutedWorld(RING)
    world.begin()
    topology: Topology = world.network.topology.snapshot.topology
    fine = split({(0, 1, 3): 0.25, (0, 2, 3): 0.75})
    assert [(one.hops, one.ratio) for one in find_split_paths([fine], topology, 0.0)["w0", "w3"]] == [
        (("w0", "w1", "w3"), 0.25),
        (("w0", "w2", "w3"), 0.75),
    ]
    wrong = [
        split({(0, 1, 3): 0.5, (0, 3): 0.5}),
        split({(0, 1, 3): 0.5, (0, 2, 3): 0.5}, tags=(FIRST_TAG, 7)),
        split({(0, 1, 3): 0.5, (0, 2, 0, 2, 3): 0.5}),
        split({(0, 1, 3): 0.5, (0, 2, 3): 0.0}),
    ]
    for one in wrong:
        assert [(next_hop.hops, next_hop.ratio) for next_hop in find_split_paths([one], topology, 0.0)["w0", "w3"]] == [
            (("w0", "w1", "w3"), 1)
        ]
    assert find_split_paths([replace(fine, expires_at=5.0)], topology, 5.0) == {}
    # The same tag on the same link for two paths would mix them up; on other links it may be used again.
    twice = [split({(0, 1, 3): 1.0}), split({(1, 3): 1.0}), split({(2, 3): 1.0})]
    assert set(find_split_paths(twice, topology, 0.0)) == {("w0", "w3"), ("w2", "w3")}
