"""Rules that place connections: from templates they are what the framework makes, and they are read as sent."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from cpdb import Destination
from ryu_apps.effects import DeleteRule, PutRule
from ryu_apps.framework import offline_datapath, parser
from ryu_apps.rules import Desired, KeepConnection
from ryu_apps.services.buckets import BucketPlacement, divide_buckets, placement_rules
from ryu_apps.switch.datapath import decode_rule, encode_change
from ryu_apps.switch.packing import pack
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.switch.wire import pack_instructions

NOW = 1000.0
macs = st.integers(0, 2**48 - 1).map(lambda one: one.to_bytes(6, "big").hex(":"))
addresses = st.integers(0, 2**32 - 1).map(lambda one: ".".join(map(str, one.to_bytes(4, "big"))))


@st.composite
def spreads(draw: st.DrawFn) -> BucketPlacement:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True))
    behind = tuple(Destination(one, draw(addresses), draw(macs), draw(st.integers(1, 9))) for one in names)
    return BucketPlacement(draw(addresses), behind, divide_buckets({one.name: one.weight for one in behind}))


def by_framework(change: PutRule | DeleteRule) -> bytes:
    message = encode_change(offline_datapath(), change, NOW)
    message.set_xid(7)
    message.serialize()
    return bytes(message.buf)


@settings(max_examples=40)
@given(spreads())
def test_packed_from_templates_is_what_the_framework_makes(spread: BucketPlacement) -> None:
    for rule in placement_rules((spread,), True).values():
        for change in (PutRule(rule), DeleteRule(rule)):
            packed = pack(change, NOW, 7, pack_instructions)
            if packed is not None:
                assert packed == by_framework(change)
            # Of these there are thousands.
            assert packed is not None or not any(isinstance(one, KeepConnection) for one in rule.actions)


@settings(max_examples=40)
@given(spreads())
def test_what_a_switch_reports_is_read_as_what_was_sent(spread: BucketPlacement) -> None:
    sent = placement_rules((spread,), True)
    read = [
        decode_rule(parser.OFPFlowStats.parser(reported(by_framework(PutRule(one))), 0), NOW) for one in sent.values()
    ]
    holding = Holding.read(read, (), 60_000)
    assert holding.rules == sent


def reported(message: bytes) -> bytes:
    """An entry of a flow statistics reply that says what this message adds."""
    cookie, _mask, table, _command, idle, hard, priority = struct.unpack_from("!QQBBHHH", message, 8)
    body = message[48:]
    head = struct.pack("!HBxIIHHHH4xQQQ", 48 + len(body), table, 1, 0, priority, idle, hard, 0, cookie, 0, 0)
    return head + body


def test_a_change_of_weight_sends_slots_only() -> None:
    behind = tuple(Destination(f"s{n}", f"10.0.0.{n}", f"02:00:00:00:00:{n:02x}", 100) for n in range(8))
    weights = {one.name: 100 for one in behind}
    before = BucketPlacement("10.1.0.1", behind, divide_buckets(weights))
    after = BucketPlacement("10.1.0.1", behind, divide_buckets(weights | {"s3": 50}, before.buckets))
    held = Holding(dict(placement_rules((before,), True)))
    changes = difference(held, Desired(placement_rules((after,), True), {}))
    assert 0 < len(changes) < 40
    assert {change.rule.table for change in changes if isinstance(change, PutRule | DeleteRule)} == {9}


def test_rules_are_counted_by_virtual_ips_and_destinations_never_by_sources() -> None:
    def spread(number: int) -> BucketPlacement:
        behind = tuple(
            Destination(f"s{n}", f"10.{number}.0.{n}", f"02:00:00:00:{number:02x}:0{n}", 100) for n in range(8)
        )
        return BucketPlacement(f"10.{number}.1.1", behind, divide_buckets({one.name: one.weight for one in behind}))

    many = tuple(spread(number) for number in range(50))
    # Each: its entry, its end, 8 slots, 3 x 8 destinations, 8 for answers, 1 to meet sources; and one for all.
    assert len(placement_rules(many, True)) == 50 * 43 + 1
    assert len(placement_rules(many, False)) == 50 * 42
