"""Whoever has looked before sees what somebody sees who looks for the first time, late rows and gaps included."""

import random
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_world import fan
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from cpdb import (
    Batch,
    Communication,
    Destination,
    FlowKey,
    Forecast,
    Link,
    LinkLoad,
    Pair,
    Quantity,
    Store,
    VirtualIp,
    VmLoad,
    open_store,
)
from cpdb.schema import batches, pending
from orchestrator import HostSpec, OrchestratorConfig, VmSpec, World, plan
from orchestrator.context import PlanningContext
from orchestrator.lead_times import LeadTimes
from orchestrator.observe.gather import FORGET_PAIR_S, Gatherer
from orchestrator.observe.measured import RECENT_S, TYPICAL_S

START = 10_000.0
SERVICES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
SPREAD = SERVICES[2]
VMS = tuple(f"vm{n}" for n in range(5))
# Learnt anew at each look, from a window short enough to move: so both sides learn from the same.
CONFIG = OrchestratorConfig(
    declared={
        "hosts": tuple(HostSpec(f"h{n}", "", "", 1.0, 1 << 33) for n in range(3)),
        "vms": tuple(VmSpec(name, 10 * (n % 2), 0.2, 0.8, 2, movable=True) for n, name in enumerate(VMS)),
    },
    timing={"history_s": 60.0, "learn_every_s": 0.0},
    guard={"stop_file": None},
)


def paths(source: str, end: str) -> tuple[str, ...]:
    return (source, "leaf", "spine", end)


class Town:
    """Two observers that tell all and one that does not, machines that come and go, all from one seed."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.rng, self.t = store, random.Random(seed), START
        self.late: list[Callable[[], object]] = []
        behind = tuple(Destination(name, f"10.1.0.{n}", f"02:00:00:00:00:0{n}") for n, name in enumerate(VMS))
        store.inventory.declare_virtual_ips(
            [
                VirtualIp(SERVICES[0], "a", 10, behind[:2]),
                VirtualIp(SERVICES[1], "b", 0, behind[2:4]),
                VirtualIp(SPREAD, "c", 5, behind[3:], affinity="connection"),
            ]
        )
        store.inventory.put_links(
            [Link("leaf", 1, "spine", 1, 2e5, declared=True), *(Link("spine", 9, vm, 0, 1e6) for vm in VMS)]
        )

    def key(self) -> FlowKey:
        service = self.rng.choice(SERVICES)
        named = None if service == SPREAD else self.rng.choice(VMS[:4])
        return FlowKey(f"c{self.rng.randrange(6)}", service, named if self.rng.random() < 0.9 else None)

    def second(self) -> None:
        self.t += self.rng.choice((1.0, 1.0, 1.0, 7.0 if self.rng.random() < 0.1 else 0.9))
        t = self.t
        for observer in ("leaf1", "leaf2", "part"):
            keys = sorted({self.key() for _ in range(self.rng.randrange(4))}, key=str)
            counts = [self.rng.randrange(1, 30) for _ in keys]
            sizes = [count * self.rng.randrange(500, 3000) for count in counts]
            columns = (array("q", sizes), array("q", [1 for _ in keys]), array("q", counts))
            batch = Batch(observer, t, self.rng.choice((1.0, 0.99)), keys, *columns, complete=observer != "part")
            self.write(lambda batch=batch: self.store.facts.add_batches([batch]))
        loads = [
            VmLoad(name, f"h{n % 3}", t, "paused" if self.rng.random() < 0.02 else "running",
                   self.rng.uniform(0, 0.3), 0.3, 1, self.rng.randrange(1 << 27), 1 << 27)
            for n, name in enumerate(VMS) if self.rng.random() < 0.95
        ]  # fmt: skip
        carried = [LinkLoad("leaf", "spine", t, 1.0, self.rng.randrange(250_000), 100, int(self.rng.random() < 0.1))]
        self.write(lambda: self.store.facts.add_loads([*loads, *carried]))

    def write(self, what: Callable[[], object]) -> None:
        if self.rng.random() < 0.15:
            self.late.append(what)  # comes with a later second, behind what is newer
        else:
            what()
        while self.late and self.rng.random() < 0.3:
            self.late.pop(0)()

    def foresee(self) -> None:
        pairs = [Pair(f"c{n}", SERVICES[n % 3]) for n in range(6)]
        self.store.forecasts.add_forecasts(
            [
                fan(pair, self.t, horizon_s, quantity, self.rng.uniform(1, 30) * (1000 if "bytes" in quantity else 1))
                for pair in pairs
                for horizon_s in (5, 15, 30)
                for quantity in (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK)
            ]
        )


def look(gatherer: Gatherer, now: float) -> World:
    return gatherer.world(now, (), LeadTimes())


def without_ways(world: World) -> World:
    """A way is a method of whoever looked."""
    return replace(world, network=replace(world.network, ways=paths))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 25), min_size=2, max_size=6))
def test_the_world_of_who_has_looked_before_is_that_of_who_looks_first(seed: int, steps: list[int]) -> None:
    store = open_store("sqlite://")
    town, old = Town(store, seed), Gatherer(store, CONFIG, paths)
    for seconds in steps:
        for _ in range(seconds):
            town.second()
        town.foresee()
        now = town.t - town.rng.choice((0.0, 0.0, 0.5, 3.0))  # clocks differ: some rows are from the future
        seen, fresh = look(old, now), look(Gatherer(store, CONFIG, paths), now)
        assert list(seen.pairs) == list(fresh.pairs)
        assert without_ways(seen) == without_ways(fresh)
        plans = [plan(PlanningContext.of(without_ways(one), CONFIG)) for one in (seen, fresh)]
        assert plans[0] == plans[1]
    store.close()


def by_rows(store: Store, now: float) -> dict[Pair, tuple[float, float, float, float]]:
    """The rates as a reader of rows would find them, where no pair has two destinations in one interval."""
    rows = store.facts.communications(now - FORGET_PAIR_S, now)
    by_pair: dict[Pair, list[Communication]] = defaultdict(list)
    for row in rows:
        by_pair[row.pair].append(row)

    def rate(own: list[Communication], since: float) -> tuple[float, float]:
        late = [row for row in own if row.t > since]
        seconds = sum(row.interval_s for row in late)
        sums = sum(row.bytes for row in late), sum(row.new_connections for row in late)
        return (sums[0] / seconds, sums[1] / seconds) if seconds else (0.0, 0.0)

    newest = store.facts.span()
    assert newest is not None
    last = max(one.t for one in store.facts.batches(0, now - FORGET_PAIR_S, now))
    return {pair: (*rate(own, last - RECENT_S), *rate(own, last - TYPICAL_S)) for pair, own in by_pair.items()}


@pytest.mark.parametrize("seed", range(6))
def test_rates_are_those_of_the_rows_silence_included(store: Store, seed: int) -> None:
    town = Town(store, seed)
    town.key = lambda: FlowKey(f"c{town.rng.randrange(6)}", SERVICES[town.rng.randrange(2)], "vm1")  # type: ignore[method-assign]
    for _ in range(50):
        town.second()
    world = look(Gatherer(store, CONFIG, paths), town.t)
    found = {
        pair: (one.bytes_per_s, one.connections_per_s, one.typical_bytes_per_s, one.typical_connections_per_s)
        for pair, one in world.pairs.items()
    }
    expected = by_rows(store, town.t)
    assert found.keys() == expected.keys() and len(found) > 5
    for pair, rates in expected.items():
        assert found[pair] == pytest.approx(rates, rel=1e-9), pair


def test_what_is_read_once_is_not_read_again(store: Store) -> None:
    """Rows that were seen and then taken away are still known; those of who looks first are gone."""
    town = Town(store, 3)
    for _ in range(40):
        town.second()
    old = Gatherer(store, CONFIG, paths)
    before = look(old, town.t)
    with store.engine.begin() as connection:
        for table in (pending, batches):
            connection.execute(delete(table))
    assert list(look(old, town.t).pairs) == list(before.pairs) != []
    assert not look(Gatherer(store, CONFIG, paths), town.t).pairs


def test_a_clock_that_went_back_is_believed(store: Store) -> None:
    town = Town(store, 5)
    for _ in range(90):
        town.second()
    old = Gatherer(store, CONFIG, paths)
    look(old, town.t)
    assert without_ways(look(old, START + 40.0)) == without_ways(look(Gatherer(store, CONFIG, paths), START + 40.0))


def test_a_forecast_is_made_when_it_is_asked_for_and_says_what_was_written(store: Store) -> None:
    town = Town(store, 1)
    for _ in range(20):
        town.second()
    town.foresee()
    written: dict[Pair, dict[tuple[int, Quantity], Forecast]] = defaultdict(dict)
    for one in store.forecasts.latest(town.t, 5.0):
        written[one.pair][one.horizon_s, one.quantity] = replace(one, id=None)
    world = look(Gatherer(store, CONFIG, paths), town.t)
    foreseen = {pair: dict(state.forecasts) for pair, state in world.pairs.items() if state.forecasts}
    assert foreseen and foreseen == {pair: written[pair] for pair in foreseen}
    state = next(state for state in world.pairs.values() if state.forecasts)
    assert state.forecasts.get((7, Quantity.BYTES_PEAK)) is None and len(state.forecasts) == 9
