"""Measures what a granted pair really gets: what it sends where it enters, less what was lost on its way."""

from collections.abc import Mapping
from dataclasses import dataclass

from cpdb import BytesPerS, Pair
from orchestrator.demand import NOW
from orchestrator.reservations.admission import Decision, Scales
from orchestrator.world import LinkKey, LinkState, World

# From this share of its capacity on a link may be what holds a pair back.
FULL_SHARE = 0.9
# What enters and what leaves is not measured at the same moment: smaller differences say nothing.
NOISE_SHARE = 1.05
OFFERED_SHARE, SHORT_SHARE = 0.95, 0.9


@dataclass(frozen=True, slots=True)
class Obtained:
    """Bytes/s over the last seconds: what the pairs wanted to send, and what arrived; None when they were silent."""

    offered: BytesPerS
    arrived: BytesPerS | None
    granted: BytesPerS

    @property
    def short(self) -> bool:
        """Whether they offered what was granted and did not get it."""
        wanted = self.offered >= OFFERED_SHARE * self.granted > 0
        return wanted and (self.arrived or 0.0) < SHORT_SHARE * self.granted


def obtained(scales: Scales, decision: Decision, marked: frozenset[LinkKey]) -> Obtained:
    """What a request obtains. `marked`: links where its packets have a queue of their own."""
    offered = arrived = 0.0
    for pair in decision.case.parts:
        state = scales.world.pairs.get(pair)
        if state is not None:
            lost = max((loss(scales, key, key in marked) for key in state.links), default=0.0)
            offered += scales.rate(pair, NOW).need
            arrived += state.bytes_per_s * (1 - lost)
    return Obtained(offered, arrived if arrived > 0 else None, decision.granted)


def loss(scales: Scales, key: LinkKey, marked: bool) -> float:
    """The share that a pair loses before a link: dropped by its queue, or by the link, or sent and never carried."""
    link = scales.world.links.get(key)
    if link is None or marked:
        return scales.world.queue_losses.get(">".join(key), 0.0)
    return max(link.drop_share, _overflow(scales.world, link, scales.crossing(key)))


def _overflow(world: World, link: LinkState, pairs: list[Pair]) -> float:
    capacity = link.capacity_bytes_per_s
    if not capacity or link.bytes_per_s < FULL_SHARE * capacity:
        return 0.0
    limits = tightest(world)
    sent = sum(min(world.pairs[one].bytes_per_s, limits.get(one, float("inf"))) for one in pairs)
    return 1 - link.bytes_per_s / sent if sent > NOISE_SHARE * link.bytes_per_s else 0.0


def tightest(world: World) -> Mapping[Pair, BytesPerS]:
    """The lowest limit that holds for each limited pair."""
    found: dict[Pair, BytesPerS] = {}
    for item in world.reservations.values():
        for one in item.limits:
            found[one.pair] = min(one.bytes_per_s, found.get(one.pair, float("inf")))
    return found
