"""Moves planned by regions beside moves planned for the whole network, by the planner's own measure of their cost."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpdb import open_store
from orchestrator import OrchestratorConfig, PlanningContext, World
from orchestrator.actions import moves_of
from orchestrator.decide import Decider, QueueHealth
from orchestrator.regions import regions_of
from orchestrator.strategies import placement
from tools.bench.figures import BenchTarget, Result
from tools.bench.orchestrate import Neighbourhood, OrchestrateScale, Tell

MOST_DEARER = 1.05
# On some hosts machines of two priorities lie side by side, or nobody could leave for anybody.
SCALE = OrchestrateScale(3000, 1000, 100, 60)
# So many hosts a region, and so many of all that take what a region cannot place.
APART = {"find_from": 2, "least_hosts": 25, "between": 32}
SURGING = (0, 25, 25, 25, 25, 50, 50, 50)


def measure(seed: int, tell: Tell) -> Result:
    """Cycles in which a quarter, then half of 100 hosts run short: cost of both plans, moves, and CPU seconds."""
    figures = dict.fromkeys(("nothing", "whole", "apart", "whole_moves", "apart_moves"), 0.0)
    for number, (world, config) in enumerate(_worlds(seed)):
        tell(f"regions: cycle {number + 1} of {len(SURGING)}")
        whole = PlanningContext.of(world, config)
        apart = PlanningContext.of(world, config.tuned(moves={"regions": APART}))
        figures["regions"] = float(len(regions_of(apart)))
        figures["nothing"] += placement.cost_of(whole, ())
        for name, context in (("whole", whole), ("apart", apart)):
            moves = moves_of(step.action for step in placement.propose(context).steps)
            figures[name] += placement.cost_of(whole, moves)
            figures[f"{name}_moves"] += len(moves)
    ratio = figures["apart"] / figures["whole"] if figures["whole"] else 1.0
    return Result(
        {f"regions_{name}": value for name, value in figures.items()},
        [BenchTarget("moves by regions, cost to those of the whole", ratio, MOST_DEARER, "lower")],
    )


def _worlds(seed: int) -> Iterator[tuple[World, OrchestratorConfig]]:
    from forepath.paths import PathReader

    scale, clock = OrchestrateScale(SCALE.pairs, SCALE.vms, SCALE.hosts, SCALE.history_s, seed), [0.0]
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'regions.db'}")
        try:
            made = Neighbourhood(scale, store)
            made.declare()
            for second in range(scale.history_s):
                made.pass_second(second)
            reader = PathReader(store, 1.0, lambda: clock[0])
            config = made.config()
            decider = Decider(config, store, reader, lambda _now: QueueHealth())
            for second, surging in enumerate(SURGING, scale.history_s):
                clock[0] = made.pass_second(second, surging)
                made.foresee(second, surging)
                yield decider.look(clock[0], (), decider.recent(clock[0])), config
        finally:
            store.close()
