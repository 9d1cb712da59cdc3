"""What goes wrong on the way in or out is undone, said in one sentence, and costs no request."""

import itertools

import pytest
from pool_world import AT_REST, CONFIG, MANNER, POOL, VIP, PoolWorld, replace

from cpdb import DestinationChange, DriverError, OutcomeKind, Standing, Store
from orchestrator import Finished, ScaleIn, ScaleOut, Scaling, SetCpuLimit, Timing, passed

OUT = ScaleOut(VIP, "web2", "hB", "paused")
NUMBERS = itertools.count(1)


def carried(world: PoolWorld, action: ScaleOut | ScaleIn, seconds: int = 60) -> list[Finished]:
    """How an action ends, if it does within so many seconds."""
    coat = Scaling(world.hypervisors, world.pool, world.store, world.config, Timing(background=False))
    coat.start(next(NUMBERS), action, world.now)
    for _ in range(seconds):
        world.tick()
        if ended := coat.finished(world.now):
            return ended
    return []


def joined(store: Store, **more: object) -> PoolWorld:
    """A world in which web2 serves."""
    world = PoolWorld(store, **more)  # type: ignore[arg-type]
    assert [one.outcome for one in carried(world, OUT)] == [OutcomeKind.DONE]
    return world


def as_before(world: PoolWorld) -> None:
    assert world.states() == AT_REST | {"web4": "absent"}
    assert world.standing() == {"web1": "serving"}
    assert world.lost == []
    assert "web2" not in world.hypervisors.machines


@pytest.mark.parametrize(
    ("fail", "why"),
    [
        ({("wake", "web2"): "hB refuses"}, "hB refuses"),
        ({("answers", "web2"): "mute"}, "answer: it does not answer the agent probe after 6"),
    ],
)
def test_a_machine_that_does_not_come_up_is_laid_to_rest_again(
    fail: dict[tuple[str, str], str], why: str, store: Store
) -> None:
    world = PoolWorld(store)
    world.pool.fail = fail
    (ended,) = carried(world, OUT, 90)
    assert (ended.ok, ended.outcome) == (False, OutcomeKind.REVERTED)
    assert why in ended.sentence
    assert "\n" not in ended.sentence
    as_before(world)


def test_who_is_not_found_healthy_never_gets_traffic(store: Store) -> None:
    world = PoolWorld(store, sick={"web2"})
    got: list[int] = []
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(background=False))
    coat.start(1, OUT, world.now)
    for _ in range(40):
        world.tick()
        got.append(world.serving().get("web2", 0))
        if ended := coat.finished(world.now):
            break
    assert ended[0].outcome is OutcomeKind.REVERTED
    assert set(got) == {0}
    as_before(world)


def test_who_falls_ill_on_the_ramp_leaves_again(store: Store) -> None:
    slow = replace(POOL, manner=replace(MANNER, ramp_step_s=5.0))
    world = PoolWorld(store, config=CONFIG.tuned(declared={"pools": (slow,)}))
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(background=False))
    coat.start(1, OUT, world.now)
    while "web2" not in world.serving():
        world.tick()
        assert coat.finished(world.now) == []
    world.sick.add("web2")
    ended: list[Finished] = []
    while not ended:
        world.tick()
        ended = coat.finished(world.now)
    assert ended[0].outcome is OutcomeKind.REVERTED
    assert "no longer answers" in ended[0].sentence
    as_before(world)


def test_the_ramp_goes_up_step_by_step(store: Store) -> None:
    world = PoolWorld(store)
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(background=False))
    coat.start(1, OUT, world.now)
    weights = []
    while not coat.finished(world.now):
        world.tick()
        weights.append(world.serving().get("web2", 0))
    weights.append(world.serving()["web2"])
    assert [one for one, _ in itertools.groupby(weights)] == [0, 25, 50, 100]


def test_live_connections_are_waited_for(store: Store) -> None:
    world = joined(store, live={"web2": 3})
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(background=False))
    coat.start(next(NUMBERS), OUT.inverse(), world.now)
    for _ in range(10):
        world.tick()
        assert coat.finished(world.now) == []
    assert world.standing()["web2"] == "draining"
    assert world.serving() == {"web1": 100}
    assert world.states()["web2"] == "running"
    world.live["web2"] = 0
    ended: list[Finished] = []
    for _ in range(5):
        world.tick()
        ended += coat.finished(world.now)
    assert [one.outcome for one in ended] == [OutcomeKind.DONE]
    as_before(world)


def test_connections_that_do_not_end_keep_their_machine(store: Store) -> None:
    world = joined(store, live={"web2": 1})
    (ended,) = carried(world, OUT.inverse())
    assert ended.outcome is OutcomeKind.REVERTED
    assert "1 live connections" in ended.sentence
    assert world.serving() == {"web1": 100, "web2": 100}


def test_they_are_cut_only_where_that_is_asked_for(store: Store) -> None:
    rude = replace(POOL, manner=replace(MANNER, cut_connections=True, drain_limit_s=5.0))
    world = joined(store, live={"web2": 1}, config=CONFIG.tuned(declared={"pools": (rude,)}))
    (ended,) = carried(world, OUT.inverse())
    assert ended.outcome is OutcomeKind.DONE
    assert world.states()["web2"] == "paused"


def test_who_cannot_be_laid_to_rest_serves_again(store: Store) -> None:
    world = joined(store)
    world.pool.fail = {("rest", "web2"): "no space left to save it"}
    (ended,) = carried(world, OUT.inverse())
    assert ended.outcome is OutcomeKind.REVERTED
    assert "no space left" in ended.sentence
    lines = passed(store.workflow.steps_of(ended.number))
    assert lines[0].startswith("drain done after 0.0 s")
    assert any(one.startswith("rest failed") and "no space left" in one for one in lines)
    assert lines[-1].startswith("ramp 1 done")
    assert lines[-1].endswith("on the way back")
    assert world.serving() == {"web1": 100, "web2": 100}
    assert world.lost == []


def test_the_last_that_serves_stays(store: Store) -> None:
    world = joined(store)
    place = (VIP, "web1", "10.0.1.1", "52:54:00:00:00:01", 0)
    store.inventory.put_change(DestinationChange(*place, Standing.DRAINING, "a person", "maintenance", world.now))
    (ended,) = carried(world, OUT.inverse())
    assert ended.outcome is OutcomeKind.REVERTED
    assert "the last that serves" in ended.sentence
    assert world.serving() == {"web2": 100}


def test_what_cannot_be_undone_is_said_and_cleaned_up_later(store: Store) -> None:
    """The host goes away while a machine comes up, and comes back: the loop finds the machine and lays it to rest."""
    world = PoolWorld(store, lambda _t: 40.0, sick={"web2"})
    world.config = CONFIG.tuned(declared={"pools": (replace(POOL, members=POOL.members[:1], most=2, least=2),)})
    world.orchestrator = world.fresh()
    world.run(6)
    assert world.states()["web2"] == "running"
    world.pool.away = {"hB"}
    world.run(70)
    outcomes = [one[1] for one in world.outcomes("scale_out")]
    assert outcomes[0] == "not_reverted"
    assert "undoing it failed" in world.outcomes("scale_out")[0][2]
    world.pool.away = set()
    world.config = world.config.tuned(declared={"pools": (replace(world.config.declared.pools[0], least=1),)})
    world.rate = lambda _t: 1.0
    world.orchestrator = world.fresh()
    world.run(60)
    assert world.settled()
    assert world.states()["web2"] == "paused"
    assert world.serving() == {"web1": 100}


def test_strays_are_laid_to_rest(store: Store) -> None:
    world = PoolWorld(store)
    member = POOL.members[0]
    world.pool.wake(POOL, member, world.now)
    place = (VIP, "web3", "10.0.1.3", "52:54:00:00:00:03", 100)
    store.inventory.put_change(DestinationChange(*place, Standing.JOINING, "who was killed", "", world.now))
    world.run(30)
    assert world.settled()
    as_before(world)
    assert {one[0] for one in world.outcomes("scale_in")} == {"web2", "web3"}


def test_without_a_pool_it_is_one_clear_line(store: Store) -> None:
    world = PoolWorld(store)
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(background=False))
    for action in (ScaleOut("10.9.9.9", "web2", "hB", "paused"), ScaleOut(VIP, "nobody", "hB", "paused")):
        with pytest.raises(DriverError) as caught:
            coat.start(1, action, world.now)
        assert "in no pool" in str(caught.value)
    with pytest.raises(DriverError, match="no pool is declared"):
        world.hypervisors.start(1, OUT, world.now)
    coat.start(2, SetCpuLimit("web1", 0.2, 0.3), world.now)
    world.now += 5
    assert [one.number for one in coat.finished(world.now)] == [2], "all else goes to the hypervisors underneath"


def test_in_the_background_it_goes_on_by_itself(store: Store) -> None:
    """Real threads and a real clock, as in the process; the controller's word is there already."""
    import time

    world = PoolWorld(
        store, config=CONFIG.tuned(declared={"pools": (replace(POOL, manner=replace(MANNER, ramp_step_s=0.0)),)})
    )
    world.now = time.time()
    world.pool.boot_s = {"paused": 0.0}
    coat = Scaling(world.hypervisors, world.pool, store, world.config, Timing(look_every_s=0.01))
    coat.start(1, OUT, world.now)
    ended: list[Finished] = []
    until = time.monotonic() + 30
    while not ended and time.monotonic() < until:
        world.now = time.time()
        world._controller()
        ended = coat.finished(time.time())
        time.sleep(0.02)
    coat.close()
    assert [one.outcome for one in ended] == [OutcomeKind.DONE]
    assert world.serving() == {"web1": 100, "web2": 100}
    assert store.leases.holder("action/1", time.time()) is None


def test_after_one_that_failed_another_is_tried(store: Store) -> None:
    world = PoolWorld(store, sick={"web2"})
    world.config = CONFIG.tuned(declared={"pools": (replace(POOL, least=2),)}, guard={"retry_s": 60.0})
    world.orchestrator = world.fresh()
    world.run(60)
    assert [one[:2] for one in world.outcomes("scale_out")] == [("web2", "reverted"), ("web3", "done")]
    assert set(world.serving()) == {"web1", "web3"}


def test_who_stays_mute_is_replaced(store: Store) -> None:
    world = PoolWorld(store)
    world.config = CONFIG.tuned(declared={"pools": (replace(POOL, least=2),)})
    world.orchestrator = world.fresh()
    world.run(20)
    assert set(world.serving()) == {"web1", "web2"}
    world.sick.add("web2")
    world.run(60)
    assert set(world.serving()) == {"web1", "web3"}
    assert world.states()["web2"] == "paused"
    assert world.settled()
