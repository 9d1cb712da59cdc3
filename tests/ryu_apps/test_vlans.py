"""VLANs of a network that lives: hosts in them, the same addresses in several, and labels that never meet them."""

from dataclasses import replace

import networkx as nx
import pytest
from routed_world import RoutedWorld, split
from simulated import HOSTS, VIP, World, address, ip, mac

from cpdb import InstallStatus
from ryu_apps.effects import PacketOut
from ryu_apps.paths.labels import REMEMBER_S, TAKEN, UsedVlans
from ryu_apps.pipeline import Share, desired
from ryu_apps.rules import ETH_ARP, Kind, Match, PortId, Table, cookie, in_vlan, pair_number, virtual_mac
from ryu_apps.settings import ControllerSection
from ryu_apps.status.answers import SplitPublisher
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp
from ryu_apps.topology.hosts import HostTable

RING = nx.Graph([(0, 1), (1, 3), (0, 2), (2, 3)])
SAME = "10.0.99.1"


def question(name: str, target: str, vlan: int) -> bytes:
    body = Arp(frames.REQUEST, mac(name), SAME, "00:00:00:00:00:00", target)
    return frames.tagged(frames.arp(body, mac(name), frames.BROADCAST), vlan)


def test_a_tag_is_read_and_what_is_below_a_second_one_is_left_alone() -> None:
    plain = question("c1", address("s1"), 0)
    assert frames.parse(plain) == replace(frames.parse(frames.tagged(plain, 20)) or frames.Frame("", "", 0), vlan=0)
    twice = frames.parse(frames.tagged(frames.tagged(plain, 20), 30))
    assert twice is not None
    assert (twice.vlan, twice.eth_type, twice.arp) == (30, 0x8100, None)
    assert frames.parse(frames.tagged(plain, 20)[:15]) is not None


def test_the_same_address_and_the_same_mac_may_be_in_two_vlans() -> None:
    hosts, one, other = HostTable(), PortId(1, 1), PortId(1, 2)
    for vlan, at in ((10, one), (20, other)):
        hosts.learn("02:00:00:00:00:01", in_vlan(SAME, vlan), at, 1.0, vlan)
    revision = hosts.revision
    for vlan, at in ((10, one), (20, other)):
        hosts.learn("02:00:00:00:00:01", in_vlan(SAME, vlan), at, 2.0, vlan)
        assert hosts.of_address(in_vlan(SAME, vlan)) == hosts.of_mac("02:00:00:00:00:01", vlan)
    assert (hosts.revision, len(hosts)) == (revision, 2)
    assert [host.vlan for host in hosts.leave(one)] == [10]
    assert hosts.of_address(in_vlan(SAME, 10)) is None


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    return world


def speak(world: World, name: str, vlan: int) -> None:
    world.react(world.network.packet_in(HOSTS[name], question(name, SAME, vlan), world.now))


def counted(world: World, source: str) -> int:
    number = cookie(Table.ACCOUNT, Kind.PAIR, pair_number(source, VIP))
    return sum(one.packets for one in world.switches[0x11].samples(world.now) if one.cookie == number)


@pytest.mark.parametrize("access", [{}, {"leaf1:12": 20}])
def test_two_hosts_with_one_address_are_two_pairs_also_at_an_access_port(world: World, access: dict[str, int]) -> None:
    world.network.topology.access.names = access
    world.network.declare(replace(world.network.declared, links=world.network.declared.links[:-1]), world.now)
    tags = {"c1": 10, "c2": None if access else 20}
    for name, tag in tags.items():
        speak(world, name, tag or 0)
    for name, times in (("c1", 2), ("c2", 5)):
        packet = ip(name, "s1", ip_src=SAME, ip_dst=VIP, eth_dst=virtual_mac(VIP), label=tags[name])
        for _ in range(times):
            world.now += 0.1
            assert [who for who, _ in world.send(name, packet)] == ["s1"]
    assert [counted(world, in_vlan(SAME, vlan)) for vlan in (10, 20)] == [2, 5]


def test_a_question_is_answered_in_its_vlan_only(world: World) -> None:
    speak(world, "c1", 10)
    speak(world, "c2", 20)
    listen = cookie(Table.ACCOUNT, Kind.LISTEN, 1)
    asked = frames.arp(Arp(1, mac("s1"), address("s1"), frames.BROADCAST, SAME), mac("s1"), frames.BROADCAST)
    for vlan, name in ((10, "c1"), (20, "c2")):
        (answer,) = world.network.packet_in(HOSTS["s1"], frames.tagged(asked, vlan), world.now, listen)
        parsed = frames.parse(answer.data) if isinstance(answer, PacketOut) else None
        assert parsed is not None
        assert parsed.arp is not None
        assert (parsed.vlan, parsed.eth_type, parsed.arp.sender_mac) == (vlan, ETH_ARP, mac(name))


def test_a_mac_at_two_places_is_reached_in_each_vlan_where_it_is() -> None:
    rules = desired(Share(ports={mac("c1"): 1, f"{mac('c1')}@20": 2}), {}).rules.values()
    found = {rule.match: rule.priority for rule in rules if kind_is_host(rule.cookie)}
    plain, tagged = Match(eth_dst=mac("c1")), Match(eth_dst=mac("c1"), label=20)
    assert set(found) == {plain, tagged}
    assert found[tagged] > found[plain]


def kind_is_host(number: int) -> bool:
    return number >> 40 & 0xF == Kind.HOST


# ---- labels


def test_a_vlan_among_the_labels_is_told_with_a_range_that_is_free() -> None:
    vlans = UsedVlans(declared=frozenset({100, 2100}))
    assert vlans.conflict(0.0) is None
    vlans.saw(3100, "seen at leaf1:3", 10.0)
    assert vlans.conflict(10.0 + REMEMBER_S) is None
    why = vlans.conflict(11.0) or ""
    assert "VLAN 3100 is in use (seen at leaf1:3), and labels of paths are 3072 to 4095" in why
    assert why.endswith("set routing.first_label = 1024")


def test_nothing_is_labelled_while_a_vlan_needs_the_numbers() -> None:
    world = RoutedWorld(RING)
    world.begin()
    wanted = split({(0, 1, 3): 1.0})
    world.want((wanted,))
    world.reconcile()
    assert world.network.routes.in_force
    at = next(iter(world.places.values()))
    world.network.packet_in(at, question("c1", SAME, 3100), world.now)
    alerts = world.network.tick(world.now)
    assert [getattr(one, "kind", "") for one in alerts].count(TAKEN) == 1
    world.reconcile()
    assert not world.network.routes.in_force
    told = SplitPublisher().news(world.network, lambda _dpid, _key: None, world.now)
    assert [one.status for one in told] == [InstallStatus.REFUSED]
    assert "VLAN 3100 is in use" in told[0].detail
    # Whoever has that VLAN is served all the same.
    world.now += 10
    world.reconcile()
    assert [who for who, _ in world.send("c0", replace(ip("c0", "s3"), label=3100))] == ["s3"]


def test_labels_of_another_range_leave_the_usual_numbers_to_vlans() -> None:
    world = RoutedWorld(RING)
    world.begin()
    world.network.routes.first_label = 1024
    world.want((split({(0, 1, 3): 1.0}, 1024),))
    world.reconcile()
    assert world.network.routes.in_force
    assert world.send("c0", replace(ip("c0", "s3"), label=1500)) == []
    assert [who for who, _ in world.send("c0", replace(ip("c0", "s3"), label=3100))] == ["s3"]
    world.want((split({(0, 1, 3): 1.0}),))
    world.reconcile()
    told = SplitPublisher().news(world.network, lambda _dpid, _key: None, world.now)
    assert "another range" in told[0].detail


@pytest.mark.parametrize(
    ("setting", "told"),
    [({"vlans": (5000,)}, "1 to 4094"), ({"vlans": ("30-20",)}, "ranges"), ({"access": {"leaf1": 3}}, "SWITCH:PORT")],
)
def test_vlans_that_cannot_be_are_refused_with_an_example(setting: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ControllerSection.model_validate(setting)
    whole = ControllerSection(vlans=(7, "20-22"), access={"leaf1:3": 40})
    assert whole.used_vlans() == {7, 20, 21, 22, 40}
