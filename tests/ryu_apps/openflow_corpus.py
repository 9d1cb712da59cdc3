"""Sound OpenFlow 1.3 messages of every type that a switch sends, and seeded ways to spoil them."""

import random
import struct

from ryu_apps.framework import offline_datapath, ofproto, parser

# What spoils a parser: lengths of 0 and 1, just below a structure, all ones.
NASTY = (0, 1, 3, 4, 7, 8, 12, 16, 24, 40, 56, 64, 0x7FFF, 0xFFFE, 0xFFFF)


def message(kind: int, body: bytes = b"", version: int = 4, xid: int = 7) -> bytes:
    """One message with a sound header."""
    return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body


def multipart(kind: int, body: bytes, flags: int = 0, xid: int = 7) -> bytes:
    """One multipart reply."""
    return message(19, struct.pack("!HH4x", kind, flags) + body, xid=xid)


def encoded(one: object) -> bytes:
    """A part of a message as the framework writes it."""
    buffer = bytearray()
    one.serialize(buffer, 0)  # type: ignore[attr-defined]
    return bytes(buffer)


def matches() -> list[bytes]:
    """Matches of several builds."""
    return [
        encoded(parser.OFPMatch(**fields))
        for fields in (
            {},
            {"in_port": 3},
            {"eth_type": 0x800, "ipv4_src": "10.0.0.1", "ipv4_dst": "10.9.9.9"},
            {"eth_type": 0x800, "ip_proto": 6, "ipv4_src": ("10.0.0.0", "255.0.0.0"), "tcp_dst": 80},
            {"eth_type": 0x86DD, "ipv6_src": "2001:db8::1", "eth_dst": "02:00:00:00:00:01"},
            {"eth_type": 0x800, "ip_proto": 6, "tcp_flags": (0x002, 0x012)},
            {"reg0": 7, "metadata": (1, 3)},
        )
    ]


def actions() -> list[bytes]:
    """Actions of all sizes, some of Nicira's among them."""
    sound = [
        parser.OFPActionOutput(2),
        parser.OFPActionGroup(4),
        parser.OFPActionPushVlan(),
        parser.OFPActionDecNwTtl(),
        parser.OFPActionSetField(ipv4_dst="10.1.1.1"),
        parser.OFPActionSetField(eth_src="02:00:00:00:00:02"),
        parser.NXActionRegMove(src_field="eth_src", dst_field="eth_dst", n_bits=48),
        parser.NXActionRegLoad(ofs_nbits=31, dst="reg1", value=5),
        parser.NXActionCT(
            flags=1, zone_src="", zone_ofs_nbits=4, recirc_table=4, alg=0, actions=[parser.OFPActionOutput(1)]
        ),
        parser.NXActionLearn(
            table_id=10,
            specs=[parser.NXFlowSpecMatch(src=0x800, dst=("eth_type", 0), n_bits=16)],
            idle_timeout=180,
            hard_timeout=300,
            priority=1,
            cookie=0x64,
            flags=0,
            fin_idle_timeout=180,
            fin_hard_timeout=300,
        ),
        parser.NXActionController2(max_len=128, controller_id=1, reason=0, userdata=[1, 2, 3], pause=True),
        parser.NXActionNote(note=[0xA1, 0xB2, 0xC3]),
    ]
    # The framework forgets the padding of the one that learns.
    return [data.ljust(int.from_bytes(data[2:4]), b"\0") for data in map(encoded, sound)]


def instructions() -> list[bytes]:
    """Instructions of all kinds."""
    todo = b"".join(actions())
    apply = struct.pack("!HH4x", 4, 8 + len(todo)) + todo
    write = struct.pack("!HH4x", 3, 8 + 16) + actions()[0]
    plain = [
        parser.OFPInstructionGotoTable(3),
        parser.OFPInstructionWriteMetadata(1, 3),
        parser.OFPInstructionMeter(9, ofproto.OFPIT_METER),
    ]
    return [b"", apply, write, struct.pack("!HH4x", 5, 8), *(encoded(one) for one in plain)]


def flow_entry(match: bytes, instruction: bytes, cookie: int = 1, packets: int = 2, size: int = 3) -> bytes:
    """One entry of a flow statistics reply, 4.5 s old."""
    length = 48 + len(match) + len(instruction)
    head = struct.pack("!HBxIIHHHH4xQQQ", length, 0, 4, 500_000_000, 5, 0, 0, 0, cookie, packets, size)
    return head + match + instruction


def flow_entries() -> list[bytes]:
    """Bodies with entries of all builds, some of them several times in a row."""
    return [
        b"".join(flow_entry(match, instruction, cookie) * (1 + cookie % 3) for cookie, match in enumerate(matches()))
        for instruction in instructions()
    ]


def _group(kind: int) -> bytes:
    todo = actions()[0] + actions()[4]
    bucket = struct.pack("!HHII4x", 16 + len(todo), 1, 0, 0) + todo
    if kind == 7:
        return struct.pack("!HBxI", 8 + 2 * len(bucket), 1, 4) + bucket * 2
    return struct.pack("!H2xII4xQQII", 72, 4, 1, 10, 20, 3, 4) + struct.pack("!QQQQ", 1, 2, 3, 4)


def _table_features() -> bytes:
    def prop(kind: int, body: bytes) -> bytes:
        length = 4 + len(body)
        return struct.pack("!HH", kind, length) + body + bytes(-length % 8)

    heads = struct.pack("!HHHH", 1, 4, 4, 4)
    fields = struct.pack("!III", 0x80000004, 0x80001604, 0xFFFF560C) + struct.pack("!I", 0x4F4E4600)
    props = prop(0, heads) + prop(2, b"\1\2\3") + prop(4, heads) + prop(8, fields) + prop(10, fields[:8])
    return struct.pack("!HB5x32sQQII", 64 + len(props), 0, b"table", 1, 2, 0, 100) + props


def multiparts() -> list[bytes]:
    """Replies of every kind."""
    port = struct.pack("!I4x6s2x16sIIIIIIII", 1, bytes(6), b"eth1", 0, 0, 0, 0, 0, 0, 0, 0)
    meter = struct.pack("!IH6xIQQII", 5, 56, 2, 10, 20, 3, 4) + struct.pack("!QQ", 6, 7)
    bands = struct.pack("!HHII4x", 1, 16, 100, 10) + struct.pack("!HHIIB3x", 2, 16, 100, 10, 1)
    features = struct.pack("!IIIIIIIIII", 15, 0, 1, 1, 1, 1, 1, 1, 1, 1)
    return [
        multipart(0, bytes(1056)),
        *(multipart(1, body) for body in flow_entries()),
        multipart(1, b"", flags=1),
        multipart(2, struct.pack("!QQI4x", 1, 2, 3)),
        multipart(3, struct.pack("!B3xIQQ", 0, 1, 2, 3) * 2),
        multipart(4, b"".join(struct.pack("!I4x12QII", n, *range(12), 9, 8) for n in (1, 2))),
        multipart(5, struct.pack("!IIQQQII", 1, 2, 3, 4, 5, 6, 7) * 2),
        multipart(6, _group(6) * 2),
        multipart(7, _group(7) * 2),
        multipart(8, features),
        multipart(9, meter * 2),
        multipart(10, (struct.pack("!HHI", 40, 5, 9) + bands) * 2),
        multipart(11, struct.pack("!IIIBB2x", 1000, 2, 15, 8, 1)),
        multipart(12, _table_features() * 2),
        multipart(13, port * 2),
        multipart(0xFFFF, struct.pack("!II", 0x4F4E4600, 1870) + bytes(24)),
    ]


def singles() -> list[bytes]:
    """Messages of every other type."""
    match = matches()[1]
    queue = struct.pack("!IIH6x", 1, 2, 48) + struct.pack("!HH4xH6x", 1, 16, 10) + struct.pack("!HH4xH6x", 2, 16, 90)
    return [
        message(0, struct.pack("!HHI", 1, 8, 0x12)),
        message(0, struct.pack("!HHII4x", 1, 12, 0x10, 0), version=6),
        message(1, struct.pack("!HH", 1, 5) + bytes(64)),
        message(1, struct.pack("!HHI", 0xFFFF, 5, 0x2320) + bytes(8)),
        message(2, b"ping"),
        message(3, b"pong"),
        message(4, struct.pack("!II", 0x2320, 9) + bytes(16)),
        message(4, struct.pack("!IIIHHHHII", 0x4F4E4600, 2300, 1, 1, 0, 0xFFFF, 12, 1, 2) + bytes(4)),
        message(6, struct.pack("!QIBBxxII", 0x11, 0, 254, 0, 0x47, 0)),
        message(8, struct.pack("!HH", 0, 128)),
        message(10, struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 0, 1) + match + bytes(2) + bytes(60)),
        message(11, struct.pack("!QHBBIIHHQQ", 1, 5, 0, 0, 9, 8, 0, 0, 10, 20) + match),
        message(12, struct.pack("!B7x", 0) + multiparts()[-2][16:80]),
        message(21),
        message(23, struct.pack("!I4x", 1) + queue * 2),
        message(25, struct.pack("!I4xQ", 2, 1)),
        message(27, struct.pack("!6I", *range(6))),
    ]


def hostile() -> dict[str, bytes]:
    """One length of 0 in each structure that has one: a framework's parser would turn there for ever."""
    return {
        "hello element": message(0, struct.pack("!HH", 2, 0) + bytes(4)),
        "flow entry": multipart(1, bytes(56)),
        "group statistics": multipart(6, bytes(40)),
        "group description": multipart(7, bytes(8)),
        "bucket": multipart(7, struct.pack("!HBxI", 24, 0, 1) + bytes(16)),
        "bucket's action": multipart(7, struct.pack("!HBxIH14x", 32, 0, 1, 24) + struct.pack("!HH4x", 0xFFFF, 0)),
        "meter statistics": multipart(9, bytes(40)),
        "meter configuration": multipart(10, bytes(8)),
        "meter band": multipart(10, struct.pack("!HHI", 24, 0, 1) + struct.pack("!HH12x", 1, 0)),
        "table features": multipart(12, bytes(64)),
        "table property": multipart(12, struct.pack("!H62x", 72) + struct.pack("!HH4x", 0, 0)),
        "item of a property": multipart(12, struct.pack("!H62x", 72) + struct.pack("!HHHH", 0, 8, 1, 0)),
        "queue": message(23, bytes(8) + bytes(16)),
        "queue property": message(23, bytes(8) + struct.pack("!IIH6x", 1, 1, 32) + struct.pack("!HH12x", 1, 0)),
        "instruction": multipart(1, flow_entry(matches()[0], struct.pack("!HH4x", 1, 0))),
        "action": multipart(1, flow_entry(matches()[0], struct.pack("!HH4xHH4x", 4, 16, 0xFFFF, 0))),
        "action in connection tracking": multipart(
            1,
            flow_entry(
                matches()[0],
                struct.pack("!HH4x", 4, 40)
                + struct.pack("!HHIH14x", 0xFFFF, 32, 0x2320, 35)
                + struct.pack("!HH4x", 0xFFFF, 0),
            ),
        ),
        "property of a controller action": multipart(
            1,
            flow_entry(
                matches()[0],
                struct.pack("!HH4xHHIH6xHH4x", 4, 32, 0xFFFF, 24, 0x2320, 37, 3, 0),
            ),
        ),
        "match": message(11, bytes(40) + struct.pack("!HH4x", 1, 0)),
        "match field": message(11, bytes(40) + struct.pack("!HHI", 1, 8, 0x80000A00)),
        "bundle property": message(4, struct.pack("!IIIHHHH4x", 0x4F4E4600, 2300, 1, 1, 0, 1, 0)),
    }


def corpus() -> list[bytes]:
    """All of them."""
    return singles() + multiparts()


def spoil(data: bytes, rng: random.Random) -> bytes:
    """A mutant: some bytes or lengths changed, cut, doubled; mostly with a header that still says the true length."""
    mutant = bytearray(data)
    for _ in range(1 + (rng.random() < 0.3)):
        _change(mutant, rng)
    if rng.random() < 0.9 and len(mutant) >= 4:
        mutant[2:4] = struct.pack("!H", min(len(mutant), 0xFFFF))
    return bytes(mutant[:0xFFFF])


def _change(mutant: bytearray, rng: random.Random) -> None:
    at = int(rng.random() * len(mutant)) if mutant else 0
    way = rng.random()
    if way < 0.45:
        at &= ~1
        mutant[at : at + 2] = struct.pack("!H", NASTY[int(rng.random() * len(NASTY))])
    elif way < 0.75:
        mutant[at : at + 1] = bytes([int(rng.random() * 256)])
    elif way < 0.85:
        del mutant[at:]
    elif way < 0.95:
        del mutant[at : at + 8]
    else:
        mutant[at:at] = mutant[at : at + 8]


def read_by_framework(data: bytes) -> object:
    """What the framework itself makes of a message, with everything that is decoded late decoded."""
    from ryu_apps.openflow import check
    from ryu_apps.openflow.guard import HELLO, Phase
    from ryu_apps.switch.lazy_messages import message_of

    read = message_of(offline_datapath(), data, check(data, Phase.HELLO if data[1] == HELLO else Phase.OPEN))
    for one in (getattr(read, "body", None) or ()) if data[1] == 19 and data[9] == 1 else ():
        one.instructions, one.match  # noqa: B018
    return read
