"""One contract for the fake switch and for Open vSwitch: the same changes and packets, the same counters and errors."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from cpdb import Destination
from ryu_apps.effects import (
    AddGroup,
    AddMeter,
    Change,
    DeleteGroup,
    DeleteMeter,
    DeleteRule,
    ModifyGroup,
    ModifyMeter,
    PutRule,
)
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.groups import FIRST_GROUP, failover
from ryu_apps.guest import Guest
from ryu_apps.openflow import (
    MultipartKind,
    Phase,
    check,
    decode_flow_stats,
    decode_groups,
    decode_meters,
    decode_rules,
    encode_barrier,
    encode_change,
    encode_request,
    encode_resubmit,
)
from ryu_apps.pipeline import PairShare, PlacingShare, Rewrite, Share, desired
from ryu_apps.policers import Policer
from ryu_apps.rules import (
    GroupBucket,
    GroupKind,
    Kind,
    Match,
    Meter,
    Output,
    Rule,
    SetField,
    SwitchGroup,
    Table,
    ToGroup,
    cookie,
    is_ours,
    pair_number,
    virtual_mac,
)
from ryu_apps.services.buckets import BucketPlacement, divide_buckets
from ryu_apps.services.pairs import sum_number

VIP, CLIENT, SERVER = "10.0.0.100", "10.0.0.1", "10.0.0.11"
MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:11"
FIRST = 60_000
BRIDGE = "contract"
OTHER_VIP = "10.0.0.101"


class Switch(Protocol):
    """What the contract needs of a switch."""

    def apply(self, changes: list[Change]) -> list[str]: ...
    def rules(self) -> list[Rule]: ...
    def meters(self) -> list[Meter]: ...
    def groups(self) -> list[SwitchGroup]: ...
    def counts(self) -> dict[int, int]: ...
    def receive(self, packet: Packet, in_port: int) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def now(self) -> float: ...


class Fake:
    """The fake in virtual time."""

    def __init__(self) -> None:
        self._switch, self._now = FakeSwitch(1, frozenset({1, 2, 3})), 1000.0

    def apply(self, changes: list[Change]) -> list[str]:
        return self._switch.apply(changes, self._now)

    def rules(self) -> list[Rule]:
        return self._switch.rules(self._now)

    def meters(self) -> list[Meter]:
        return self._switch.meters()

    def groups(self) -> list[SwitchGroup]:
        return self._switch.groups()

    def counts(self) -> dict[int, int]:
        return {one.cookie: one.packets for one in self._switch.samples(self._now)}

    def receive(self, packet: Packet, in_port: int) -> None:
        self._switch.receive(packet, in_port, self._now)

    def wait(self, seconds: float) -> None:
        self._now += seconds

    def now(self) -> float:
        return self._now


class Real:
    """Open vSwitch, spoken to in OpenFlow through the bridge's own socket with our translation."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(f"/run/openvswitch/{BRIDGE}.mgmt")
        self._xid = 0
        self._socket.sendall(struct.pack("!BBHI", 4, 0, 8, 0))
        self._take()

    def close(self) -> None:
        self._socket.close()

    def _next(self) -> int:
        self._xid += 1
        return self._xid

    def _take(self) -> tuple[int, int, bytes]:
        head = self._exactly(8)
        _, kind, length, xid = struct.unpack("!BBHI", head)
        return kind, xid, head + self._exactly(length - 8)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._socket.recv(size - len(data))
        return data

    def _ask(self, kind: MultipartKind) -> bytes:
        """All entries of the answer, which was checked."""
        self._socket.sendall(encode_request(kind, self._next()))
        found = b""
        while True:
            answer, _xid, data = self._take()
            if answer != 19:
                continue
            check(data, Phase.OPEN)
            found += data[16:]
            if not data[11] & 1:
                return found

    def _barrier(self) -> list[str]:
        end, errors = self._next(), []
        self._socket.sendall(encode_barrier(end))
        while True:
            kind, xid, data = self._take()
            if kind == 1:
                errors.append(str(struct.unpack_from("!HH", data, 8)))
            if xid == end:
                return errors

    def apply(self, changes: list[Change]) -> list[str]:
        for change in changes:
            self._socket.sendall(encode_change(change, self.now(), self._next()))
        return self._barrier()

    def rules(self) -> list[Rule]:
        return list(decode_rules(self._ask(MultipartKind.FLOWS), self.now()))

    def meters(self) -> list[Meter]:
        return list(decode_meters(self._ask(MultipartKind.METERS)))

    def groups(self) -> list[SwitchGroup]:
        return list(decode_groups(self._ask(MultipartKind.GROUPS)))

    def counts(self) -> dict[int, int]:
        # The datapath's counters are collected about once a second.
        time.sleep(1.5)
        columns = decode_flow_stats(self._ask(MultipartKind.FLOWS))
        return dict(zip(columns.cookie, columns.packets, strict=True))

    def receive(self, packet: Packet, in_port: int) -> None:
        self._socket.sendall(encode_resubmit(in_port, wire_format(packet), self._next()))
        self._barrier()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def now(self) -> float:
        return time.time()


def wire_format(packet: Packet) -> bytes:
    """The packet as bytes: Ethernet, IPv4, TCP or UDP."""
    flags = sum({"S": 2, "A": 16}[letter] for letter in packet.transport.flags)
    body = struct.pack("!HHIIBBHHH", 1000, 80, 0, 0, 5 << 4, flags, 100, 0, 0)
    ends = socket.inet_aton(packet.ip_src or "") + socket.inet_aton(packet.ip_dst or "")
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, packet.ip_proto or 17, 0) + ends
    macs = bytes.fromhex((packet.eth_dst + packet.eth_src).replace(":", ""))
    return macs + packet.eth_type.to_bytes(2, "big") + head + body


def _sh(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


@pytest.fixture
def real() -> Iterator[Real]:
    from tools.lab.switches import start_daemons

    start_daemons()
    _sh("ovs-vsctl", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "protocols=OpenFlow13")
    try:
        _sh("ovs-vsctl", "set-fail-mode", BRIDGE, "secure")
        for port in ("1", "2", "3"):
            _sh("ip", "link", "add", f"ct{port}", "type", "veth", "peer", "name", f"ctp{port}")
            _sh("ip", "link", "set", f"ct{port}", "up")
            request = f"ofport_request={port}"
            _sh("ovs-vsctl", "add-port", BRIDGE, f"ct{port}", "--", "set", "interface", f"ct{port}", request)
        connection = Real()
        yield connection
        connection.close()
    finally:
        _sh("ovs-vsctl", "del-br", BRIDGE)
        for port in ("1", "2", "3"):
            subprocess.run(["ip", "link", "del", f"ct{port}"], capture_output=True, check=False)


@pytest.fixture(
    params=[
        "fake",
        pytest.param(
            "real",
            marks=pytest.mark.lab,
        ),
    ]
)
def switch(request: pytest.FixtureRequest) -> Switch:
    return Fake() if request.param == "fake" else request.getfixturevalue("real")


def timeless(rules: list[Rule]) -> dict[object, Rule]:
    return {rule.key: replace(rule, lease_until=None) for rule in rules}


def whole(now: float) -> tuple[list[Meter], list[Rule]]:
    steer = Rewrite(CLIENT, VIP, SERVER, SERVER_MAC)
    police = Policer(CLIENT, VIP, now + 60.0, 1000, 46)
    ports = {MAC: 1, SERVER_MAC: 2}
    wanted = desired(
        Share((VIP,), ports, PairShare(((CLIENT, VIP),), (steer,), (steer,)), (police,)), {police.number: FIRST}
    )
    return list(wanted.meters.values()), list(wanted.rules.values())


def placement_rules(first: int, second: int) -> list[Rule]:
    """A virtual IP whose connections are placed one by one, with these weights."""
    behind = (Destination("s1", SERVER, SERVER_MAC, first), Destination("s2", CLIENT, MAC, second))
    spread = BucketPlacement(OTHER_VIP, behind, divide_buckets({one.name: one.weight for one in behind}))
    ports = {MAC: 1, SERVER_MAC: 2}
    # Who has port 2 is stood in for while that is down.
    share = Share((OTHER_VIP,), ports, placing=PlacingShare((spread,), asked=(OTHER_VIP,), attached={SERVER_MAC: 2}))
    return list(desired(share, {}).rules.values())


def test_what_belongs_to_no_pair_is_counted_in_a_sum(switch: Switch) -> None:
    share = Share((VIP,), {MAC: 1, SERVER_MAC: 2}, PairShare(((CLIENT, VIP),)), placing=PlacingShare(sums_at=1))
    assert switch.apply(list(map(PutRule, desired(share, {}).rules.values()))) == []
    for source, flags in ((CLIENT, "S"), (CLIENT, "A"), ("10.0.0.8", "S"), ("10.0.0.9", "S"), ("10.0.0.9", "A")):
        transport = Transport(1000, 80, flags)
        switch.receive(Packet(MAC, SERVER_MAC, ip_src=source, ip_dst=VIP, ip_proto=6, transport=transport), 3)
    counts = switch.counts()
    of_sum, of_pair = sum_number(1, VIP), pair_number(CLIENT, VIP)
    found = {
        (number, kind): counts[cookie(Table.ACCOUNT, kind, number)]
        for number in (of_sum, of_pair)
        for kind in (Kind.PAIR, Kind.PAIR_SYN)
    }
    assert found == {
        (of_sum, Kind.PAIR): 1, (of_sum, Kind.PAIR_SYN): 2, (of_pair, Kind.PAIR): 1, (of_pair, Kind.PAIR_SYN): 1,
    }  # fmt: skip


def test_rules_that_place_connections_are_accepted_and_read_back(switch: Switch) -> None:
    for weights in ((100, 100), (300, 100), (7, 3)):
        rules = placement_rules(*weights)
        assert switch.apply(list(map(PutRule, rules))) == []
        held = timeless([rule for rule in switch.rules() if is_ours(rule.cookie)])
        assert {key: held.get(key) for key in timeless(rules)} == timeless(rules)


def test_connections_are_placed_kept_and_forgotten_alike(switch: Switch) -> None:
    switch.apply(list(map(PutRule, placement_rules(100, 100))))
    opening = Packet(
        MAC,
        "f2:ea:0a:00:00:65",
        ip_src="10.0.0.9",
        ip_dst=OTHER_VIP,
        ip_proto=6,
        transport=Transport(1000, 80, "S"),
    )
    for _ in range(3):
        switch.receive(opening, 3)
    # The first packet is placed; the others are known.
    assert placed(switch) == 1
    first, second = placement_rules(100, 0), placement_rules(0, 100)
    gone = {rule.key for rule in placement_rules(100, 100)} - {rule.key for rule in first}
    # All weight goes to one, then to the other: the connection is not placed again.
    for rules in (first, second):
        switch.apply([*map(PutRule, rules)])
        switch.receive(opening, 3)
        assert placed(switch) == 0
    # Whoever loses its rules loses its connections.
    served = [rule for rule in placement_rules(100, 100) if rule.table == Table.SERVE]
    switch.apply([DeleteRule(rule) for rule in placement_rules(100, 100) if rule.key in gone or rule in served])
    switch.apply(list(map(PutRule, placement_rules(0, 100))))
    switch.receive(opening, 3)
    assert placed(switch) == 1


def placed(switch: Switch) -> int:
    """Packets whose connection was unknown."""
    counts = switch.counts()
    serve = Table.SERVE << 44 | Kind.SPREAD << 40
    return sum(count for value, count in counts.items() if value >> 48 == 0xF0EA and value & 0xFF << 40 == serve)


def test_everything_we_ever_send_is_accepted_and_read_back_as_it_was(switch: Switch) -> None:
    meters, rules = whole(switch.now())
    assert switch.apply([*map(AddMeter, meters), *map(PutRule, rules)]) == []
    assert timeless(switch.rules()) == timeless(rules)
    assert switch.meters() == meters
    leases = [rule.lease_until - switch.now() for rule in switch.rules() if rule.lease_until is not None]
    assert len(leases) == 1
    assert 57 < leases[0] < 62


def test_packets_are_counted_by_the_same_rules(switch: Switch) -> None:
    meters, rules = whole(switch.now())
    switch.apply([*map(AddMeter, meters), *map(PutRule, rules)])
    to_vip = Packet(MAC, "f2:ea:0a:00:00:64", ip_src=CLIENT, ip_dst=VIP, ip_proto=6, transport=Transport(flags="S"))
    back = Packet(SERVER_MAC, MAC, ip_src=SERVER, ip_dst=CLIENT, ip_proto=6, transport=Transport(flags="SA"))
    later = replace(to_vip, transport=Transport(flags="A"))
    for packet, in_port in ((to_vip, 1), (later, 1), (later, 1), (back, 2)):
        switch.receive(packet, in_port)
    counts = switch.counts()
    by_kind = {kind: sum(count for value, count in counts.items() if (value >> 40) & 0xF == kind) for kind in Kind}
    assert (by_kind[Kind.PAIR], by_kind[Kind.PAIR_SYN]) == (2, 1)
    assert (by_kind[Kind.LIMIT], by_kind[Kind.TO_DESTINATION], by_kind[Kind.TO_CLIENT]) == (3, 3, 1)
    assert by_kind[Kind.HOST] == 4


def test_a_lease_ends_by_itself_and_a_renewal_starts_it_anew(switch: Switch) -> None:
    match = Match(eth_dst=MAC)
    rule = Rule(3, 10, match, (Output(1),), cookie=cookie(Table.FORWARD, Kind.LIMIT), lease_until=switch.now() + 2)
    switch.apply([PutRule(rule)])
    switch.wait(1.2)
    switch.apply([PutRule(replace(rule, lease_until=switch.now() + 3))])
    switch.wait(1.5)
    assert [one.key for one in switch.rules()] == [rule.key]
    switch.wait(3.0)
    assert switch.rules() == []


def test_only_our_own_rule_is_deleted(switch: Switch) -> None:
    ours = Rule(3, 10, Match(eth_dst=MAC), (Output(1),), cookie=cookie(Table.FORWARD, Kind.HOST))
    theirs = Rule(3, 10, Match(eth_dst=SERVER_MAC), (Output(1),), cookie=0x77)
    switch.apply([PutRule(ours), PutRule(theirs)])
    switch.apply([DeleteRule(ours), DeleteRule(replace(theirs, cookie=ours.cookie))])
    assert switch.rules() == [theirs]


def test_meters_are_refused_and_deleted_alike(switch: Switch) -> None:
    meter = Meter(FIRST, 1000, 500)
    limited = Rule(1, 10, Match(eth_dst=MAC), goto=2, meter=FIRST, cookie=cookie(Table.POLICER, Kind.LIMIT))
    assert len(switch.apply([PutRule(limited)])) == 1
    assert switch.apply([AddMeter(meter), PutRule(limited)]) == []
    assert len(switch.apply([AddMeter(meter)])) == 1
    assert switch.apply([ModifyMeter(replace(meter, rate_kbit_s=2000))]) == []
    assert [one.rate_kbit_s for one in switch.meters()] == [2000]
    assert len(switch.apply([ModifyMeter(replace(meter, number=FIRST + 1))])) == 1
    assert switch.apply([DeleteMeter(FIRST)]) == []
    assert switch.rules() == []


def test_a_new_rule_replaces_the_old_one_and_counts_from_zero(switch: Switch) -> None:
    rule = Rule(0, 10, Match(eth_dst=MAC), (SetField("ip_dscp", 10),), goto=1, cookie=cookie(Table.ACCOUNT, Kind.PAIR))
    rule = replace(rule, match=Match(eth_type=0x0800, eth_dst=MAC))
    switch.apply([PutRule(rule)])
    switch.receive(Packet(SERVER_MAC, MAC, ip_src=SERVER, ip_dst=CLIENT, ip_proto=6), 2)
    assert switch.counts() == {rule.cookie: 1}
    other = replace(rule, actions=(), cookie=rule.cookie + 1)
    switch.apply([PutRule(other)])
    assert switch.rules() == [other]
    assert switch.counts() == {other.cookie: 0}


def test_groups_are_read_back_as_they_were_refused_and_deleted_alike(switch: Switch) -> None:
    group = failover(1, 2)
    assert group is not None
    balanced = SwitchGroup(
        FIRST_GROUP + 7, GroupKind.SELECT, (GroupBucket((Output(1),), 3), GroupBucket((Output(2),), 1))
    )
    rule = Rule(3, 10, Match(eth_dst=MAC), (ToGroup(group.number),), cookie=cookie(Table.FORWARD, Kind.HOST))
    assert len(switch.apply([PutRule(rule)])) == 1
    assert len(switch.apply([ModifyGroup(group)])) == 1
    assert switch.apply([AddGroup(group), AddGroup(balanced), PutRule(rule)]) == []
    assert len(switch.apply([AddGroup(group)])) == 1
    assert sorted(switch.groups(), key=lambda one: one.number) == sorted([group, balanced], key=lambda one: one.number)
    assert switch.rules() == [rule]
    assert switch.apply([ModifyGroup(replace(group, buckets=group.buckets[::-1]))]) == []
    assert switch.groups()[0].buckets == group.buckets[::-1] or switch.groups()[1].buckets == group.buckets[::-1]
    assert switch.apply([DeleteGroup(group.number)]) == []
    assert [one.number for one in switch.groups()] == [balanced.number]
    assert switch.rules() == []


def test_a_guest_in_others_table_counts_and_steers_and_leaves_them_their_packets(switch: Switch) -> None:
    theirs = {0x77: Match(eth_dst=SERVER_MAC), 0x78: Match()}
    rules = [Rule(0, 0x78 - value, match, (Output(2),), cookie=value) for value, match in theirs.items()]
    assert switch.apply(list(map(PutRule, rules))) == []
    sent = [Packet("02:00:00:00:00:09", to, ip_src=CLIENT, ip_dst=address) for to, address in (
        (SERVER_MAC, SERVER), (virtual_mac(VIP), VIP), (MAC, "10.0.0.77"),
    )]  # fmt: skip
    for guest, expected in ((None, {0x77: 1, 0x78: 2}), (Guest(0), {0x77: 3, 0x78: 3})):
        if guest is not None:
            steer = Rewrite(CLIENT, VIP, SERVER, SERVER_MAC)
            own = desired(Share((VIP,), {}, PairShare(((CLIENT, VIP),), (steer,)), guest=guest), {}).rules
            assert switch.apply(list(map(PutRule, own.values()))) == []
            held = timeless(switch.rules())
            assert {key: held.get(key) for key in own} == timeless(list(own.values()))
        for packet in sent:
            switch.receive(packet, 3)
        counts = switch.counts()
        # What goes to the virtual IP is steered first: theirs see it on its way to the destination.
        assert {value: counts[value] for value in theirs} == expected
    assert counts[cookie(Table.ACCOUNT, Kind.PAIR, pair_number(CLIENT, VIP))] == 1
