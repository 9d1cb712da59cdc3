"""Fabrics are spread evenly over controllers, stay where they are, and each goes as a whole to one that reaches it."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cpdb import ControlPicture, LeaseHolder, Link
from cpdb.state.masterships import ControllerPresence
from ryu_apps.roles import BETTER_FOR_S, FEWER_FOR_S, RoleRule, claim_of, join_fabrics
from ryu_apps.topology.state import Directory

FABRICS = [frozenset({1, 2, 3}), frozenset({4, 5}), frozenset({6}), frozenset({7})]
ALL = frozenset().union(*FABRICS)


class Leases:
    """What the database would say: each controller asks in turn, and gets what is free."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.connected = {name: set(ALL) for name in names}
        self.rules = {name: RoleRule() for name in names}
        self.masters: dict[int, str] = {}
        self.moves = 0

    def picture(self) -> ControlPicture:
        alive = [ControllerPresence(name, tuple(own), 0.0, 0.0) for name, own in sorted(self.connected.items())]
        held = {dpid: LeaseHolder("", name, 0.0, 0.0) for dpid, name in self.masters.items()}
        return ControlPicture(self.now, tuple(alive), held)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            for name in sorted(self.connected):
                picture = self.picture()
                claim = claim_of(name, self.connected[name], self.rules[name].decide(picture, FABRICS), picture)
                for dpid in claim.give:
                    del self.masters[dpid]
                    self.moves += 1
                self.masters |= dict.fromkeys(claim.take, name)

    def die(self, name: str) -> None:
        del self.connected[name]
        self.masters = {dpid: holder for dpid, holder in self.masters.items() if holder != name}

    def whole(self) -> bool:
        return (
            all(len({self.masters.get(dpid) for dpid in fabric}) == 1 for fabric in FABRICS) and {*self.masters} == ALL
        )


def test_fabrics_are_what_links_join() -> None:
    one, two, three = (f"dpid:{number:016x}" for number in (1, 2, 3))
    links = [Link(one, 1, two, 1, None), Link(two, 2, "a host", 1, None), Link(two, 3, three, 1, None)]
    assert join_fabrics(links, Directory(), {1, 3, 9}) == [frozenset({1, 2, 3}), frozenset({9})]


def test_one_takes_all_at_once_and_a_second_gets_its_share_after_a_while() -> None:
    leases = Leases("a")
    leases.run(0.5)
    assert leases.masters == dict.fromkeys(ALL, "a")
    leases.connected["b"], leases.rules["b"] = set(ALL), RoleRule()
    leases.run(FEWER_FOR_S - 2)
    assert set(leases.masters.values()) == {"a"}
    leases.run(3 * FEWER_FOR_S)
    assert leases.whole() and sorted(Counter(leases.masters.values()).values()) == [3, 4]
    moved = leases.moves
    leases.run(60)
    assert leases.moves == moved


def test_whoever_is_left_takes_over_what_the_dead_one_had() -> None:
    leases = Leases("a", "b", "c")
    leases.run(40)
    assert leases.whole() and len(set(leases.masters.values())) == 3
    leases.die("b")
    leases.run(1)
    assert leases.whole() and set(leases.masters.values()) == {"a", "c"}


def test_a_fabric_goes_to_the_one_that_reaches_more_of_it_but_not_for_a_moment() -> None:
    leases = Leases("a", "b")
    leases.run(40)
    owner = leases.masters[1]
    leases.connected[owner].discard(2)
    leases.run(BETTER_FOR_S - 1)
    assert leases.masters[1] == owner
    leases.connected[owner].add(2)
    leases.run(BETTER_FOR_S)
    assert leases.masters[1] == owner
    leases.connected[owner].discard(2)
    leases.run(BETTER_FOR_S + 2)
    assert leases.masters[1] == leases.masters[2] != owner


EVENTS = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["come", "die", "lose", "find"]), st.sampled_from(sorted(ALL))
)


@settings(max_examples=40, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_comes_and_goes_all_is_whole_and_still_in_the_end(events: list[tuple[str, str, int]]) -> None:
    leases = Leases("z")
    for name, event, dpid in events:
        if event == "come" and name not in leases.connected:
            leases.connected[name], leases.rules[name] = set(ALL), RoleRule()
        elif event == "die" and name in leases.connected:
            leases.die(name)
        elif name in leases.connected:
            getattr(leases.connected[name], "discard" if event == "lose" else "add")(dpid)
        leases.run(1)
    leases.run(120)
    assert leases.whole()
    moved = leases.moves
    leases.run(60)
    assert leases.moves == moved
