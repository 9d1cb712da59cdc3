"""What being short is expected to cost, by all that forecasts of a window say: what a move is weighed by.

A window's peak is read at five equally likely quantiles. In each of them a rise is there for the share of the window
that peak and mean tell, and lies at its end. Of several windows the one that shows most counts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cpdb import Seconds
from orchestrator.config import NOW
from orchestrator.context import PlanningContext, correction_on, needed_on, others_on
from orchestrator.onset import FIFTHS, Reading, rise_share
from orchestrator.pair_table import LinkKey
from orchestrator.sums import NO_CORRECTION, HostedMachines, host_corrections

Rule = Callable[[float, Seconds], float]


class _Stretch(NamedTuple):
    """What may run short: what it has, its mean by horizon (0: until now), and the peak within one at a level."""

    capacity: float
    means: Mapping[int, float]
    peak: Callable[[int, Reading], float]

    def cost(self, horizon_s: int, after_s: Seconds, rule: Rule) -> float:
        """What is lacking later than `after_s` from now, by a rule for so much for so many seconds."""
        found = 0.0
        for level in FIFTHS:
            peak = self.peak(horizon_s, Reading(level=level))
            lasts_s = horizon_s * float(rise_share(peak, self.means[horizon_s], self.means[NOW]))
            found += rule(max(0.0, peak - self.capacity), max(0.0, min(lasts_s, horizon_s - after_s)))
        return found / len(FIFTHS)


def host_short_cost(name: str, context: PlanningContext, after_s: Seconds) -> float:
    """Core-seconds that a host is expected to lack later than `after_s` from now, at what they cost.

    Of its cores those count that limits may be given: the rest nobody gets.
    """
    capacity = context.config.cpu.host_headroom * context.world.hosts[name].cpu_cores_capacity
    means = {}
    for horizon_s in context.config.horizons_s:
        more = host_corrections(context.demand, horizon_s).get(name, NO_CORRECTION).usual
        means[horizon_s] = (
            HostedMachines.of(context.world, (name,)).together(context.needs(horizon_s)).usual.item() + more
        )
    place = _Stretch(capacity, means, lambda horizon_s, reading: context.served(name, horizon_s, reading))
    return _most(context, place, after_s, lambda lack, seconds: lack * seconds)


def link_short_cost(key: LinkKey, context: PlanningContext, after_s: Seconds) -> float:
    """Seconds of a link's capacity that are expected to wait later than `after_s` from now, at what they cost.

    What waits is counted in each second that it waits.
    """
    link, groups, means = context.world.links[key], context.world.table.on_link, {}
    for horizon_s in context.config.horizons_s:
        sums = context.demand.table(horizon_s).of_groups(groups).bytes
        usual = sums.usual.item(groups.places[key]) if key in groups.places else 0.0
        beside = others_on(context, link, context.asked_on(key, horizon_s).measured, horizon_s)
        means[horizon_s] = usual + beside + correction_on(context, key, horizon_s).usual
    capacity = link.capacity_bytes_per_s or float("inf")
    place = _Stretch(capacity, means, lambda horizon_s, reading: needed_on(context, link, horizon_s, reading))
    return _most(context, place, after_s, lambda lack, seconds: lack / capacity * seconds * (seconds + 1) / 2)


def _most(context: PlanningContext, place: _Stretch, after_s: Seconds, rule: Rule) -> float:
    windows = (one for one in context.config.horizons_s if one > after_s)
    most = max((place.cost(one, after_s, rule) for one in windows), default=0.0)
    return context.config.demand.cost_of_short * most
