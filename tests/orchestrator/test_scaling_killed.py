"""Killed before or after any single deed of a way in or out: whoever follows finishes it or undoes it, never half."""

import itertools
from typing import Any

import pytest
from pool_world import AT_REST, CONFIG, POOL, VIP, PoolWorld, replace

from cpdb import OutcomeKind, Store
from orchestrator import FakePool, Finished, ScaleIn, ScaleOut, Scaling, Timing


class Killed(BaseException):
    """The process is gone; nothing catches this."""


class Deaths:
    """Counts moments, and kills at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def strike(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise Killed


class Mortal:
    """Passes everything on to `inner`; before and after each of its `deeds` its user may die."""

    def __init__(self, inner: Any, deeds: tuple[str, ...], deaths: Deaths) -> None:
        self._inner, self._deeds, self._deaths = inner, deeds, deaths

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._deeds:
            return found

        def mortal(*args: Any, **more: Any) -> Any:
            self._deaths.strike()
            result = found(*args, **more)
            self._deaths.strike()
            return result

        return mortal


def mortal(world: PoolWorld, deaths: Deaths) -> tuple[Store, FakePool]:
    """Store and machines of a process that dies at its time."""
    progress = Mortal(world.store.workflow, ("note",), deaths)
    wanted = Mortal(world.store.inventory, ("put_change", "forget_change"), deaths)
    machines: FakePool = Mortal(world.pool, ("wake", "rest"), deaths)  # type: ignore[assignment]
    return replace(world.store, workflow=progress, inventory=wanted), machines


def carried(world: PoolWorld, number: int, action: ScaleOut | ScaleIn, deaths: Deaths) -> tuple[list[Finished], bool]:
    """What came of an action, and whether its first process died of it; its successor goes on from the notes."""
    store, machines = mortal(world, deaths)
    died, ended, coat = False, [], Scaling(world.hypervisors, machines, store, world.config, Timing(background=False))
    coat.start(number, action, world.now)
    for _ in range(90):
        world.tick()
        try:
            ended += coat.finished(world.now)
        except Killed:
            died = True
            coat = Scaling(world.hypervisors, world.pool, world.store, world.config, Timing(background=False))
            coat.start(number, action, world.now)
        if ended:
            break
    return ended, died


def whole(world: PoolWorld) -> None:
    """Nobody lost a request to a machine that was not there, and nothing is left half done or twice."""
    assert world.lost == []
    assert world.settled(), (world.states(), world.standing())
    names = [one.name for vip in world.store.inventory.virtual_ips() for one in vip.destinations]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("vm", ["web2", "web4"])
def test_killed_at_any_moment_of_the_way_in_and_out(vm: str, store: Store) -> None:
    """One world goes through one death after the other: in each round one moment later, there and back."""
    member = POOL.member(vm)
    assert member is not None
    world = PoolWorld(store, config=CONFIG.tuned(declared={"pools": (replace(POOL, members=(member,), most=2),)}))
    out = ScaleOut(VIP, vm, member.host, member.how)
    number, alive, died = itertools.count(1), set(), 0
    for moment in itertools.count(1):
        for action in (out, out.inverse()):
            ended, fatal = carried(world, next(number), action, Deaths(moment))
            assert [one.outcome for one in ended] == [OutcomeKind.DONE]
            whole(world)
            assert (vm in world.serving()) == (action is out)
            died += fatal
            alive |= set() if fatal else {action.kind}
        assert world.states()[vm] == AT_REST.get(vm, "absent")
        if len(alive) == 2:
            break
    assert died > 40, "that many moments there are at least: notes, changes, wakings and rests, before and after each"


def test_killed_on_the_way_back(store: Store) -> None:
    """A machine that is never found healthy goes back to rest, whoever dies meanwhile."""
    world = PoolWorld(store, sick={"web2"})
    for moment in itertools.count(1):
        ended, died = carried(world, moment, ScaleOut(VIP, "web2", "hB", "paused"), Deaths(moment))
        assert [one.outcome for one in ended] == [OutcomeKind.REVERTED]
        assert "health" in ended[0].sentence
        whole(world)
        assert world.states() == {"web2": "paused", "web3": "saved", "web4": "absent"}
        assert world.serving() == {"web1": 100}
        if not died:
            break
    assert moment > 15


def test_a_killed_orchestrator_is_followed_by_one_that_reads_the_journal(store: Store) -> None:
    """The whole loop: the successor finds the pending action and carries it on; the machine joins once."""
    world = PoolWorld(store)
    for least, moment in ((2, 2), (3, 9), (4, 16)):
        world.config = CONFIG.tuned(timing={"duty_s": 2.0}, declared={"pools": (replace(POOL, least=least),)})
        store_of_mortal, machines = mortal(world, Deaths(moment))
        world.orchestrator = world.fresh(store_of_mortal, machines)
        with pytest.raises(Killed):
            world.run(60)
        world.orchestrator = world.fresh()
        world.run(25)
        whole(world)
    assert [one[1] for one in world.outcomes("scale_out")] == ["done"] * 3
    assert set(world.serving()) == {"web1", "web2", "web3", "web4"}


def test_two_processes_with_the_same_action_take_its_steps_once(store: Store) -> None:
    world = PoolWorld(store)
    coats = [Scaling(world.hypervisors, world.pool, store, CONFIG, Timing(background=False)) for _ in range(2)]
    for coat in coats:
        coat.start(1, ScaleOut(VIP, "web2", "hB", "paused"), world.now)
    ended: list[list[Finished]] = [[], []]
    for _ in range(20):
        world.tick()
        for coat, own in zip(coats, ended, strict=True):
            own += coat.finished(world.now)
    assert [len(one) for one in ended] == [1, 1], "both learn how it ended"
    assert world.pool.calls.count(("wake", "web2")) == 1
    whole(world)
