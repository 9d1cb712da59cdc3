"""The difference to what is held: applying it arrives, doing it again is nothing, others' rules stay."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.effects import DeleteRule, PutRule
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.pipeline import PairShare, Rewrite, Share, desired
from ryu_apps.policers import Policer, allot_meters
from ryu_apps.rules import (
    Desired,
    Kind,
    Match,
    Output,
    Rule,
    RuleKey,
    Table,
    cookie,
    is_ours,
    kind_of,
    number_of,
    pair_number,
)
from ryu_apps.switch.reconcile import Holding, difference

VIP = "10.0.0.100"
FIRST = 60_000
MACS = [f"02:00:00:00:00:{n:02x}" for n in range(6)]
ADDRESSES = [f"10.0.0.{n}" for n in range(6)]
rates = st.one_of(st.none(), st.integers(1, 100_000))


@st.composite
def shares(draw: st.DrawFn) -> Share:
    clients = draw(st.sets(st.sampled_from(ADDRESSES[:4])))
    pairs = tuple((one, VIP) for one in sorted(clients))
    steers = tuple(Rewrite(one, VIP, ADDRESSES[5], MACS[5]) for one in sorted(clients))
    police = tuple(
        Policer(one, VIP, draw(st.floats(1001, 1030)), draw(rates), draw(st.one_of(st.none(), st.integers(0, 63))))
        for one in sorted(draw(st.sets(st.sampled_from(ADDRESSES[:4]))))
    )
    ports = draw(st.dictionaries(st.sampled_from(MACS), st.integers(1, 9)))
    return Share((VIP,), ports, PairShare(pairs, steers, steers if draw(st.booleans()) else ()), police)


def want(share: Share, holding: Holding) -> Desired:
    rules = holding.rules.values()
    taken = {number_of(one.cookie): one.meter for one in rules if one.meter is not None}
    limited = [one.number for one in share.police if one.rate_kbit_s is not None]
    return desired(share, allot_meters(limited, taken, FIRST))


FOREIGN = Rule(Table.FORWARD, 10, Match(eth_dst="02:00:00:00:00:aa"), (Output(1),), cookie=0x77)


@given(st.lists(shares(), min_size=1, max_size=4))
def test_applying_the_difference_arrives_and_doing_it_again_is_nothing(states: list[Share]) -> None:
    now, switch = 1000.0, FakeSwitch(1, frozenset(range(1, 10)))
    assert switch.apply([PutRule(FOREIGN)], now) == []
    for share in states:
        holding = Holding.read(switch.rules(now), switch.meters(), FIRST)
        wanted = want(share, holding)
        assert switch.apply(difference(holding, wanted), now) == []
        held = Holding.read(switch.rules(now), switch.meters(), FIRST)
        assert held.rules.keys() == wanted.rules.keys()
        assert held.meters == wanted.meters
        assert difference(held, want(share, held)) == []
        assert FOREIGN in switch.rules(now)


@given(shares(), shares())
def test_what_is_believed_after_sending_is_what_the_switch_holds(before: Share, after: Share) -> None:
    now, switch, belief = 1000.0, FakeSwitch(1, frozenset(range(1, 10))), Holding()
    for share in (before, after):
        changes = difference(belief, want(share, belief))
        switch.apply(changes, now)
        belief.apply(changes)
    real = Holding.read(switch.rules(now), switch.meters(), FIRST)
    assert belief.rules.keys() == real.rules.keys()
    assert belief.meters == real.meters


def test_every_rule_is_ours_and_tells_its_pair() -> None:
    steer = Rewrite(ADDRESSES[0], VIP, ADDRESSES[5], MACS[5])
    limit = Policer(ADDRESSES[0], VIP, 1010.0, 100, None)
    share = Share((VIP,), {MACS[0]: 1}, PairShare(((ADDRESSES[0], VIP),), (steer,), (steer,)), (limit,))
    rules = desired(share, {limit.number: FIRST}).rules.values()
    assert all(is_ours(rule.cookie) and (rule.cookie >> 44) & 0xF == rule.table for rule in rules)
    kinds = {kind_of(rule.cookie) for rule in rules if number_of(rule.cookie) == pair_number(ADDRESSES[0], VIP)}
    assert kinds == {Kind.PAIR, Kind.PAIR_SYN, Kind.TO_DESTINATION, Kind.TO_CLIENT, Kind.LIMIT}


def test_a_rule_of_somebody_else_in_our_place_is_not_deleted() -> None:
    ours = Rule(3, 10, Match(eth_dst=MACS[0]), (Output(1),), cookie=cookie(Table.FORWARD, Kind.HOST))
    theirs = replace(ours, cookie=0x77)
    switch = FakeSwitch(1, frozenset({1}))
    switch.apply([PutRule(theirs), DeleteRule(ours)], 0.0)
    assert switch.rules(0.0) == [theirs]


def test_a_renewed_lease_is_sent_a_rounded_one_is_not() -> None:
    limit = Policer(ADDRESSES[0], VIP, 1010.0, 100, None)
    numbers = {limit.number: FIRST}
    held = desired(Share(police=(limit,)), numbers)
    holding = Holding(dict(held.rules), dict(held.meters))
    rounded = desired(Share(police=(replace(limit, lease_until=1010.9),)), numbers)
    renewed = desired(Share(police=(replace(limit, lease_until=1015.0),)), numbers)
    assert difference(holding, rounded) == []
    assert [type(one) for one in difference(holding, renewed)] == [PutRule]


def test_a_meter_never_changes_its_pair_while_another_still_uses_it() -> None:
    assert allot_meters([1, 2], {}, FIRST) == {1: FIRST, 2: FIRST + 1}
    assert allot_meters([2, 3], {1: FIRST, 2: FIRST + 1}, FIRST) == {2: FIRST + 1, 3: FIRST + 2}


def test_keys_tell_rules_apart_by_place_only() -> None:
    one = Rule(3, 10, Match(eth_dst=MACS[0]), (Output(1),), cookie=1)
    assert one.key == replace(one, actions=(Output(2),), cookie=2).key == RuleKey(3, 10, Match(eth_dst=MACS[0]))
