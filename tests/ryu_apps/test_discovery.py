"""Ports: what leads to a switch never counts as a place for hosts."""

from ryu_apps.rules import PortId
from ryu_apps.topology.links import FORGET_S, SETTLE_S, LinkTable, Role

A, B, EDGE = PortId(1, 1), PortId(2, 1), PortId(1, 9)


def wiring() -> LinkTable:
    made = LinkTable()
    made.set_ports(1, {1: True, 9: True}, 0.0)
    made.set_ports(2, {1: True}, 0.0)
    return made


def test_a_new_port_is_unknown_until_lldp_had_time() -> None:
    made = wiring()
    assert made.role(EDGE, SETTLE_S / 2) is Role.UNKNOWN
    assert made.role(EDGE, SETTLE_S) is Role.EDGE
    assert made.role(PortId(1, 77), 10.0) is Role.DOWN


def test_declared_links_count_at_once_and_what_is_heard_cannot_overrule_them() -> None:
    made = wiring()
    assert made.declare({A: B, B: A}, {EDGE})
    assert not made.declare({A: B, B: A}, {EDGE})
    assert made.role(A, 0.0) is Role.SWITCH
    assert made.role(EDGE, 0.0) is Role.EDGE
    assert made.links() == [(A, B, True)]
    assert made.doubt(A, B) is None
    assert made.doubt(A, PortId(2, 5)) == "a link to another port is declared"
    assert made.doubt(PortId(1, 5), PortId(7, 5)) == "no such link is declared"
    assert made.doubt(EDGE, PortId(7, 5)) == "a machine is declared at one end"
    assert made.doubt(PortId(6, 5), PortId(7, 5)) is None
    assert made.suspect(A, 1.0)
    assert not made.suspect(EDGE, 1.0)
    assert made.links() == [(A, B, False)]
    assert made.hear(A, B, 2.0)
    assert made.links() == [(A, B, True)]


def test_hearing_the_declared_neighbour_is_no_news() -> None:
    made = wiring()
    made.declare({A: B, B: A}, set())
    assert not made.hear(A, B, 1.0)
    assert wiring().hear(EDGE, PortId(2, 7), 1.0)


def test_a_link_is_down_when_either_end_is() -> None:
    made = wiring()
    made.hear(A, B, 1.0)
    assert made.links() == [(A, B, True)]
    assert made.set_port(B, False, 2.0)
    assert not made.set_port(B, False, 2.0)
    assert made.links() == [(A, B, False)]
    made.set_ports(2, {}, 3.0)
    assert made.links() == []


def test_silence_ends_a_heard_link_only_while_both_switches_could_speak() -> None:
    made = wiring()
    made.hear(A, B, 0.0)
    assert not made.age({1}, FORGET_S + 1)
    assert made.role(A, FORGET_S + 1) is Role.SWITCH
    assert made.age({1, 2}, FORGET_S + 1)
    assert made.role(A, FORGET_S + 1) is Role.UNKNOWN
    assert made.role(A, FORGET_S + 1 + SETTLE_S) is Role.EDGE


def test_a_doubt_lasts_its_time_and_no_longer() -> None:
    made = wiring()
    assert made.suspect(EDGE, 0.0)
    assert not made.age({1, 2}, FORGET_S)
    assert made.role(EDGE, FORGET_S) is Role.SUSPECT
    assert made.age({1, 2}, FORGET_S + 0.1)
    assert made.role(EDGE, FORGET_S + SETTLE_S) is Role.EDGE


def test_edges_are_all_ports_with_room_for_hosts() -> None:
    made = wiring()
    made.hear(A, B, 0.0)
    made.hear(B, A, 0.0)
    assert made.edges(5.0) == [EDGE]


def test_a_link_is_as_fast_as_its_slower_port_says() -> None:
    made = wiring()
    assert made.speed(A, B) is None
    made.speeds[A] = 125e6
    assert made.speed(A, B) == 125e6
    made.speeds[B] = 12.5e6
    assert made.speed(A, B) == made.speed(B, A) == 12.5e6
