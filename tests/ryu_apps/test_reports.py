"""Sessions and reports, with a wire that answers like a switch: what is said of a reservation is what became of it."""

from dataclasses import dataclass, field

import pytest
from answering_wire import Wire
from simulated import VIP, World, address, declared

from cpdb import Limit, Pair, Reservation
from ryu_apps.effects import AddMeter, Change
from ryu_apps.pipeline import desired
from ryu_apps.policers import allot_meters
from ryu_apps.shares import limits, share
from ryu_apps.status.answers import NOWHERE, ReservationPublisher
from ryu_apps.switch.abilities import Abilities
from ryu_apps.switch.reconcile import Holding
from ryu_apps.switch.session import Session

FIRST = 60_000


@dataclass
class Controlled:
    """The world with one real session, to leaf1."""

    world: World
    wire: Wire
    session: Session
    reports: ReservationPublisher = field(default_factory=ReservationPublisher)

    def want(self, *reservations: Reservation) -> None:
        self.world.network.declare(declared(reservations=reservations), self.world.now)
        part = share(self.world.network, 0x11, limits(self.world.network, self.world.now))
        numbers = allot_meters([one.number for one in part.police], {}, FIRST)
        if self.session.reconcile(desired(part, numbers, self.session.has_meters), self.world.now, may_delete=True):
            self.session.barrier(lambda: None)

    def confirm(self) -> None:
        self.wire.answer(self.session, self.world.now)

    def news(self) -> list[tuple[str, str, int]]:
        wanted = limits(self.world.network, self.world.now)
        rows = self.reports.news(self.world.network, {0x11: self.session}, wanted, self.world.now)
        return [(row.node, row.status, row.generation) for row in rows]


@pytest.fixture
def controlled() -> Controlled:
    world = World()
    world.start()
    wire = Wire(world.switches[0x11], 0x11)
    session = Session(wire, FIRST, world.now)
    session.abilities = Abilities(max_meters=262_144)
    held = world.switches[0x11]
    session.holding = Holding.read(held.rules(world.now), held.meters(), FIRST, held.groups())
    return Controlled(world, wire, session)


def out_of_meters(change: Change) -> str | None:
    return "OFPET_METER_MOD_FAILED/OFPMMFC_OUT_OF_METERS" if isinstance(change, AddMeter) else None


def reservation(generation: int = 1, source: str = "c1") -> Reservation:
    limit = Limit(Pair(source, VIP), 1e5)
    return Reservation("r", Pair("c2", VIP), 1e6, (limit,), "o", "why", 0.0, 1100.0, generation=generation)


def test_installed_is_said_only_after_the_switch_confirmed(controlled: Controlled) -> None:
    controlled.want(reservation())
    assert controlled.news() == []
    controlled.confirm()
    assert controlled.news() == [("leaf1", "installed", 1)]
    assert controlled.news() == []
    controlled.want(reservation(generation=2))
    assert controlled.news() == [("leaf1", "installed", 2)]
    controlled.want()
    controlled.confirm()
    assert controlled.news() == [("leaf1", "removed", 2)]


def test_a_mark_alone_is_installed_even_on_a_switch_without_meters(controlled: Controlled) -> None:
    controlled.session.abilities = Abilities()
    now = controlled.world.now
    item = Reservation("r", Pair("c1", VIP), 1e6, (), "o", "why", now, now + 8, dscp=46, generation=1)
    controlled.want(item)
    assert controlled.news() == []
    controlled.confirm()
    assert controlled.news() == [("leaf1", "installed", 1)]
    controlled.want()
    controlled.confirm()
    assert controlled.news() == [("leaf1", "removed", 1)]


def test_what_the_switch_refuses_is_said_and_not_tried_again_at_once(controlled: Controlled) -> None:
    controlled.wire.refuse = out_of_meters
    controlled.want(reservation())
    controlled.confirm()
    assert controlled.news() == [("leaf1", "refused", 1)]
    sent = controlled.wire.number
    controlled.world.now += 1.0
    controlled.want(reservation())
    assert controlled.wire.number == sent
    controlled.world.now += 40.0
    controlled.wire.refuse = lambda _change: None
    controlled.want(reservation())
    controlled.confirm()
    assert controlled.news() == [("leaf1", "installed", 1)]


def test_a_switch_without_meters_and_a_source_nobody_saw_are_refused(controlled: Controlled) -> None:
    controlled.session.abilities = Abilities()
    controlled.want(reservation())
    controlled.confirm()
    assert controlled.news() == [("leaf1", "refused", 1)]
    controlled.want(reservation(source="c9"))
    assert set(controlled.news()) == {("leaf1", "removed", 1), (NOWHERE, "refused", 1)}


def test_a_source_may_be_named_by_its_address(controlled: Controlled) -> None:
    controlled.want(reservation(source=address("c1")))
    controlled.confirm()
    assert controlled.news() == [("leaf1", "installed", 1)]
