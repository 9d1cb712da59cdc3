"""Two orchestrators that both believe to be on duty: only the one that has the lease can act."""

from collections.abc import Callable

import pytest
from fake_world import CONFIG, START

from cpdb import (
    ActionRecord,
    ActionTiming,
    DestinationChange,
    Fence,
    Pair,
    Reservation,
    Standing,
    Store,
    WantedSplit,
    WantedWeights,
)
from cpdb.errors import StoreRefused
from orchestrator.duty import ACTING, Turn

VIP = "10.0.0.100"
ACTION = ActionRecord("migrate_vm", "vm", {}, "", {}, "p", START, ActionTiming(START, 1.0))
EFFECTS: dict[str, Callable[[Store], object]] = {
    "reserve": lambda store: store.wanted.reserve(Reservation("r", Pair("c", VIP), 1.0, (), "o", "", START, START + 9)),
    "release": lambda store: store.wanted.release("held", START),
    "weights": lambda store: store.wanted.want_weights(WantedWeights(VIP, {"s": 1}, "o", "")),
    "split": lambda store: store.wanted.put_splits(
        [WantedSplit("a", "b", (("a", "b"),), (1.0,), (3072,), "o", "", START)]
    ),
    "clear": lambda store: store.wanted.clear(START),
    "destination": lambda store: store.inventory.put_change(
        DestinationChange(VIP, "s", "10.0.0.1", "02:00:00:00:00:01", 1, Standing.SERVING, "o", "", START)
    ),
    "action": lambda store: store.journal.add_action(ACTION),
    "machine": lambda store: store.journal.fence.confirm(store.engine),
}


def everything(store: Store) -> tuple[object, ...]:
    return (
        store.wanted.generation(),
        store.wanted.reservations(START),
        store.wanted.weights(),
        store.wanted.splits(),
        store.inventory.changes(),
        [one.kind for one in store.journal.actions()],
    )


@pytest.mark.parametrize("effect", EFFECTS)
def test_of_two_that_both_believe_only_the_one_with_the_lease_acts(store: Store, effect: str) -> None:
    late, now_acting = Turn(CONFIG, store, "late"), Turn(CONFIG, store, "acting")
    assert late.take(START)
    believing, working = store.fenced(late.fence), store.fenced(now_acting.fence)
    believing.wanted.reserve(Reservation("held", Pair("c", VIP), 1.0, (), "o", "", START, START + 99))
    assert now_acting.take(START + CONFIG.timing.duty_s + 1)
    # It was stopped for so long, and still believes what it knew.
    assert late.on_duty
    before = everything(store)
    with pytest.raises(StoreRefused, match="lease orchestrator"):
        EFFECTS[effect](believing)
    assert everything(store) == before
    EFFECTS[effect](working)
    EFFECTS[effect](store)
    assert effect == "machine" or everything(store) != before


def test_who_comes_back_with_a_new_lease_may_not_use_what_it_began_with_the_old_one(store: Store) -> None:
    one, two = Turn(CONFIG, store, "one"), Turn(CONFIG, store, "two")
    one.take(START)
    old = Fence(one.fence.lease, one.fence.holder, one.fence.token)
    two.take(START + 10)
    two.give_back()
    assert one.take(START + 11)
    with pytest.raises(StoreRefused):
        EFFECTS["weights"](store.fenced(old))
    EFFECTS["weights"](store.fenced(one.fence))


def test_leases_follow_the_clock_of_the_database_whatever_the_machines_say(store: Store) -> None:
    one, two = Turn(CONFIG, store, "one"), Turn(CONFIG, store, "two")
    one.clock = two.clock = store.leases.now
    assert one.take(START)
    # A clock that is an hour ahead is no reason to take over.
    assert not two.take(START + 3600)
    held = store.leases.holder(ACTING, store.leases.now())
    assert held is not None and held.holder == "one"
