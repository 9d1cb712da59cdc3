"""Our tables anywhere in a switch, and others' rules before them: which hide traffic, and how much."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_codec import NOW, flow_entry, matches, rules, spreads

from ryu_apps.effects import DeleteRule, PutRule
from ryu_apps.openflow import WireEntry, decode_entries, decode_rules, describe_match, encode_change, encode_match
from ryu_apps.rules import ETH_ARP, ETH_IPV4, LEARNED, OWNER, OWNER_SHIFT, Match, ResubmitTable, Rule, virtual_mac
from ryu_apps.services.buckets import BucketPlacement, placement_rules
from ryu_apps.settings import ControllerSection
from ryu_apps.tables import TABLES, TablePlaces
from ryu_apps.telemetry.foreign import ASK_EVERY_S, HIDDEN, UNREACHED, ForeignRules, Front, hides, may_match

VIP = "10.0.0.100"
FRONT = Front(4, (VIP,), 12)
EVERYTHING = encode_match(Match())


@settings(max_examples=60)
@given(rules, st.integers(0, 255 - TABLES))
def test_a_rule_that_was_moved_is_read_back_as_ours(rule: Rule, first: int) -> None:
    tables = [one.table for one in rule.actions if isinstance(one, ResubmitTable)]
    if max(rule.table, rule.goto or 0, *tables, 0) + first < 256:
        (read,) = decode_rules(flow_entry(encode_change(TablePlaces(first, 7).sent(PutRule(rule)), NOW, 1)), NOW)
        assert TablePlaces(first, 7).read(read) == rule


@settings(max_examples=20)
@given(spreads(), st.integers(0, 255 - TABLES))
def test_nothing_of_ours_lies_or_leads_outside_our_tables(spread: BucketPlacement, first: int) -> None:
    for rule in placement_rules((spread,), True).values():
        sent = TablePlaces(first).sent(PutRule(rule))
        (entry,) = decode_entries(flow_entry(encode_change(sent, NOW, 1)))
        assert {entry.table, *entry.leads_to} <= set(range(first, first + TABLES))
        assert isinstance(sent, PutRule) and TablePlaces(first).sent(DeleteRule(rule)) == DeleteRule(sent.rule)


@pytest.mark.parametrize("first", [-1, 244, 300])
def test_tables_that_no_switch_has_are_refused_with_the_mend(first: int) -> None:
    with pytest.raises(ValueError, match=r"forepath needs 12 tables from there on.*0 to 243"):
        ControllerSection(first_table=first)


def entry(table: int, priority: int, leads_to: tuple[int, ...] = (), **more: object) -> WireEntry:
    made = WireEntry(table, priority, 0, 10.0, 5000, EVERYTHING, frozenset(leads_to))
    return made._replace(**more)


@pytest.mark.parametrize(
    ("one", "hidden"),
    [
        (entry(0, 0), True),
        (entry(0, 0, (4,)), False),
        # To a table of its own, whose rules are looked at for themselves
        (entry(0, 0, (2,)), False),
        (entry(0, 0, (9,)), True),
        (entry(4, 12), True),
        (entry(4, 11), False),
        (entry(5, 100), False),
        (entry(0, 0, cookie=OWNER << OWNER_SHIFT), False),
        (entry(4, 99, cookie=LEARNED << OWNER_SHIFT), False),
        (entry(0, 0, match=encode_match(Match(eth_type=ETH_ARP))), False),
        (entry(0, 0, match=encode_match(Match(eth_dst="02:00:00:00:00:01"))), False),
        (entry(0, 0, match=encode_match(Match(eth_dst=virtual_mac(VIP)))), True),
        (entry(0, 0, match=encode_match(Match(eth_type=ETH_IPV4, ip_dst=VIP, ip_src="10.0.0.1"))), True),
        (entry(0, 0, match=encode_match(Match(eth_type=ETH_IPV4, ip_dst="10.0.0.1"))), False),
    ],
)
def test_only_what_keeps_packets_from_our_accounting_hides_anything(one: WireEntry, hidden: bool) -> None:
    assert hides(one, FRONT) is hidden


def prefix(address: str, bits: int) -> bytes:
    mask = (0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF).to_bytes(4, "big")
    value = bytes(a & b for a, b in zip(bytes(map(int, address.split("."))), mask, strict=True))
    body = bytes.fromhex("80000a020800") + b"\x80\x00\x19\x08" + value + mask
    return struct.pack("!HH", 1, 4 + len(body)) + body + bytes(-(4 + len(body)) % 8)


def test_a_prefix_hides_the_addresses_in_it() -> None:
    assert may_match(prefix(VIP, 24), VIP)
    assert not may_match(prefix("10.0.1.0", 24), VIP)
    assert "ipv4_dst=10.0.0.0/255.255.255.0" in describe_match(prefix(VIP, 24))


@given(matches)
def test_any_match_is_described_in_one_line(match: Match) -> None:
    assert "\n" not in describe_match(encode_match(match))


class Wire:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask_rules(self, cookie: int = 0, mask: int = 0, table: int = 255) -> int:
        self.asked.append(table)
        return len(self.asked)


def test_what_a_rule_hides_is_told_with_its_rate_as_long_as_it_goes_on() -> None:
    foreign, wire, hiding = ForeignRules(FRONT), Wire(), entry(1, 7)

    def look(now: float, *entries: WireEntry) -> list[str]:
        foreign.ask({1: wire}, now)
        asked = len(wire.asked)
        for xid in range(asked - 4, asked):
            assert foreign.take(1, xid, (), False) is None
        found = foreign.take(1, asked, entries, False)
        assert found is not None
        return [f"{one.kind}: {one.detail}" for one in foreign.judge(1, "leaf1", found, now)]

    (first, second) = look(0.0, hiding)
    # By our own numbers: four before ours, and ours
    assert wire.asked == [-4, -3, -2, -1, 0]
    assert first.startswith(f"{HIDDEN}: table 1, priority 7, any packet, cookie 0x0: up to 500 bytes/s pass")
    assert second.startswith(f"{UNREACHED}: no rule of tables 0 to 3 leads to table 4")
    leads = entry(0, 1, (4,))
    (again,) = look(ASK_EVERY_S, hiding._replace(size=25_000, age_s=20.0), leads)
    assert "up to 2000 bytes/s" in again
    assert look(2 * ASK_EVERY_S, hiding._replace(size=25_000, age_s=30.0), leads) == []
