"""Who floods, invents sources and MACs, or speaks for somebody else, gets an alarm, and takes nothing from others."""

import contextlib
import threading
import time
from collections.abc import Iterator

import openflow_corpus as corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import HOSTS, VIP, World, address, mac
from test_connections import Controlled, controller

from cpdb import VirtualIp
from ryu_apps.fakes.fake_packets import Packet
from ryu_apps.openflow import frame_origin
from ryu_apps.pacing import TokenBuckets
from ryu_apps.rules import ETH_IPV4, PortId, virtual_mac
from ryu_apps.services.pairs import PairBudget, Pairs
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp
from ryu_apps.topology.hosts import MAX_AT_PORT, HostTable, LearnResult

HERE, THERE = PortId(1, 1), PortId(1, 2)
SHOP = VirtualIp("10.0.0.101", "shop", 0, ())


@given(st.lists(st.floats(0, 0.2), max_size=200), st.integers(1, 50))
def test_a_bucket_gives_no_more_than_its_rate_and_one_second_at_once(gaps: list[float], per_s: int) -> None:
    buckets, now, taken = TokenBuckets(), 0.0, 0
    for gap in gaps:
        now += gap
        taken += buckets.take("port", per_s, now)
        assert taken <= per_s + per_s * now + 1
        assert buckets.take(object(), per_s, now)


def packet_in(port: int, ethertype: int = 0x800) -> bytes:
    match = b"\0\1\0\x0c\x80\0\0\4" + port.to_bytes(4) + bytes(4)
    frame = bytes(12) + ethertype.to_bytes(2) + bytes(46)
    return corpus.message(10, b"\xff" * 4 + len(frame).to_bytes(2) + bytes(10) + match + bytes(2) + frame)


def test_where_a_frame_came_in_is_read_from_its_bytes_alone() -> None:
    assert frame_origin(packet_in(7)) == (7, False)
    assert frame_origin(packet_in(0xFFFFFFFD, 0x88CC)) == (0xFFFFFFFD, True)
    for message in (*corpus.singles(), *corpus.hostile().values()):
        for end in range(0, len(message), 5):
            frame_origin(message[:end])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    tables = "port_packets_per_s = 200\n"
    with controller(tmp_path_factory.mktemp("flooded"), tables=tables) as made:
        yield made


def test_the_flood_of_one_port_is_left_out_and_every_other_port_is_heard(running: Controlled) -> None:
    stop, begun = threading.Event(), time.monotonic()
    with running.greet(0x71) as peer, running.greet(0x72) as other:

        def flood() -> None:
            one = packet_in(1) * 50
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    peer.sendall(one)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            # On the flooder's own connection, between its frames, and on another one.
            for _ in range(20):
                other.sendall(packet_in(3))
                time.sleep(0.05)
            assert running.waits_for(f"packet {0x72} 3", 20)
        finally:
            stop.set()
            flooding.join()
        peer.sendall(packet_in(2) * 20)
        assert running.waits_for(f"packet {0x71} 2", 20)
        heard, lasted_s = running.lines.count(f"packet {0x71} 1"), time.monotonic() - begun
        assert 0 < heard <= 200 * (lasted_s + 2)
        assert running.waits_for(f"stranger dpid:{0x71:016x}:1")
    assert running.lines.count(f"packet {0x72} 3") == 20


def test_one_port_takes_no_more_than_its_share_of_pairs_and_known_ones_stay() -> None:
    pairs = Pairs(PairBudget(100, 0.75), 60.0, 900.0)
    first = pairs.meet("10.1.0.1", SHOP, 0.0, at=THERE)
    for number in range(200):
        pairs.meet(f"10.2.0.{number}", SHOP, 1.0, at=HERE)
    assert len(pairs) == 76 and pairs.room.crowded == {HERE} and pairs.room.summing and not pairs.room.overfull
    assert pairs.meet("10.1.0.1", SHOP, 2.0, at=THERE) is first
    assert all(pairs.meet(f"10.1.0.{number}", SHOP, 2.0, at=THERE) for number in range(2, 26))
    pairs.refresh({SHOP.address: SHOP}, 902.5)
    assert pairs.meet("10.2.1.1", SHOP, 902.5, at=HERE) is not None and not pairs.room.summing


def test_one_source_ends_at_its_share_and_others_behind_its_port_do_not() -> None:
    pairs = Pairs(PairBudget(100, 0.75, 0.1), 60.0, 900.0)
    every = [VirtualIp(f"10.0.1.{number}", f"v{number}", 0, ()) for number in range(50)]
    met = [pairs.meet("10.2.0.1", one, 1.0, at=HERE) is not None for one in every]
    assert met == [number < 10 for number in range(50)]
    assert pairs.room.crowded == {"10.2.0.1"} and pairs.room.summing and not pairs.room.overfull
    # Pairs that were there stay; whoever else is behind the same port has room.
    assert pairs.meet("10.2.0.1", every[0], 2.0, at=HERE) is not None
    assert all(pairs.meet(f"10.2.1.{number}", SHOP, 2.0, at=HERE) for number in range(40))
    pairs.refresh({one.address: one for one in (*every, SHOP)}, 901.5)
    assert pairs.meet("10.2.0.1", every[49], 901.5, at=HERE) is not None and not pairs.room.summing


def test_invented_macs_end_at_the_port_s_budget_and_known_ones_may_move_there() -> None:
    hosts = HostTable()
    for number in range(MAX_AT_PORT + 50):
        hosts.learn(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", None, HERE, 0.0)
    assert len(hosts) == MAX_AT_PORT
    assert hosts.learn("02:99:00:00:00:01", None, THERE, 0.0) is LearnResult.NEW
    assert hosts.learn("02:99:00:00:00:01", None, HERE, 1.0) is LearnResult.MOVED
    hosts.leave(HERE)
    assert hosts.learn("02:99:00:00:00:02", None, HERE, 2.0) is LearnResult.NEW


def to_shop(speaker: str, source: str) -> Packet:
    """A packet of one machine in the name of another."""
    return Packet(mac(speaker), virtual_mac(VIP), ETH_IPV4, ip_src=address(source), ip_dst=VIP)


def test_a_source_is_bound_to_where_it_was_seen() -> None:
    world = World()
    world.start()
    assert world.send("c2", to_shop("c2", "c1")) == []
    assert world.alarms.counts["spoofed_source"] == 1
    assert world.network.services.pairs.of_addresses(address("c1"), VIP) is None
    assert [name for name, _ in world.send("c1", to_shop("c1", "c1"))] == ["s1"]
    assert world.alarms.counts["spoofed_source"] == 1


def claim(world: World, speaker: str, of: str, at: PortId) -> None:
    body = Arp(frames.REQUEST, mac(speaker), address(of), mac(speaker), address(of))
    world.react(world.network.packet_in(at, frames.arp(body, mac(speaker), frames.BROADCAST), world.now))


def test_a_declared_address_is_nobody_else_s_and_a_learnt_one_is_not_taken_silently() -> None:
    world = World()
    world.start()
    claim(world, "c2", "c1", HOSTS["c2"])
    held = world.network.topology.hosts.of_address(address("c1"))
    assert held is not None and held.mac == mac("c1") and world.alarms.counts["address_taken"] == 1
    # Nobody declared these two.
    claim(world, "x1", "x9", HOSTS["s1"])
    assert world.alarms.counts["address_taken"] == 1
    claim(world, "x2", "x9", HOSTS["s2"])
    assert world.alarms.counts["address_taken"] == 2
    # The same machine in another place is a move.
    claim(world, "c1", "c1", HOSTS["s2"])
    assert world.alarms.counts["address_taken"] == 2


def test_a_frame_that_is_relayed_makes_no_link_where_links_are_declared() -> None:
    world = World()
    world.start()
    network = world.network
    frame = network.topology.signer.frame(PortId(0x11, 11), world.now)
    before = network.topology.links.links()
    world.react(network.packet_in(HOSTS["s1"], frame, world.now))
    assert world.alarms.counts["relayed_lldp"] == 1 and network.topology.links.links() == before
