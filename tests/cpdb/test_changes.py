"""What is changed, asked for and found out at run time comes back as it was put in, on every engine."""

from dataclasses import replace

import pytest

from cpdb import (
    Alarm,
    BandwidthRequest,
    Destination,
    DestinationChange,
    RequestState,
    Standing,
    Store,
    VirtualIp,
    WantedSplit,
    WorkflowStep,
)

VIP = VirtualIp(
    "10.0.0.100", "shop", 5, (Destination("a", "10.0.0.1", "02:00:00:00:00:01"),), affinity="connection", probe="tcp:80"
)


def change(name: str, standing: Standing, weight: int = 50) -> DestinationChange:
    place = (f"10.0.0.{ord(name)}", f"02:00:00:00:01:{ord(name):02x}")
    return DestinationChange(VIP.address, name, *place, weight, standing, "test", "why not", 7.0)


def test_virtual_ips_are_as_declared_until_somebody_changes_them(store: Store) -> None:
    store.inventory.declare_virtual_ips([VIP])
    assert store.inventory.virtual_ips() == [VIP]
    before = store.wanted.generation()
    generation = store.inventory.put_change(change("b", Standing.JOINING))
    assert generation > before
    (now,) = store.inventory.virtual_ips()
    assert [(one.name, one.weight, one.standing) for one in now.destinations] == [
        ("a", 100, Standing.SERVING),
        ("b", 50, Standing.JOINING),
    ]
    assert store.inventory.virtual_ips(declared_only=True) == [VIP]
    assert store.inventory.changes() == [replace(change("b", Standing.JOINING), generation=generation)]


def test_a_changed_destination_is_there_once_and_a_removed_one_is_gone(store: Store) -> None:
    store.inventory.declare_virtual_ips([VIP])
    for standing in (Standing.JOINING, Standing.SERVING, Standing.DRAINING):
        store.inventory.put_change(change("b", standing))
    (now,) = store.inventory.virtual_ips()
    assert [one.standing for one in now.destinations] == [Standing.SERVING, Standing.DRAINING]
    store.inventory.put_change(change("a", Standing.REMOVED))
    store.inventory.declare_virtual_ips([VIP])  # a restart says the same again
    (now,) = store.inventory.virtual_ips()
    assert [one.name for one in now.destinations] == ["b"]
    assert store.inventory.forget_change(VIP.address, "a") and not store.inventory.forget_change(VIP.address, "a")
    store.inventory.forget_change(VIP.address, "b")
    assert store.inventory.virtual_ips() == [VIP]


def test_the_same_alarm_is_counted_and_a_cleared_one_can_come_again(store: Store) -> None:
    alarm = Alarm("moved", "shop1", "leaf1", "was at port 1, is at port 2", 1.0, 1.0)
    store.alarms.raise_([alarm])
    store.alarms.raise_([replace(alarm, last_at=3.0, detail="again")])
    assert store.alarms.open() == [replace(alarm, last_at=3.0, detail="again", count=2)]
    assert store.alarms.clear("moved", "shop1", "leaf1", 4.0)
    assert not store.alarms.clear("moved", "shop1", "leaf1", 4.0)
    assert store.alarms.open() == []
    store.alarms.raise_([replace(alarm, first_at=5.0, last_at=5.0)])
    assert [one.count for one in store.alarms.open()] == [1]
    assert [one.cleared_at for one in store.alarms.since(0.0)] == [None, 4.0]


def test_splits_are_replaced_and_removed_in_one_generation(store: Store) -> None:
    one = WantedSplit("s1", "s2", (("s1", "s2"), ("s1", "s3", "s2")), (0.75, 0.25), (11, 12), "test", "hedge", 1.0)
    other = replace(one, to_switch="s4")
    first = store.wanted.put_splits([one, other])
    assert store.wanted.splits() == [replace(one, generation=first), replace(other, generation=first)]
    second = store.wanted.put_splits([replace(one, ratios=(0.5, 0.5))], removed=[("s1", "s4")])
    assert second == first + 1
    assert store.wanted.splits() == [replace(one, ratios=(0.5, 0.5), generation=second)]
    store.wanted.clear_splits()
    assert store.wanted.splits() == []
    assert store.wanted.generation() == second + 1


def test_a_request_is_open_until_it_is_over_withdrawn_or_refused(store: Store) -> None:
    asked = BandwidthRequest("c1", "10.0.0.100", 5e5, 100.0, "a talk", "somebody", 1.0, tenant="blue")
    number = store.requests.ask(asked)
    (found,) = store.requests.open(50.0)
    assert found == replace(asked, id=number)
    partly = found.answered(state=RequestState.PARTLY, granted_bytes_per_s=2e5, why="leaf1>spine1", decided_at=2.0)
    store.requests.amend(partly)
    assert store.requests.open(50.0) == [partly]
    assert store.requests.open(100.0) == []
    other = store.requests.ask(replace(asked, source=""))
    store.requests.amend(replace(asked, id=other).answered(state=RequestState.REFUSED))
    assert [one.id for one in store.requests.open(50.0)] == [number]
    assert store.requests.withdraw(number, 60.0) and not store.requests.withdraw(number, 60.0)
    assert [one.answer.state for one in store.requests.since(0.5)] == [RequestState.ENDED, RequestState.REFUSED]


def test_steps_of_an_action_are_kept_in_order(store: Store) -> None:
    notes = [
        WorkflowStep(4, "made", 1.0, {"vm": "x"}),
        WorkflowStep(4, "booted", 2.0, {}),
        WorkflowStep(5, "made", 3.0, {}),
    ]
    for note in notes:
        store.workflow.note(note)
    assert store.workflow.steps_of(4) == notes[:2]
    assert store.workflow.steps_of_many((4, 5, 6)) == {4: notes[:2], 5: notes[2:]}
    assert store.workflow.steps_of(6) == []


@pytest.mark.parametrize("standing", list(Standing))
def test_a_change_of_an_unknown_virtual_ip_changes_nothing(store: Store, standing: Standing) -> None:
    store.inventory.put_change(change("b", standing))
    assert store.inventory.virtual_ips() == []
