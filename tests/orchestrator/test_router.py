"""The live routing strategy on worlds made by hand: it learns, decides, goes in stages, and says why."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from fake_world import fan
from hypothesis import given
from hypothesis import strategies as st
from worlds import changed, pair_state

from cpdb import (
    FIRST_TAG,
    Communication,
    HeavyPair,
    InstallStatus,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Pair,
    Quantity,
    SplitReport,
    Store,
    WantedSplit,
)
from orchestrator import LinkState, OrchestratorConfig, World
from orchestrator.act import Executor, FakeHypervisors
from orchestrator.actions import RouteChange, SetRoutes, from_json
from orchestrator.config import RouteSettings
from orchestrator.context import PlanningContext
from orchestrator.observe.matrices import (
    MOST_EDGES,
    NO_CHOICE,
    FabricReader,
    judge_routes,
    link_capacities,
    matrix_of,
)
from orchestrator.plan import strategies_for
from orchestrator.proposal import Proposal, Step
from orchestrator.strategies.routes import Router

SWITCHES = ("leaf1", "leaf2", "spine1", "spine2")
MBIT = 125_000.0
CONFIG = OrchestratorConfig(act=True)
SHORT = ("leaf1", "spine1", "leaf2")
OTHER = ("leaf1", "spine2", "leaf2")


@pytest.fixture
def net(store: Store) -> Store:
    """Two leaves joined over two spines, the second of which is half as fast."""
    store.inventory.put_nodes(Node(name, NodeKind.SWITCH, dpid=n) for n, name in enumerate(SWITCHES, 1))
    capacity = {"spine1": 100 * MBIT, "spine2": 50 * MBIT}
    store.inventory.put_links(
        Link(leaf, port, spine, port, capacity[spine], declared=True)
        for port, spine in enumerate(capacity, 1)
        for leaf in ("leaf1", "leaf2")
    )
    return store


def world(now: float, show_rate: float, path: tuple[str, ...] = SHORT, **more: object) -> World:
    """20 pairs from leaf1 to leaf2 that together send so much, all on one path."""
    links = tuple(zip(("c", *path), (*path, "s"), strict=True))
    pairs = [replace(pair_state(f"c{n}", "v", 0), links=links, bytes_per_s=show_rate * MBIT / 20) for n in range(20)]
    states = {
        key: LinkState(key, None, show_rate * MBIT if key in links else 0.0)
        for a in ("leaf1", "leaf2")
        for b in ("spine1", "spine2")
        for key in ((a, b), (b, a))
    }
    return World(now=now, age_s=1.0, pairs={one.pair: one for one in pairs}, links=states, **more)  # type: ignore[arg-type]


def both(now: float, show_rate: dict[tuple[str, ...], float]) -> World:
    """As `world`, over several paths at once."""
    worlds = [world(now, rate, path) for path, rate in show_rate.items()]
    pairs = {}
    for n, one in enumerate(worlds):
        for state in one.pairs.values():
            pair = Pair(f"{n}{state.pair.source}", "v")
            pairs[pair] = replace(state, pair=pair)
    links = {
        key: replace(state, bytes_per_s=sum(one.links[key].bytes_per_s for one in worlds))
        for key, state in worlds[0].links.items()
    }
    return replace(worlds[0], pairs=pairs, links=links)


class Routing:
    """A router, and what reads the network for it."""

    def __init__(self, store: Store, **settings: float) -> None:
        chosen = RouteSettings(enabled=True, **settings)
        self.reader, self.router = FabricReader(store, chosen), Router(chosen)

    def propose(self, here: World) -> Proposal:
        fabric = self.reader.read_fabric(here, self.reader.store.inventory.links())
        return self.router.propose(PlanningContext.of(changed(here, fabric=fabric), CONFIG))


def run(routing: Routing, made: list[World]) -> list[Step]:
    return [step for one in made for step in routing.propose(one).steps]


def test_a_full_link_is_relieved_in_proportion_to_capacity(net: Store) -> None:
    router = Routing(net)
    (step,) = run(router, [world(100.0 + n * 2, 90) for n in range(6)])
    assert isinstance(step.action, SetRoutes)
    (change,) = step.action.changes
    shares = dict(zip(change.paths, change.after, strict=True))
    assert shares[SHORT] == pytest.approx(2 / 3, abs=0.05)
    assert shares[OTHER] == pytest.approx(1 / 3, abs=0.05)
    assert change.before == ()
    assert step.reason.to_json()["mean_max_utilisation"]["before"] == pytest.approx(0.9, abs=0.01)
    assert step.reason.to_json()["mean_max_utilisation"]["after"] == pytest.approx(0.6, abs=0.05)
    assert "90%" in step.why
    assert from_json(step.action.kind, step.action.to_json()) == step.action
    assert step.action.inverse().inverse() == step.action


def test_nothing_moves_where_nothing_is_short_or_little_is_gained(net: Store) -> None:
    assert run(Routing(net), [world(100.0 + n * 2, 30) for n in range(8)]) == []
    assert run(Routing(net, min_gain=0.5), [world(100.0 + n * 2, 90) for n in range(8)]) == []
    refusals = Routing(net).propose(world(100.0, 30)).refusals
    assert refusals == ()


def test_a_forecast_moves_traffic_before_it_comes(net: Store) -> None:
    def expected(now: float) -> World:
        made = world(now, 20)
        pairs = {
            pair: replace(one, forecasts={(30, Quantity.BYTES_PEAK): fan(pair, now, 30, Quantity.BYTES_PEAK, 5 * MBIT)})
            for pair, one in made.pairs.items()
        }
        return replace(made, pairs=pairs)

    assert run(Routing(net), [world(100.0 + n * 2, 20) for n in range(6)]) == []
    (step,) = run(Routing(net), [expected(100.0 + n * 2) for n in range(6)])
    assert step.reason.to_json()["forecast_scenarios"] == 2
    assert step.reason.forecast is not None and step.reason.forecast.horizon_s == 30
    assert "forecast" in step.why


def test_what_is_written_is_awaited_and_then_kept(net: Store) -> None:
    router, executor = (
        Routing(net, lease_s=100),
        Executor(CONFIG, net, FakeHypervisors((), (), lambda _vm, _now: 0.0)),
    )
    (step,) = run(router, [world(100.0 + n * 2, 90) for n in range(6)])
    began = executor.begin(step, 112.0)
    assert began is not None
    (row,) = net.wanted.splits()
    assert row.tags == (FIRST_TAG, FIRST_TAG + 1)
    assert (row.from_switch, row.to_switch, row.expires_at) == ("leaf1", "leaf2", 212.0)
    busy = world(114.0, 90, in_flight=executor.in_flight())
    assert router.propose(busy).steps == ()
    assert executor.settle(120.0) == []
    told = SplitReport("leaf1>leaf2", "leaf1", row.generation, InstallStatus.INSTALLED, "", 121.0)
    net.wanted.observe([replace(told, status="waiting")])
    assert executor.settle(122.0) == []
    net.wanted.observe([told])
    (done,) = executor.settle(123.0)
    assert done.outcome.value == "done"
    # In force, and as good as can be: nothing more to do but to renew the lease when half of it is over.
    spread = {SHORT: 60, OTHER: 30}
    later = run(router, [both(124.0 + n * 2, spread) for n in range(24)])
    assert {one.renewal for one in later} == {True}
    assert executor.begin(later[0], 170.0) is None
    assert net.wanted.splits()[0].expires_at == 270.0


def test_a_dead_link_is_no_path_any_more(net: Store) -> None:
    router = Routing(net)
    net.inventory.put_links([Link("leaf1", 2, "spine2", 2, 50 * MBIT, up=False, declared=True)])
    assert run(router, [world(100.0 + n * 2, 90) for n in range(8)]) == []


def test_traffic_is_not_sent_where_nobody_knows_how_much_fits(net: Store) -> None:
    net.inventory.put_links(
        [Link(leaf, 2, "spine2", port, None, declared=True) for port, leaf in enumerate(("leaf1", "leaf2"), 1)]
    )
    router = Routing(net)
    assert run(router, [world(100.0 + n * 2, 90) for n in range(8)]) == []


def test_the_size_of_pairs_decides_which_path_they_take(net: Store) -> None:
    router = Routing(net)

    def with_elephant(now: float) -> World:
        even = world(now, 90)
        first, *others = (replace(one, destination="shop1") for one in even.pairs.values())
        sizes = {first.pair: replace(first, bytes_per_s=50 * MBIT)}
        return replace(even, pairs=sizes | {one.pair: replace(one, bytes_per_s=40 * MBIT / 19) for one in others})

    (step,) = run(router, [with_elephant(100.0 + n * 2) for n in range(6)])
    (change,) = step.action.changes
    assert change.heavy[0].share == pytest.approx(50 / 90, abs=0.01)
    loads = dict.fromkeys(change.paths, 0.0)
    for pair in change.heavy:
        for path, ratio in zip(change.paths, pair.ratios, strict=True):
            loads[path] += pair.share * ratio
    for path, ratio in zip(change.paths, change.after, strict=True):
        assert loads[path] == pytest.approx(ratio, abs=0.03)
    assert from_json(step.action.kind, step.action.to_json()) == step.action


def test_stages_never_promise_a_link_more_than_it_has() -> None:
    from routing_nets import random_net, random_splits

    from orchestrator.optimise.transition import first_batch

    rng = np.random.default_rng(5)
    moved = 0
    for _ in range(15):
        tunnels = random_net(rng)
        old, new = random_splits(rng, tunnels), random_splits(rng, tunnels)
        demand = rng.exponential(1.0, len(tunnels.pairs))
        demand *= 0.95 / max(tunnels.mlu(one, demand).max() for one in (old, new))
        now = old
        for _stage in range(60):
            following = first_batch(tunnels, now, new, demand)
            larger = np.maximum(now, following)
            first = np.abs(following - now) > 1e-12
            pairs = np.unique(tunnels.pair_of[first])
            # Everything at its larger share at once, unless only one pair moves.
            if len(pairs) > 1:
                assert tunnels.utilisation(larger, demand).max() <= 1 + 1e-6
            assert tunnels.utilisation(following, demand).max() <= 1 + 1e-6
            moved += len(pairs)
            if not len(pairs):
                break
            now = following
        assert np.abs(now - new).max() < 1e-6
    assert moved > 50


def test_back_is_the_way_it_came() -> None:
    change = RouteChange("a", "b", (("a", "b"), ("a", "c", "b")), (FIRST_TAG, FIRST_TAG + 1), (), (0.5, 0.5))
    action = SetRoutes((change,), 60.0)
    rows, removed = action.wanted("o", "why", 10.0)
    assert [row.ratios for row in rows] == [(0.5, 0.5)]
    assert removed == []
    assert action.inverse().wanted("o", "why", 10.0) == ([], [("a", "b")])
    assert "50% directly, 50% over c" in action.describe()


def test_what_was_recorded_of_links_between_switches_is_background_and_nothing_else_is(net: Store) -> None:
    settings, now = RouteSettings(enabled=True), 10_000.0
    t = now - 1.5 * settings.sample_s
    net.facts.add_communications([Communication("c1", "v", "s", t, 1.0, 1000, 2, 1)])
    net.facts.add_loads(
        LinkLoad(a, b, t, 1.0, size, 10) for a, b, size in (("leaf1", "spine1", 5_000), ("c", "leaf1", 7_000))
    )
    first, *_ = FabricReader(net, settings).read_fabric(world(now, 8), net.inventory.links()).matrices
    assert first.t < now
    # The pair says 1,000 of it.
    assert first.background == {("leaf1", "spine1"): 4_000.0}


def test_a_divided_pair_is_on_all_of_its_paths_and_the_others_on_theirs(net: Store) -> None:
    here = world(10_000.0, 80)
    divided = replace(here.pairs[Pair("c0", "v")], destination="s")
    heavy = (HeavyPair("c0", "s", 0.05, (0.25, 0.75)),)
    row = WantedSplit("leaf1", "leaf2", (SHORT, OTHER), (0.5, 0.5), (3072, 3073), "test", "", 0.0, heavy=heavy)
    capacity = link_capacities(net.inventory.nodes(), net.inventory.links())
    here = replace(here, pairs={**here.pairs, divided.pair: divided})
    found = matrix_of(here, capacity, {("leaf1", "leaf2"): row})
    assert found.demand == {("leaf1", "leaf2"): pytest.approx(80 * MBIT)}
    # 80 are measured on it: 19 pairs of 4, and a quarter of the one that is divided, explain 77.
    assert found.background["leaf1", "spine1"] == pytest.approx(3 * MBIT)
    assert found.background["leaf1", "spine2"] == 0.0


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda one: one[0] < one[1]), max_size=12))
def test_auto_means_a_choice_of_paths_with_known_capacities(joined: set[tuple[int, int]]) -> None:
    nodes = [Node(f"x{n}", NodeKind.SWITCH, dpid=n + 1) for n in range(8)]
    links = [Link(f"x{a}", b, f"x{b}", a, MBIT) for a, b in joined]
    use = judge_routes(RouteSettings(), nodes, links)
    assert use.on == bool(nx.cycle_basis(nx.Graph(list(joined))))
    assert use.on or use == NO_CHOICE
    if use.on:
        assert not judge_routes(RouteSettings(), nodes, [replace(links[0], capacity_bytes_per_s=None), *links[1:]]).on
        assert not judge_routes(RouteSettings(enabled=False), nodes, links).on
    assert judge_routes(RouteSettings(enabled=True), nodes, links).on


def test_auto_leaves_out_networks_in_which_a_first_decision_takes_long() -> None:
    edges = [Node(f"e{n}", NodeKind.SWITCH, dpid=n) for n in range(1, MOST_EDGES + 2)]
    spines = [Node(f"s{n}", NodeKind.SWITCH, dpid=100 + n) for n in range(2)]
    links = [Link(one.name, n, to.name, 0, MBIT) for n, to in enumerate(spines) for one in edges]
    hosts = [Node(f"h{one.name}", NodeKind.HOST, attached_to=one.name) for one in edges]
    assert judge_routes(RouteSettings(), [*edges, *spines, *hosts[1:]], links).on
    assert not judge_routes(RouteSettings(), [*edges, *spines, *hosts], links).on


def test_nothing_is_worked_out_before_a_link_is_expected_to_run_full(net: Store) -> None:
    reader, routing = FabricReader(net, RouteSettings()), strategies_for(CONFIG)[-1]

    def propose(here: World) -> Proposal:
        return routing(
            PlanningContext.of(changed(here, fabric=reader.read_fabric(here, net.inventory.links())), CONFIG)
        )

    calm = [propose(world(100.0 + n * 2, 75)) for n in range(6)]
    assert calm == [Proposal()] * 6
    loaded = [propose(world(112.0 + n * 2, 85)) for n in range(6)]
    assert [step.action.kind for one in loaded for step in one.steps] == ["set_routes"]


def test_pairs_are_placed_anew_soon_where_a_link_runs_full_and_never_below_the_trigger(net: Store) -> None:
    row = WantedSplit("leaf1", "leaf2", (SHORT, OTHER), (0.5, 0.5), (FIRST_TAG, FIRST_TAG + 1), "t", "", 100.0, 9e9)

    def placed_after(rate: float, least_s: float) -> list[float]:
        """When pairs were placed anew: all that is sent is one pair's, which nobody foresaw."""
        net.wanted.put_splits([row])
        routing, found = Routing(net), []
        for n in range(30):
            now = 100.0 + n * 2
            even = world(now, rate)
            (first, *_) = (replace(one, destination="s", bytes_per_s=rate * MBIT) for one in even.pairs.values())
            steps = routing.propose(replace(even, pairs={first.pair: first})).steps
            found += [now - 100.0 for one in steps if one.why.startswith("pairs carry")]
        return found

    assert placed_after(70, 0) == []
    late = placed_after(95, 10)
    assert late and 10 <= late[0] < 30
