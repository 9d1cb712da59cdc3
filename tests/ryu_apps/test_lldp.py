"""LLDP: only what this very process has sent a moment ago counts, once, and only where it can have come from."""

import struct

from hypothesis import given
from hypothesis import strategies as st
from simulated import HOSTS, World, mac

from ryu_apps.effects import PacketOut
from ryu_apps.rules import ETH_LLDP, PortId
from ryu_apps.topology import frames
from ryu_apps.topology.links import FORGET_S, Role
from ryu_apps.topology.lldp import LIFE_S, LldpSigner, Verdict

A, B, C = PortId(1, 1), PortId(2, 1), PortId(3, 1)
ports = st.builds(PortId, st.integers(0, 2**64 - 1), st.integers(1, 0xFFFFFF00))


@given(ports, ports, st.floats(0, LIFE_S))
def test_a_frame_tells_who_sent_it_once(sender: PortId, at: PortId, delay_s: float) -> None:
    made = LldpSigner()
    data = made.frame(sender, 1000.0)
    parsed = frames.parse(data)
    assert parsed is not None
    assert parsed.eth_type == ETH_LLDP
    assert len(data) >= 60
    first, again = made.hear(at, data, 1000.0 + delay_s), made.hear(at, data, 1000.0 + delay_s)
    assert (first.verdict, first.sender) == (Verdict.TRUE, sender)
    assert again.verdict is Verdict.RELAYED


@given(st.integers(14, 130), st.integers(1, 255))
def test_no_changed_byte_makes_it_come_from_elsewhere(place: int, change: int) -> None:
    made = LldpSigner()
    data = bytearray(made.frame(A, 1000.0))
    end = data.index(b"forepath") + len(b"forepath") + 48
    data[place % end if place % end >= 14 else 14] ^= change
    heard = made.hear(B, bytes(data), 1000.0)
    assert heard.verdict is not Verdict.TRUE or heard.sender == A


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    made = LldpSigner()
    assert made.hear(A, data, 0.0).verdict is not Verdict.TRUE
    assert made.hear(A, made.frame(B, 0.0)[:40] + data, 0.0).verdict is not Verdict.TRUE


def test_another_process_late_frames_and_a_second_place_are_not_believed() -> None:
    made, other = LldpSigner(), LldpSigner()
    assert made.hear(B, other.frame(A, 0.0), 0.0).verdict is Verdict.FORGED
    late = made.frame(A, 0.0)
    assert made.hear(B, late, LIFE_S + 1).verdict is Verdict.FOREIGN
    heard = made.frame(A, 20.0)
    assert made.hear(B, heard, 20.0).verdict is Verdict.TRUE
    assert made.hear(B, heard, 21.0 + LIFE_S).verdict is Verdict.RELAYED
    made.frame(A, 200.0)
    assert made.hear(B, late, 200.0).verdict is Verdict.RELAYED
    data = made.frame(A, 250.0)
    assert made.hear(B, data, 250.0).verdict is Verdict.TRUE
    assert made.hear(C, data, 250.0).verdict is Verdict.RELAYED


def test_lldp_of_other_devices_is_none_of_our_business() -> None:
    chassis = b"\x04" + bytes(6)
    body = struct.pack("!H", 1 << 9 | len(chassis)) + chassis + struct.pack("!H", 0)
    data = bytes.fromhex("0180c200000e") + bytes(6) + ETH_LLDP.to_bytes(2, "big") + body
    assert LldpSigner().hear(A, data, 0.0).verdict is Verdict.FOREIGN


def test_the_key_is_never_shown() -> None:
    made = LldpSigner()
    assert repr(made.key)[2:-1] not in repr(made)
    assert made.key not in made.frame(A, 0.0)


# ---- in a network with declared links


def started() -> World:
    world = World()
    world.start()
    return world


def kinds(world: World) -> list[tuple[str, str]]:
    return [(one.kind, one.key) for one in world.alarms.news(world.now) if one.cleared_at is None]


def test_a_declared_link_is_confirmed() -> None:
    world = started()
    at, peer = PortId(0x11, 1), PortId(0x21, 1)
    world.react(world.network.packet_in(at, world.network.topology.signer.frame(peer, world.now), world.now))
    assert world.network.topology.links.peer(at) == peer
    assert kinds(world) == []


def test_nothing_is_invented_where_links_are_declared_and_the_port_is_no_place_for_hosts_meanwhile() -> None:
    world = started()
    at, other = HOSTS["c2"], PortId(0x13, 30)
    world.network.topology.port_changed(other, True, world.now)
    links = world.network.topology.links.links()
    world.react(world.network.packet_in(at, world.network.topology.signer.frame(other, world.now), world.now))
    assert world.network.topology.links.links() == links
    assert world.network.topology.links.role(at, world.now) is Role.SUSPECT
    assert world.network.topology.hosts.of_mac(mac("c2")) is None
    assert kinds(world) == [("relayed_lldp", "leaf1:12")]
    world.now += FORGET_S + 1
    world.network.tick(world.now)
    world.speak("c2")
    assert world.network.topology.hosts.of_mac(mac("c2")) is not None


def test_a_frame_from_elsewhere_takes_a_declared_link_out_of_use_until_the_right_one_comes() -> None:
    world = started()
    at, right, wrong = PortId(0x11, 1), PortId(0x21, 1), PortId(0x22, 1)

    def up() -> bool:
        return next(up for a, b, up in world.network.topology.links.links() if at in (a, b))

    world.react(world.network.packet_in(at, world.network.topology.signer.frame(wrong, world.now), world.now))
    assert not up()
    assert world.network.topology.links.peer(at) == right
    assert ("relayed_lldp", "leaf1:1") in kinds(world)
    world.react(world.network.packet_in(at, world.network.topology.signer.frame(right, world.now), world.now))
    assert up()


def test_a_forged_frame_changes_nothing_and_is_counted_and_told() -> None:
    world = started()
    for _ in range(3):
        world.react(world.network.packet_in(HOSTS["c1"], LldpSigner().frame(PortId(0x21, 1), world.now), world.now))
    assert world.network.topology.links.role(HOSTS["c1"], world.now) is Role.EDGE
    (alarm,) = world.alarms.news(world.now)
    assert (alarm.kind, alarm.key, alarm.node, alarm.count) == ("forged_lldp", "leaf1:11", "leaf1", 3)
    assert world.alarms.tallies() == {("alarm", "forged_lldp"): 3}
    (cleared,) = world.alarms.news(world.now + 100)
    assert cleared.cleared_at is not None


def test_frames_are_never_sent_to_declared_machines() -> None:
    world = started()
    world.network.topology.links.declare(world.network.topology.links.declared, {HOSTS["c1"]})
    effects = world.network.topology.switch_up(0x11, {1: True, 11: True, 12: True}, world.now)
    world.now += 10
    effects += world.network.tick(world.now)
    ours = [one for one in effects if isinstance(one, PacketOut) and b"forepath" in one.data]
    sent = {(one.dpid, port) for one in ours for port in one.ports}
    assert (0x11, 1) in sent
    assert (0x11, 12) in sent
    assert tuple(HOSTS["c1"]) not in sent


# ---- in a network without


def test_links_are_found_where_none_is_declared() -> None:
    world = started()
    world.network.topology.links.declare({}, ())
    at, other = PortId(0x11, 12), PortId(0x13, 30)
    world.network.topology.port_changed(other, True, world.now)
    world.react(world.network.packet_in(at, world.network.topology.signer.frame(other, world.now), world.now))
    assert world.network.topology.links.peer(at) == other
    assert world.network.topology.links.role(at, world.now) is Role.SWITCH
