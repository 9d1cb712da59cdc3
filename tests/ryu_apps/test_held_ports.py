"""A port that floods the controller is held: by the switch, and by us; nobody else notices, and a crowd is let go."""

from hypothesis import given
from hypothesis import strategies as st

from cpdb import Destination
from ryu_apps.fakes.fake_packets import ArpFields, Packet, Transport
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.held_ports import HELD_KBIT_S
from ryu_apps.pipeline import (
    FloodShare,
    PairShare,
    PlacingShare,
    Rewrite,
    Share,
    desired,
    limited_by,
    numbers_of_limits,
)
from ryu_apps.policers import allot_meters
from ryu_apps.rules import CONTROLLER, ETH_ARP, ETH_IPV4, PROTO_UDP, virtual_mac
from ryu_apps.services.buckets import BucketPlacement, divide_buckets
from ryu_apps.switch.flood_gate import HELD_PER_S, HOLD_S, FloodGate
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.topology.flooding import FloodPorts

FIRST, VIP, MAC, SERVER, SERVER_MAC = 60_000, "10.0.0.100", "02:00:00:00:00:01", "10.0.0.9", "02:00:00:00:00:09"
HELD, FREE, BEHIND = 12, 11, 1
ALL = "ff:ff:ff:ff:ff:ff"


def switch(held: tuple[int, ...] = (HELD,), placed: bool = False) -> FakeSwitch:
    """A switch with one known pair of the held port; what it is told from now on follows from what it holds."""
    made = FakeSwitch(1, frozenset((BEHIND, FREE, HELD)))
    hold(made, held, placed)
    return made


def hold(made: FakeSwitch, held: tuple[int, ...], placed: bool = False) -> None:
    steer = Rewrite("10.0.0.1", VIP, SERVER, SERVER_MAC)
    spread = BucketPlacement(VIP, (Destination("s", SERVER, SERVER_MAC, 1),), divide_buckets({"s": 1}))
    share = Share(
        (VIP,),
        {MAC: HELD, SERVER_MAC: BEHIND},
        PairShare((("10.0.0.1", VIP),), (steer,), (steer,)),
        placing=PlacingShare((spread,)) if placed else PlacingShare(),
        flood=FloodShare(FloodPorts((BEHIND,), (FREE, HELD)), {}, 10_000, held),
    )
    holding = Holding.read(made.rules(0.0), made.meters(), FIRST, made.groups())
    taken = {limited_by(one): one.meter for one in holding.rules.values() if one.meter is not None}
    assert None not in taken
    meters = allot_meters(numbers_of_limits(share), taken, FIRST)
    assert made.apply(difference(holding, desired(share, meters)), 0.0) == []


def to_vip(source: str) -> Packet:
    return Packet(MAC, virtual_mac(VIP), ETH_IPV4, source, VIP, PROTO_UDP, transport=Transport(1000, 80), size=60)


def ports(made: FakeSwitch, packet: Packet, port: int, now: float = 0.0) -> list[int]:
    return [out for out, _ in made.receive(packet, port, now)]


def test_invented_sources_meet_a_meter_and_those_of_other_ports_do_not() -> None:
    made = switch()
    asked = [ports(made, to_vip(f"11.0.{n >> 8}.{n & 255}"), HELD, n / 10_000) for n in range(20_000)]
    told = sum(one == [CONTROLLER] for one in asked)
    # Two seconds at the meter's rate, and its burst of 200 kbit
    assert 0 < told <= (2 * HELD_KBIT_S + 200) * 1000 / 8 / 60
    assert all(ports(made, to_vip(f"12.0.0.{n}"), FREE, 2.0) == [CONTROLLER] for n in range(200))
    assert ports(made, to_vip("10.0.0.1"), HELD, 2.0) == [BEHIND]


def test_whoever_is_carried_on_or_answered_is_so_untold() -> None:
    made, calm = switch(), switch(())
    question = Packet(MAC, ALL, ETH_ARP, arp=ArpFields(1, "10.0.0.1", VIP))
    hello = Packet("02:00:00:00:00:55", "33:33:00:00:00:fb", 0x86DD)
    unicast = Packet(MAC, SERVER_MAC, ETH_ARP, arp=ArpFields(2, "10.0.0.1", SERVER))
    for packet in (question, hello, unicast):
        without, told = ports(made, packet, HELD), ports(calm, packet, HELD)
        assert CONTROLLER in told and without == [port for port in told if port != CONTROLLER] != []
        assert CONTROLLER in ports(made, packet, FREE)


def test_where_the_switch_places_connections_a_held_port_gets_no_new_ones_and_keeps_its_own() -> None:
    made = switch((), placed=True)
    assert BEHIND in ports(made, to_vip("11.0.0.1"), HELD)
    hold(made, (HELD,), placed=True)
    assert ports(made, to_vip("11.0.0.1"), HELD) == [BEHIND]
    assert ports(made, to_vip("11.0.0.2"), HELD) == []
    assert BEHIND in ports(made, to_vip("12.0.0.1"), FREE)
    hold(made, (), placed=True)
    assert BEHIND in ports(made, to_vip("11.0.0.2"), HELD)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 400)), max_size=12))
def test_other_ports_are_admitted_whatever_a_held_one_sends(bursts: list[tuple[int, int]]) -> None:
    gate, now = FloodGate(), 0.0
    for wait, frames in bursts:
        now += wait
        assert all(gate.admits(2, False, 100.0, now) for _ in range(50))
        admitted = sum(gate.admits(1, False, 100.0, now) for _ in range(frames))
        assert admitted <= 100 + HELD_PER_S and (1 in gate.held or admitted == frames)
        assert gate.admits(1, True, 100.0, now)
        gate.release(now)
    assert gate.held <= {1}


def test_a_flood_holds_its_port_until_it_ends_and_a_crowd_that_asks_again_does_not() -> None:
    def held_after(frames_per_s: int) -> bool:
        gate = FloodGate()
        assert not all(gate.admits(1, False, 100.0, 0.0) for _ in range(500))
        for step in range(300):
            now = 0.1 * step
            for _ in range(frames_per_s // 10):
                gate.admits(1, False, 100.0, now)
            gate.release(now)
            assert (1 in gate.held) or now >= HOLD_S
        return 1 in gate.held

    assert held_after(200)
    assert not held_after(30)
