"""A controller stops before another may begin, and hands over what it is asked to, without a moment of two masters."""

import time
from pathlib import Path

import pytest

from cpdb import open_store
from ryu_apps.duty import LEASE_S, RENEW_S, Duty

FABRIC = frozenset({1, 2})


class Controller:
    """What an application does with its duty: it serves what it may, as soon as it looks."""

    def __init__(self, name: str, url: str) -> None:
        self.duty = Duty(name, url)
        self.served: set[int] = set()

    def look(self, steps: bool = True) -> set[int]:
        if steps:
            self.duty.step()
        self.served = set(self.duty.tenures())
        self.duty.tell(FABRIC, [FABRIC], self.served)
        return self.served if self.duty.may_change() else set()


@pytest.fixture
def url(tmp_path: Path) -> str:
    open_store(found := f"sqlite:///{tmp_path}/cpdb.db").close()
    return found


def test_one_takes_all_and_the_other_knows(url: str) -> None:
    one, two = Controller("one", url), Controller("two", url)
    for controller in (one, two) * 3:
        controller.look()
    assert one.served == FABRIC and not two.served
    assert one.duty.others == {"two"} and two.duty.others == {"one"}
    assert two.duty.generation(1) == one.duty.tenures()[1] > 0
    assert two.duty.is_elsewhere(1, two.served) and two.duty.is_elsewhere(None, two.served)
    assert not one.duty.is_elsewhere(1, one.served) and not one.duty.is_elsewhere(None, one.served)


def test_a_master_that_cannot_renew_stops_before_another_begins(url: str) -> None:
    one, two = Controller("one", url), Controller("two", url)
    for controller in (one, two) * 3:
        controller.look()
    assert one.look() == FABRIC
    end = time.monotonic() + LEASE_S + 4 * RENEW_S
    handed_over = False
    while time.monotonic() < end:
        later = two.look()
        before = one.look(steps=False)
        # Asked after the other: had both answered yes, there would have been two.
        assert not (later and before)
        handed_over = handed_over or later == FABRIC
        time.sleep(0.02)
    assert handed_over
    # It learns of that as soon as it can, and stands by.
    assert one.look() == set() and one.served == set()
    assert one.duty.generation(1) == two.duty.tenures()[1]


def test_another_that_is_not_heard_of_for_a_moment_may_still_follow(url: str) -> None:
    one, two = Controller("one", url), Controller("two", url)
    one.look()
    assert not one.duty.may_be_followed()
    for controller in (two, one):
        controller.look()
    assert one.duty.others and one.duty.may_be_followed()
    time.sleep(LEASE_S + 0.1)
    one.look()
    assert not one.duty.others and one.duty.may_be_followed()


def test_one_that_is_alone_goes_on_without_a_database(url: str) -> None:
    one = Controller("one", url)
    for _ in range(2):
        one.look()
    time.sleep(LEASE_S + 0.1)
    assert one.look(steps=False) == FABRIC
    assert one.look() == FABRIC


def test_without_any_database_it_serves_all(tmp_path: Path) -> None:
    one = Controller("one", f"sqlite:///{tmp_path}/nowhere/cpdb.db")
    assert one.look() == set()
    one.duty.no_database = True
    assert one.look() == FABRIC
    assert set(one.duty.tenures().values()) == {0}


def test_who_ends_in_order_is_followed_at_once_and_takes_nothing_back(url: str) -> None:
    one, two = Controller("one", url), Controller("two", url)
    for controller in (one, two) * 3:
        controller.look()
    one.duty.end()
    assert not one.duty.step()
    assert two.look() == FABRIC
    assert two.duty.others == set()
