"""Errors of switches: each is matched to what caused it, changes what is believed, is counted, and is never guessed."""

import struct
from dataclasses import dataclass, field

import pytest

from ryu_apps.effects import AddGroup, AddMeter, Change, DeleteGroup, DeleteRule, PutRule
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.framework import offline_datapath, ofproto
from ryu_apps.groups import failover
from ryu_apps.openflow import Phase, check
from ryu_apps.pipeline import Share, desired
from ryu_apps.rules import Desired, Kind, Match, Meter, Output, Rule, RuleKey, SwitchGroup, Table, cookie
from ryu_apps.switch.abilities import Abilities
from ryu_apps.switch.errors import SwitchError, SwitchErrors, unmatched
from ryu_apps.switch.lazy_messages import message_of
from ryu_apps.switch.reconcile import RETRY_S
from ryu_apps.switch.session import GRACE_S, Session
from ryu_apps.switch.wire import SentRequests
from ryu_apps.tables import TablePlaces

FIRST = 60_000
MAC = "02:00:00:00:00:01"
NO_ROOM = "OFPET_FLOW_MOD_FAILED/OFPFMFC_TABLE_FULL"


@dataclass
class Wire:
    """A wire to a fake switch whose answers wait until the test asks for them; some changes are refused."""

    switch: FakeSwitch
    dpid: int = 1
    refuse: dict[type[object], str] = field(default_factory=dict)
    requests: SentRequests = field(default_factory=SentRequests)
    sent: list[Change] = field(default_factory=list)
    errors: list[SwitchError] = field(default_factory=list)
    number: int = 0
    places: TablePlaces = field(default_factory=TablePlaces)

    def changes(self, changes: list[Change], now: float) -> list[int]:
        return [self._change(one, now) for one in changes]

    def _change(self, change: Change, now: float) -> int:
        self.number += 1
        self.sent.append(change)
        refusal = self.refuse.get(type(change))
        reasons = [refusal] if refusal else self.switch.apply([change], now)
        self.errors += [SwitchError(self.number, reason, b"") for reason in reasons]
        return self.number

    def barrier(self) -> int:
        self.number += 1
        self.requests.note(self.number, "barrier")
        return self.number


@dataclass
class FlowKey:
    """A session and its switch, in virtual time."""

    wire: Wire
    session: Session
    now: float = 1000.0

    def want(self, want: Desired) -> list[str]:
        """One round; returns what the errors were about."""
        self.wire.sent = []
        if self.session.reconcile(want, self.now, may_delete=True):
            self.session.barrier(lambda: None)
            end = self.wire.number
            told = [self.session.error(one, self.now) for one in self.wire.errors]
            self.session.passed(end)
            self.wire.errors = []
            return told
        return []


@pytest.fixture
def talk() -> FlowKey:
    wire = Wire(FakeSwitch(1, frozenset({1, 2, 3})))
    session = Session(wire, FIRST, 1000.0 - GRACE_S - 1)  # type: ignore[arg-type]
    session.abilities = Abilities(max_meters=262_144, has_failover=True)
    return FlowKey(wire, session)


def towards(port: int, spare: int | None = None) -> Desired:
    return desired(Share(ports={MAC: port}, spares={} if spare is None else {MAC: spare}), {})


HOST = RuleKey(Table.FORWARD, 10, Match(eth_dst=MAC))


def test_a_refused_rule_is_told_and_tried_again_later_or_when_something_else_is_wanted(talk: FlowKey) -> None:
    talk.want(desired(Share(), {}))
    talk.wire.refuse[PutRule] = NO_ROOM
    assert talk.want(towards(1)) == ["put rule (host)"]
    assert talk.session.why_not([HOST]) == NO_ROOM
    assert not talk.session.holding.holds([HOST])
    assert talk.want(towards(1)) == []
    assert talk.want(towards(2)) == ["put rule (host)"]
    talk.now += RETRY_S - 0.5
    talk.wire.refuse.clear()
    talk.want(towards(2))
    assert not talk.session.holding.holds([HOST])
    talk.now += 0.5
    assert talk.want(towards(2)) == []
    assert talk.session.holding.holds([HOST])
    assert talk.session.why_not([HOST]) is None


def test_a_rule_that_cannot_be_deleted_is_still_believed_to_be_there(talk: FlowKey) -> None:
    talk.want(towards(1))
    talk.wire.refuse[DeleteRule] = "OFPET_BAD_REQUEST/OFPBRC_EPERM"
    assert talk.want(desired(Share(), {})) == ["delete rule (host)"]
    assert talk.session.holding.holds([HOST])
    assert talk.want(desired(Share(), {})) == []
    talk.now += RETRY_S + 1
    talk.wire.refuse.clear()
    talk.want(desired(Share(), {}))
    assert not talk.session.holding.holds([HOST])
    assert HOST not in {rule.key for rule in talk.wire.switch.rules(talk.now)}


def test_a_switch_that_refuses_groups_gets_the_first_way_at_once(talk: FlowKey) -> None:
    talk.wire.refuse[AddGroup] = "OFPET_GROUP_MOD_FAILED/OFPGMFC_OUT_OF_GROUPS"
    assert talk.want(towards(1, 2)) == ["add group", "put rule (host)"]
    assert not talk.session.abilities.has_failover
    assert talk.want(towards(1)) == []
    assert [rule.actions for rule in talk.wire.switch.rules(talk.now) if rule.key == HOST] == [(Output(1),)]


def test_a_group_and_a_meter_that_were_there_already_are_set_right(talk: FlowKey) -> None:
    group = failover(1, 2)
    assert group is not None
    talk.wire.switch.apply([AddGroup(SwitchGroup(group.number, group.kind, group.buckets[:1]))], talk.now)
    talk.wire.switch.apply([AddMeter(Meter(FIRST, 1, 1))], talk.now)
    limited = Rule(1, 20, Match(), goto=2, meter=FIRST, cookie=cookie(Table.POLICER, Kind.LIMIT))
    plain = towards(1, 2)
    want = Desired({**plain.rules, limited.key: limited}, {FIRST: Meter(FIRST, 1000, 500)}, plain.groups)
    assert sorted(talk.want(want)) == ["add group", "add meter"]
    assert talk.want(want) == []
    assert talk.wire.switch.groups() == [group]
    assert talk.wire.switch.meters() == [Meter(FIRST, 1000, 500)]


def test_a_group_goes_only_after_the_rules_that_use_it(talk: FlowKey) -> None:
    talk.want(towards(1, 2))
    talk.want(towards(1))
    assert not any(isinstance(one, DeleteGroup) for one in talk.wire.sent)
    talk.want(towards(1))
    assert [type(one) for one in talk.wire.sent] == [DeleteGroup]
    assert talk.wire.switch.groups() == []
    assert talk.session.holding.holds([HOST])


def test_requests_and_strangers_are_told_apart(talk: FlowKey) -> None:
    talk.wire.requests.note(70, "packet out")
    talk.wire.requests.note(71, "flow statistics")
    refused = "OFPET_BAD_ACTION/OFPBAC_BAD_OUT_PORT"
    assert talk.session.error(SwitchError(70, refused, b""), talk.now) == "packet out"
    assert talk.session.error(SwitchError(71, refused, b""), talk.now) == "flow statistics"
    rule = struct.pack("!BBHI", 4, 14, 80, 70)
    assert talk.session.error(SwitchError(70, refused, rule), talk.now) == "unmatched rule"
    assert unmatched(SwitchError(1, "", b"")) == "unmatched unknown message"
    assert unmatched(SwitchError(1, "", bytes((4, 77, 0, 8)))) == "unmatched message of type 77"


def test_nobody_waits_for_ever_for_a_refused_barrier(talk: FlowKey) -> None:
    done: list[int] = []
    talk.session.barrier(lambda: done.append(1))
    assert talk.session.error(SwitchError(talk.wire.number, "x", b""), talk.now) == "barrier"
    assert done == [1]


def test_requests_are_remembered_for_a_while_only() -> None:
    asked = SentRequests()
    for xid in range(20_000):
        asked.note(xid, "packet out")
    assert asked.take(19_999) == "packet out"
    assert asked.take(19_999) is None
    assert asked.take(0) is None


def test_complaints_are_counted_by_what_and_why_within_bounds() -> None:
    complaints = SwitchErrors()
    for _ in range(3):
        complaints.add("leaf1", "packet out", "because", 0.0)
    assert complaints.tallies() == {("switch error", "packet out: because"): 3}
    for number in range(1000):
        complaints.add("leaf1", f"thing {number}", "because", 0.0)
    assert sum(complaints.tallies().values()) == 1003
    assert len(complaints.tallies()) < 300


def test_an_error_of_a_vendors_own_arrives_as_an_error() -> None:
    data = struct.pack("!BBHIHHI", 4, 1, 24, 99, 0xFFFF, 7, 0x2320) + bytes(8)
    message = message_of(offline_datapath(), data, check(data, Phase.OPEN))
    assert (message.type, message.code, message.experimenter) == (ofproto.OFPET_EXPERIMENTER, 7, 0x2320)
    assert (message.xid, message.data) == (99, bytes(8))
