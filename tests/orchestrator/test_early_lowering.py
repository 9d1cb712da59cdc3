"""A limit goes back before measured calm only where that is far cheaper than what may be missed until it is back."""

from dataclasses import replace

import pytest
from fake_world import fan
from worlds import CONFIG, NOW, RELATION, machines, pair_state, vm, world

from cpdb import Forecast, Quantity
from orchestrator import SetCpuLimit, plan
from orchestrator.context import PlanningContext

PER_S, SURGE_PER_S = 10.0, 30.0  # 0.21 and 0.61 cores by RELATION
MEAN_OF = {
    Quantity.CONNECTIONS_PEAK: Quantity.CONNECTIONS_MEAN,
    Quantity.BYTES_PEAK: Quantity.BYTES_MEAN,
}


def lowered(share: float, horizons_s: tuple[int, ...] = (5, 15)) -> list[float]:
    """What 0.8 cores are lowered to where a surge is foreseen for a share of the longest window, beyond the others."""
    state, found = pair_state("c1", "v1", 10, PER_S), dict[tuple[int, Quantity], Forecast]()
    for horizon_s in horizons_s:
        surge = SURGE_PER_S if horizon_s == max(horizons_s) else PER_S
        for peak, mean in MEAN_OF.items():
            size = 30_000 if peak is Quantity.BYTES_PEAK else 1.0
            usual = PER_S + share * (surge - PER_S)
            found[horizon_s, peak] = fan(state.pair, NOW, horizon_s, peak, surge * size, width=0.0)
            found[horizon_s, mean] = fan(state.pair, NOW, horizon_s, mean, usual * size, width=0.0)
    machine = vm("shop1", "h1", 0.21, 0.8, cpu_cores_min=0.4, relation=RELATION)
    start = world([replace(state, forecasts=found, destination="shop1")], **machines(machine))
    steps = plan(PlanningContext.of(start, CONFIG)).steps
    return [step.action.after for step in steps if isinstance(step.action, SetCpuLimit)]


@pytest.mark.parametrize(("share", "to"), [(0.0, [0.4]), (0.08, [0.4]), (0.12, []), (0.5, [])])
def test_early_is_only_what_is_twice_as_sure(share: float, to: list[float]) -> None:
    # A surge for a share s: 9 s (0.61 - 0.4) is lacked, and half of (1 - s) (0.8 - 0.4) idles. Equal at s = 0.096.
    assert lowered(share) == to


def test_what_comes_before_it_can_be_raised_again_counts_though_it_lies_beyond_the_cooldown() -> None:
    # Nothing is seen within 5 s, as long as the cooldown is; the lead time and a cycle come on top of it.
    assert lowered(0.5) == [] and lowered(0.0) == [0.4]


def test_without_forecasts_that_reach_so_far_it_waits_for_measured_calm() -> None:
    assert lowered(0.0, horizons_s=(5,)) == []


def test_a_file_with_the_hedge_of_limits_that_is_gone_is_told_what_to_do() -> None:
    with pytest.raises(ValueError, match="delete it"):
        CONFIG.tuned(cpu={"hedge_s": 300.0})
