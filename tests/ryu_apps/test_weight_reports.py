"""What is said of wanted weights: once per change, when all switches follow them, and why not where they do not."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from answering_wire import Wire
from simulated import HOSTS, SWITCHES, VIP, World, address, declared, mac

from cpdb import Standing, VirtualIp, WantedWeights
from ryu_apps.declared import Declared
from ryu_apps.effects import Change, PutRule
from ryu_apps.rules import BucketMatch, Table
from ryu_apps.services.buckets import BUCKETS
from ryu_apps.status.publishers import Status
from ryu_apps.switch.reconcile import RETRY_S, Holding
from ryu_apps.switch.session import GRACE_S, Session
from ryu_apps.switches import Switches
from ryu_apps.topology import frames
from ryu_apps.topology.frames import Arp


@dataclass
class Controlled:
    """The world with real sessions to all its switches."""

    world: World = field(default_factory=World)
    affinity: str = "connection"
    standing: Standing = Standing.SERVING

    def __post_init__(self) -> None:
        self.world.start(self.reading(0, None))
        self.wires = {dpid: Wire(switch, dpid) for dpid, switch in self.world.switches.items()}
        self.switches = Switches(self.world.network, 60_000)
        self.status = Status(self.world.network, self.switches)
        self.switches.declared = True
        for dpid in self.wires:
            self.connect(dpid)

    def connect(self, dpid: int, ago_s: float = 60.0) -> None:
        held = self.world.switches[dpid]
        session = Session(self.wires[dpid], 60_000, self.world.now - ago_s)
        session.holding = Holding.read(held.rules(self.world.now), held.meters(), 60_000, held.groups())
        self.switches.sessions[dpid] = session
        self.switches.revision += 1

    def reading(self, generation: int, weights: Mapping[str, int] | None) -> Declared:
        whole = declared((100, 100))
        vip = whole.virtual_ips[VIP]
        behind = (vip.destinations[0], replace(vip.destinations[1], standing=self.standing))
        wanted = () if weights is None else (WantedWeights(VIP, weights, "test", "a test", generation),)
        own = VirtualIp(VIP, "shop", 10, behind, affinity=self.affinity).with_weights(weights or {})
        return replace(whole, virtual_ips={VIP: own}, weights=wanted, generation=generation)

    def want(self, generation: int, weights: Mapping[str, int] | None) -> None:
        self.world.network.declare(self.reading(generation, weights), self.world.now)
        self.switches.settle(self.world.now)

    def pass_time(self, seconds: float, *silent: str) -> None:
        """Both services speak twice a second, unless they are silent; switches answer when `confirm` is called."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.now += 0.5
            self.world.network.tick(self.world.now)
            for name in {"s1", "s2"}.difference(silent):
                body = Arp(frames.REPLY, mac(name), address(name), mac("c1"), address("c1"))
                data = frames.arp(body, mac(name), mac("c1"))
                self.world.network.packet_in(HOSTS[name], data, self.world.now)
            self.switches.settle(self.world.now)

    def confirm(self, *switches: str) -> None:
        for dpid in [SWITCHES[name] for name in switches] or list(self.wires):
            self.wires[dpid].answer(self.switches.sessions[dpid], self.world.now)
            self.switches.passed(dpid, 0)

    def news(self) -> list[tuple[str, int]]:
        self.rows = [row for row in self.status.answers(self.world.now) if row.kind == "weights"]
        assert {(row.key, row.node) for row in self.rows} <= {(VIP, "controller")}
        return [(row.status, row.generation) for row in self.rows]

    def detail(self) -> str:
        (row,) = self.rows
        return row.detail


@pytest.fixture
def placing() -> Controlled:
    made = Controlled()
    made.switches.settle(made.world.now)
    made.confirm()
    assert made.news() == []
    return made


def no_slots(change: Change) -> str | None:
    slot = isinstance(change, PutRule) and change.rule.table == Table.BUCKETS
    return "OFPET_FLOW_MOD_FAILED/OFPFMFC_TABLE_FULL" if slot else None


def test_weights_are_installed_when_every_switch_that_places_has_confirmed_its_slots(placing: Controlled) -> None:
    placing.want(7, {"s1": 100, "s2": 300})
    assert placing.news() == []
    placing.confirm("leaf1", "leaf2")
    assert placing.news() == []
    placing.confirm("leaf3")
    assert placing.news() == [("installed", 7)]
    assert placing.detail() == "new connections go by s1 25%, s2 75% on leaf1, leaf2, leaf3; live ones stay"
    assert placing.news() == []


def test_each_generation_is_told_once_also_when_no_slot_moves(placing: Controlled) -> None:
    for generation in (3, 4):
        placing.want(generation, {"s1": 100, "s2": 300})
        placing.confirm()
        assert placing.news() == [("installed", generation)]
    placing.pass_time(1.0)
    placing.confirm()
    assert placing.news() == []
    placing.want(5, None)
    assert placing.news() == [("removed", 4)]
    assert placing.news() == []


def test_a_slot_that_has_not_been_given_to_another_yet_is_not_overlooked(placing: Controlled) -> None:
    placing.want(2, {"s1": 100, "s2": 0})
    placing.confirm()
    assert placing.news() == [("installed", 2)]
    # Decided, and not sent: the switches hold a rule for that very slot, with the other destination.
    placing.world.network.declare(placing.reading(3, {"s1": 0, "s2": 100}), placing.world.now)
    assert placing.news() == []
    placing.switches.settle(placing.world.now)
    assert placing.news() == []
    placing.confirm()
    assert placing.news() == [("installed", 3)]


def test_a_switch_that_refuses_a_slot_is_named_until_it_takes_it(placing: Controlled) -> None:
    placing.wires[SWITCHES["leaf2"]].refuse = no_slots
    placing.want(2, {"s1": 0, "s2": 100})
    placing.confirm()
    assert placing.news() == [("refused", 2)]
    assert placing.detail() == "leaf2 answered OFPET_FLOW_MOD_FAILED/OFPFMFC_TABLE_FULL"
    placing.wires[SWITCHES["leaf2"]].refuse = lambda _change: None
    placing.pass_time(RETRY_S + 1)
    assert placing.news() == []
    placing.confirm()
    assert placing.news() == [("installed", 2)]


def test_a_slot_of_before_that_a_switch_still_holds_is_not_overlooked(placing: Controlled) -> None:
    leaf = SWITCHES["leaf1"]
    (spread,) = placing.world.network.services.destinations.spreads
    old = next(rule for rule in spread.rules.values() if rule.table == Table.BUCKETS)
    stale = replace(old, priority=old.priority + 5, match=replace(old.match, register=BucketMatch(0, BUCKETS - 32)))
    placing.world.switches[leaf].apply([PutRule(stale)], placing.world.now)
    placing.connect(leaf, ago_s=0.0)
    placing.want(2, {"s1": 100, "s2": 300})
    placing.confirm()
    # What nothing explains stays for a while after a connection.
    assert placing.news() == []
    placing.pass_time(GRACE_S + 1)
    assert placing.news() == []
    placing.confirm()
    assert placing.news() == [("installed", 2)]


def test_a_switch_that_is_away_is_waited_for(placing: Controlled) -> None:
    session = placing.switches.sessions[SWITCHES["leaf3"]]
    placing.switches.left(session.dpid)
    placing.want(2, {"s1": 100, "s2": 300})
    placing.confirm("leaf1", "leaf2")
    assert placing.news() == [("waiting", 2)]
    assert placing.detail() == "not connected, and perhaps still going by other weights: leaf3"
    placing.switches.sessions[session.dpid] = session
    placing.switches.revision += 1
    placing.pass_time(1.0)
    assert placing.news() == []
    placing.confirm()
    assert placing.news() == [("installed", 2)]


def test_who_is_unknown_or_drained_is_named_at_once(placing: Controlled) -> None:
    placing.want(2, {"s1": 100, "s9": 50, "s8": 0})
    assert placing.news() == [("refused", 2)]
    assert placing.detail() == "s9 gets nothing new: it is no destination of shop"
    placing.standing = Standing.DRAINING
    placing.want(3, {"s1": 100, "s2": 300})
    assert placing.news() == [("refused", 3)]
    assert placing.detail() == "s2 gets nothing new: it is drained"
    placing.world.network.declare(replace(placing.reading(4, {"s1": 1}), virtual_ips={}), placing.world.now)
    assert placing.news() == [("refused", 4)]


def test_who_is_down_is_named_and_followed_when_it_is_back(placing: Controlled) -> None:
    placing.want(2, {"s1": 100, "s2": 300})
    placing.confirm()
    assert placing.news() == [("installed", 2)]
    placing.pass_time(3.0)
    placing.pass_time(10.0, "s2")
    assert placing.news() == [("refused", 2)]
    assert placing.detail() == "s2 gets nothing new: it is down: does not answer by ARP"
    placing.confirm()
    assert placing.news() == []
    placing.pass_time(10.0)
    assert placing.news() == []
    placing.confirm()
    assert placing.news() == [("installed", 2)]


def test_with_affinity_to_sources_it_counts_for_new_ones_at_once() -> None:
    made = Controlled(affinity="source")
    made.switches.settle(made.world.now)
    made.confirm()
    made.want(2, {"s1": 100, "s2": 300})
    assert made.news() == [("installed", 2)]
    assert made.detail() == "sources that are new, or silent for 60 s, go by s1 25%, s2 75%; others stay where they are"
    for dpid in SWITCHES.values():
        made.switches.left(dpid)
    assert made.news() == [("waiting", 2)]


def test_one_switch_that_cannot_be_brought_up_to_date_keeps_no_other_from_it() -> None:
    one = Controlled()
    broken = next(iter(one.wires))

    def refuse(_change: Change) -> str | None:
        raise struct.error("no such message")

    one.wires[broken].refuse = refuse
    before = one.switches.failures
    one.want(1, {"s1": 30, "s2": 70})
    assert one.switches.failures > before
    others = [dpid for dpid, wire in one.wires.items() if dpid != broken and wire.number]
    assert others, "every switch but that one was told"
