"""Bytes packed by hand are those that the framework makes, for every change that we may ever send."""

from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.effects import AddGroup, AddMeter, Change, DeleteMeter, DeleteRule, ModifyMeter, PutRule
from ryu_apps.framework import offline_datapath
from ryu_apps.rules import CONTROLLER, Kind, Match, Meter, Output, Rule, SetField, Table, ToGroup, cookie, failover
from ryu_apps.switch.datapath import encode_change
from ryu_apps.switch.packing import pack
from ryu_apps.switch.wire import pack_instructions

NOW = 1000.0
macs = st.integers(0, 2**48 - 1).map(lambda one: one.to_bytes(6, "big").hex(":"))
addresses = st.integers(0, 2**32 - 1).map(lambda one: ".".join(map(str, one.to_bytes(4, "big"))))


@st.composite
def matches(draw: st.DrawFn) -> Match:
    fields = {}
    for name in ("eth_src", "eth_dst"):
        if draw(st.booleans()):
            fields[name] = draw(macs)
    if draw(st.booleans()):
        fields["eth_type"] = 0x0800
        for name in ("ipv4_src", "ipv4_dst"):
            if draw(st.booleans()):
                fields[name] = draw(addresses)
        if draw(st.booleans()):
            fields["ip_proto"] = draw(st.integers(0, 255))
    if draw(st.integers(0, 5)) == 0:
        fields |= draw(st.sampled_from([{"in_port": 7}, {"multicast": True, "eth_dst": None}, {"tag": 3100}]))
    return Match(**fields)


actions = st.one_of(
    st.integers(1, 100).map(Output),
    st.just(Output(CONTROLLER)),
    st.just(ToGroup(0xF0001002)),
    macs.map(lambda one: SetField("eth_dst", one)),
    st.integers(0, 63).map(lambda one: SetField("ip_dscp", one)),
)
rules = st.builds(
    Rule,
    table=st.sampled_from([0, 1, 2, 3, 8, 11]),
    priority=st.integers(0, 65535),
    match=matches(),
    actions=st.lists(actions, max_size=3).map(tuple),
    goto=st.none() | st.integers(12, 20),
    meter=st.none() | st.integers(60_000, 61_000),
    cookie=st.sampled_from(Kind).map(lambda kind: cookie(Table.POLICE, kind, 77)),
    lease_until=st.none() | st.floats(NOW - 5, NOW + 1e6),
)
meters = st.builds(Meter, st.integers(1, 2**31), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
changes = st.one_of(
    rules.map(PutRule),
    rules.map(DeleteRule),
    meters.map(AddMeter),
    meters.map(ModifyMeter),
    st.integers(1, 2**31).map(DeleteMeter),
)


@given(changes, st.integers(0, 2**32 - 1))
def test_packed_by_hand_is_what_the_framework_makes(change: Change, xid: int) -> None:
    ours = pack(change, NOW, xid, pack_instructions)
    if ours is not None:
        message = encode_change(offline_datapath(), change, NOW)
        message.set_xid(xid)
        message.serialize()
        assert ours == bytes(message.buf)


@given(rules.filter(lambda rule: rule.match.in_port is None and not rule.match.multicast and rule.match.tag is None))
def test_rules_of_pairs_and_hosts_are_packed_by_hand(rule: Rule) -> None:
    assert pack(PutRule(rule), NOW, 1, pack_instructions) is not None
    assert pack(DeleteRule(rule), NOW, 1, pack_instructions) is not None


def test_what_is_rare_is_left_to_the_framework() -> None:
    group = failover(1, 2)
    assert group is not None
    assert pack(AddGroup(group), NOW, 1, pack_instructions) is None
    assert pack(PutRule(Rule(0, 1, Match(syn=True))), NOW, 1, pack_instructions) is None
