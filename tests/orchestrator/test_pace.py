"""Decisions are further apart only where nothing is needed as far as all is trusted; the loop measures as ever."""

import threading
from dataclasses import replace

from fake_world import CONFIG as LOOP_CONFIG
from fake_world import Simulation, paths
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, foreseen, machines, pair_state, vm, world, worlds

from cpdb import Store, Trust
from orchestrator import Orchestrator, OrchestratorConfig, World, plan, run
from orchestrator.context import PlanningContext
from orchestrator.pace import FIRST, planning_interval_s

SLOWER = CONFIG.tuned(timing={"steady_cycle_s": 4.0})


def steady(trust_s: int = 30, **more: object) -> World:
    """One pair that sends as it ever did, far below everything."""
    state = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop1"), dict.fromkeys((5, 15, 30), 2.0))
    trust = Trust(trust_s, 0.1, 0.3, 0.25, 1.5)
    fans = {key: replace(one, trust=trust) for key, one in state.forecasts.items()}
    return world([replace(state, forecasts=fans)], **machines(vm("shop1", "h1", 0.05, 0.5, calm=True)), **more)


def apart(start: World, config: OrchestratorConfig = SLOWER) -> float:
    context = PlanningContext.of(start, config)
    return planning_interval_s(context, plan(context))


def test_where_all_is_steady_decisions_are_further_apart_within_the_bound() -> None:
    assert apart(steady()) == 4.0
    assert apart(steady(), CONFIG) == CONFIG.timing.cycle_s


def test_where_little_is_trusted_or_much_is_used_they_are_not() -> None:
    assert apart(steady(trust_s=0)) == 1.0
    assert apart(steady(trust_s=5)) == 1.0
    assert apart(steady(), SLOWER.tuned(policy="reactive")) == 1.0
    busy = steady()
    assert apart(replace(busy, vms={"shop1": replace(busy.vms["shop1"], cores_used=0.45)})) == 1.0
    assert apart(steady(capacity=60_000.0)) == 1.0


@settings(max_examples=60, deadline=None)
@given(worlds(), st.floats(0.2, 10.0))
def test_no_interval_takes_an_action_its_lead_time(start: World, most_s: float) -> None:
    config = CONFIG.tuned(timing={"steady_cycle_s": most_s})
    context = PlanningContext.of(start, config)
    wanted = plan(context)
    found = planning_interval_s(context, wanted)
    assert 1.0 <= found <= max(1.0, most_s)
    if found > 1.0:
        assert not wanted.steps
        lead_s = max(context.lead_s(kind) for kind in FIRST)
        within = config.demand.horizon_for(found + lead_s)
        assert within is not None
        assert all(context.demand.of(pair, within).bytes.forecast for pair in start.pairs)


class Counted(Orchestrator):
    """Counts, and says that it need not decide again for four seconds."""

    seen, decided = 0, 0

    def observe(self, now: float) -> None:
        self.seen += 1
        super().observe(now)

    def cycle(self, now: float):  # type: ignore[no-untyped-def]
        self.decided += 1
        return replace(super().cycle(now), again_s=4.0)


class VirtualTime(threading.Event):
    """Ends after 13 s of a clock that only waiting moves on."""

    now = 5_000_000.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        if self.now >= 5_000_013.0:
            self.set()
        return self.is_set()


def test_the_loop_measures_each_cycle_and_decides_as_seldom_as_it_may(store: Store) -> None:
    counted, time = Counted(LOOP_CONFIG, store, Simulation(store).hypervisors, paths), VirtualTime()
    assert run(counted, 1.0, time, clock=lambda: time.now) == 0
    assert (counted.seen, counted.decided) == (13, 4)
