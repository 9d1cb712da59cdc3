"""A fake switch that speaks OpenFlow on a real connection, with hosts on its ports: to test the whole controller."""

import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from socket import inet_aton, inet_ntoa
from typing import Any

from ryu_apps.effects import AddGroup, AddMeter, Change, DeleteGroup, DeleteMeter, DeleteRule, ModifyGroup, PutRule
from ryu_apps.fakes.fake_packets import ArpFields, Packet, Transport
from ryu_apps.fakes.fake_profiles import SwitchProfile
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.framework import ofproto
from ryu_apps.openflow import decode_groups, decode_match, decode_meters, encode_match
from ryu_apps.openflow.actions import decode_instructions, encode_instructions
from ryu_apps.openflow.walks import padded
from ryu_apps.rules import CONTROLLER, ETH_ARP, ETH_IPV4, Match, Rule
from tools.bench.replayed_switch import ReplayedSwitch, message

ERROR, PACKET_IN, PACKET_OUT, FLOW_MOD, GROUP_MOD, METER_MOD, MULTIPART_REPLY = 1, 10, 13, 14, 15, 29, 19
# With each frame a host sends so many others, which no entry of ours counts.
OTHERS = 50
_TO_TABLES = 0xFFFFFFF9
_FLOW = struct.Struct("!QQBBHHHIIIH2x")


class SpokenSwitch(ReplayedSwitch):
    """`hosts`: port -> (address, MAC). What they get is in `got`, as (port, packet); they answer ARP."""

    def __init__(self, port: int, dpid: int, profile: SwitchProfile, hosts: dict[int, tuple[str, str]]) -> None:
        self.switch, self.hosts = FakeSwitch(dpid, frozenset(hosts), profile), hosts
        self.got: list[tuple[int, Packet]] = []
        self.changes = 0
        self._counted = dict.fromkeys(hosts, 0)
        self._lock = threading.RLock()
        super().__init__(port, dpid, 0)

    def serve(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(65536):
                self._rest += data
                while len(self._rest) >= 8 and len(self._rest) >= (size := int.from_bytes(self._rest[2:4])):
                    whole, self._rest = self._rest[:size], self._rest[size:]
                    if answer := self.answer(whole[1], int.from_bytes(whole[4:8]), whole[8:]):
                        self._tell(answer)

    def _tell(self, data: bytes) -> None:
        with self._lock, suppress(OSError):
            self._socket.sendall(data)

    def answer(self, kind: int, xid: int, body: bytes) -> bytes:
        with self._lock:
            profile = self.switch.profile
            if kind == 5:
                return message(6, xid, struct.pack("!QIBBxxII", self.switch.dpid, 0, profile.tables, 0, 7, 0))
            if kind in (FLOW_MOD, GROUP_MOD, METER_MOD):
                self.changes += 1
                if profile.changes_per_s:
                    time.sleep(1 / profile.changes_per_s)
                refused = self.switch.apply(_change(kind, body), time.time())
                return _errors(refused, xid, message(kind, xid, body))
            if kind == PACKET_OUT:
                self._out(body)
                return b""
            return self._asked(xid, body) if kind == 18 else super().answer(kind, xid, body)

    # ---- frames

    def say(self, port: int, frame: bytes) -> None:
        """A host sends a frame."""
        with self._lock:
            self._counted[port] += OTHERS
            self._carry(port, frame)

    def _carry(self, in_port: int, frame: bytes) -> None:
        for port, copy in self.switch.receive(read_frame(frame), in_port, time.time()):
            if port == CONTROLLER:
                match = encode_match(Match(in_port=in_port))
                head = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), 0, 0, self.switch.asked_by)
                self._tell(message(PACKET_IN, 0, head + match + b"\0\0" + frame))
            else:
                self._deliver(port, copy)

    def _out(self, body: bytes) -> None:
        _, in_port, size = struct.unpack_from("!IIH", body)
        frame, at = body[16 + size :], 16
        while at < 16 + size:
            (out,) = struct.unpack_from("!I", body, at + 4)
            at += 16
            if out == _TO_TABLES:
                self._carry(in_port, frame)
            else:
                self._deliver(out, read_frame(frame))

    def _deliver(self, port: int, packet: Packet) -> None:
        if port not in self.hosts:
            return
        self.got.append((port, packet))
        address, mac = self.hosts[port]
        if packet.arp is not None and packet.arp.op == 1 and packet.arp.target == address and packet.eth_src != mac:
            sender = packet.arp.sender or "0.0.0.0"
            threading.Timer(0.01, self.say, (port, arp_frame(2, (address, mac), sender, packet.eth_src))).start()

    # ---- questions

    def _asked(self, xid: int, body: bytes) -> bytes:
        kind = int.from_bytes(body[:2])
        profile, now = self.switch.profile, time.time()
        tables = range(min(profile.tables, 254))
        if kind == 1:
            return self._reply(kind, xid, _entries(self.switch, _FILTER(body, 8), now))
        if kind == 2:
            packets = sum(one.packets for one in self.switch.samples(now))
            return self._reply(kind, xid, struct.pack("!QQI4x", packets & 2**64 - 1, 0, 9))
        if kind == 3:
            return self._reply(kind, xid, b"".join(struct.pack("!B3xIQQ", table, 0, 0, 0) for table in tables))
        if kind == 4:
            ports = (_port_counters(port, self._counted[port]) for port in self.hosts)
            return self._reply(kind, xid, b"".join(ports))
        if kind == 8 and profile.has_groups:
            return self._reply(kind, xid, struct.pack("!II", 0xF, 0) + bytes(32))
        if kind == 11 and profile.max_meters:
            return self._reply(kind, xid, struct.pack("!IIIBB2x", profile.max_meters, 2, 0xF, 1, 0))
        if kind == 12 and profile.says_max_entries:
            return self._reply(
                kind, xid, b"".join(_table_features(table, profile.max_entries.get(table, 1000)) for table in tables)
            )
        if kind in (7, 10):
            return self._reply(kind, xid, b"")
        if kind == 13:
            ports = (struct.pack("!I4x6s2x16s8I", port, bytes(6), b"p", *[0] * 8) for port in self.hosts)
            return self._reply(kind, xid, b"".join(ports))
        return message(ERROR, xid, struct.pack("!HH", 1, 2) + message(18, xid, body)[:64])

    def _reply(self, kind: int, xid: int, body: bytes) -> bytes:
        return message(MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 0) + body)


def _port_counters(port: int, received: int) -> bytes:
    return struct.pack("!I4x12Q2I", port, received, 0, received * 100, 0, *[0] * 8, 100, 0)


def _table_features(table: int, entries: int) -> bytes:
    return struct.pack("!HB5x32sQQII", 64, table, b"t", 0, 0, 0, entries)


_FILTER = struct.Struct("!B3xII4xQQ").unpack_from


def _entries(switch: FakeSwitch, asked: tuple[Any, ...], now: float) -> bytes:
    table, _, _, cookie, mask = asked
    found = []
    for rule, sample in zip(switch.rules(now), switch.samples(now), strict=True):
        if table not in (0xFF, rule.table) or rule.cookie & mask != cookie & mask:
            continue
        body = encode_match(rule.match) + encode_instructions(rule.actions, rule.goto)
        age, hard = int(sample.age_s), 0 if rule.lease_until is None else int(rule.lease_until - now + sample.age_s)
        head = struct.pack(
            "!HBxIIHHHH4xQQQ", 48 + len(body), rule.table, age, int(sample.age_s % 1 * 1e9), rule.priority, 0, hard, 0,
            rule.cookie, sample.packets, sample.bytes,
        )  # fmt: skip
        found.append(head + body)
    return b"".join(found)


def _change(kind: int, body: bytes) -> list[Change]:
    if kind == METER_MOD:
        command, flags, number = struct.unpack_from("!HHI", body)
        if command == 2:
            return [DeleteMeter(number)]
        (meter,) = decode_meters(struct.pack("!HHI", len(body), flags, number) + body[8:])
        return [AddMeter(meter)]
    if kind == GROUP_MOD:
        command, group_kind, number = struct.unpack_from("!HBxI", body)
        if command == 2:
            return [DeleteGroup(number)]
        (group,) = decode_groups(struct.pack("!HBxI", len(body), group_kind, number) + body[8:])
        return [AddGroup(group) if command == 0 else ModifyGroup(group)]
    cookie, _, table, command, _, hard, priority, *_ = _FLOW.unpack_from(body)
    match = decode_match(body, _FLOW.size)
    after = _FLOW.size + padded(int.from_bytes(body[_FLOW.size + 2 : _FLOW.size + 4]))
    does = decode_instructions(body, after, len(body))
    lease = time.time() + hard if hard else None
    rule = Rule(table, priority, match, does.actions, does.goto, does.meter, cookie, lease)
    return [DeleteRule(rule) if command == 4 else PutRule(rule)]


def _errors(refused: Iterable[str], xid: int, sent: bytes) -> bytes:
    found = []
    for reason in refused:
        kind, code = (getattr(ofproto, word) for word in reason.split("/"))
        found.append(message(ERROR, xid, struct.pack("!HH", kind, code) + sent[:64]))
    return b"".join(found)


# ---- frames


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def arp_frame(op: int, who: tuple[str, str], target: str, to: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    """An ARP request or reply of `who` (address, MAC) about or to `target`."""
    address, mac = who
    body = struct.pack("!HHBBH", 1, ETH_IPV4, 6, 4, op) + _mac(mac) + inet_aton(address)
    return (
        _mac(to)
        + _mac(mac)
        + struct.pack("!H", ETH_ARP)
        + body
        + (_mac(to) if op == 2 else bytes(6))
        + inet_aton(target)
    )


def tcp_frame(
    who: tuple[str, str], to: tuple[str, str], flags: str = "S", ports: tuple[int, int] = (1000, 80)
) -> bytes:
    """A TCP segment between two (address, MAC)."""
    bits = sum({"S": 2, "A": 16}[letter] for letter in flags)
    body = struct.pack("!HHIIBBHHH", *ports, 0, 0, 5 << 4, bits, 100, 0, 0)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 6, 0) + inet_aton(who[0]) + inet_aton(to[0])
    return _mac(to[1]) + _mac(who[1]) + struct.pack("!H", ETH_IPV4) + head + body


def read_frame(data: bytes) -> Packet:
    """What rules look at, of a frame."""
    to, source, kind = data[:6].hex(":"), data[6:12].hex(":"), int.from_bytes(data[12:14])
    if kind == ETH_ARP:
        (op,) = struct.unpack_from("!H", data, 20)
        return Packet(
            source, to, kind, arp=ArpFields(op, inet_ntoa(data[28:32]), inet_ntoa(data[38:42])), size=len(data)
        )
    if kind != ETH_IPV4:
        return Packet(source, to, kind, size=len(data))
    transport = Transport()
    if data[23] == 6:
        bits = data[47]
        transport = Transport(
            *struct.unpack_from("!HH", data, 34), ("S" if bits & 2 else "") + ("A" if bits & 16 else "")
        )
    ends = inet_ntoa(data[26:30]), inet_ntoa(data[30:34])
    return Packet(source, to, kind, *ends, ip_proto=data[23], transport=transport, size=len(data))
