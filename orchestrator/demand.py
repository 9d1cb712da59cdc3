"""Turns forecasts and measurements into what each pair must be able to get, and pairs into what they need together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

from cpdb import Forecast, Pair, Quantity, Seconds
from orchestrator.config import OrchestratorConfig
from orchestrator.world import PairState, World

# Intervals are judged against at least this much, or a silent pair could never be forecast to wake up.
LEAST = {Quantity.BYTES_PEAK: 20_000.0, Quantity.CONNECTIONS_PEAK: 1.0}
OPTIMISTIC, PESSIMISTIC = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """One quantity of one pair (bytes/s or connections/s).

    `need` is what it must be able to get, `typical` its mean, `chance` the excess of a peak second that says nothing.
    """

    measured: float
    typical: float
    need: float
    chance: float
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class PairDemand:
    """What a pair needs within `horizon_s` seconds (0: now)."""

    pair: Pair
    horizon_s: int
    bytes: Rate
    connections: Rate

    def rate_of(self, feature: str) -> Rate:
        """The rate that a learnt relation is about."""
        return self.connections if feature == "connections_per_s" else self.bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """Demands of all pairs for all horizons."""

    by_pair: Mapping[tuple[Pair, int], PairDemand]

    def at(self, horizon_s: int, pairs: Iterable[Pair]) -> list[PairDemand]:
        """The demands of these pairs at one horizon, in their order."""
        return [self.by_pair[pair, horizon_s] for pair in pairs]


def demands(world: World, config: OrchestratorConfig) -> Demand:
    """Demands of every pair: measured ones, and under the predictive policy one for each horizon."""
    found = (_pair_demand(world, one, horizon, config) for one in world.pairs.values() for horizon in config.horizons_s)
    return Demand({(one.pair, one.horizon_s): one for one in found})


def _pair_demand(world: World, state: PairState, horizon_s: int, config: OrchestratorConfig) -> PairDemand:
    size = state.bytes_per_connection or 0.0
    cap = _cap(world, state)
    measured = _MeasuredRate(
        state.connections_per_s, state.typical_connections_per_s, cap / size if size else float("inf")
    )
    peak = state.forecasts.get((horizon_s, Quantity.CONNECTIONS_PEAK))
    mean = state.forecasts.get((horizon_s, Quantity.CONNECTIONS_MEAN))
    connections = _rate(peak, mean, measured, world.now, config)
    noise = _chance(state.typical_connections_per_s, connections.typical, config)
    connections = Rate(connections.measured, connections.typical, connections.need, noise, connections.forecast)
    measured = _MeasuredRate(state.bytes_per_s, state.typical_bytes_per_s, cap)
    peak = state.forecasts.get((horizon_s, Quantity.BYTES_PEAK))
    mean = state.forecasts.get((horizon_s, Quantity.BYTES_MEAN))
    sent = _rate(peak, mean, measured, world.now, config)
    # A congested path starves what is measured in bytes; connections are asked for regardless of how they fare.
    asked = connections.need * size
    need = min(max(sent.need, asked), max(cap, sent.measured))
    forecast = connections.forecast if asked > sent.need and connections.forecast else sent.forecast
    bytes_rate = Rate(sent.measured, sent.typical, need, noise * size, forecast)
    return PairDemand(state.pair, horizon_s, bytes_rate, connections)


@dataclass(frozen=True, slots=True)
class _MeasuredRate:
    """A rate over the last seconds, over a longer while, and the most that there can be."""

    measured: float
    typical: float
    cap: float


def _rate(
    peak: Forecast | None, mean: Forecast | None, known: _MeasuredRate, now: Seconds, config: OrchestratorConfig
) -> Rate:
    if peak is None:
        return Rate(known.measured, known.typical, known.measured, 0.0)
    trusted, settings = is_confident(peak, known.measured, now, config), config.demand
    wanted = margin(confident(quantile(peak, settings.level), trusted), settings.margin)
    usual = mean.at(0.5) if trusted and mean is not None else known.typical
    need = max(known.measured, min(known.cap, wanted))
    return Rate(known.measured, min(usual, known.cap), need, 0.0, peak if trusted else None)


def quantile(forecast: Forecast, level: float) -> float:
    """The forecast's value at `level`."""
    return forecast.at(level)


def confident(value: float, trusted: bool) -> float:
    """The value when the forecast can be trusted, else nothing: a forecast may add, it may not starve."""
    return value if trusted else 0.0


def margin(value: float, factor: float) -> float:
    """The value with room to be wrong."""
    return value * factor


def is_confident(forecast: Forecast, measured: float, now: Seconds, config: OrchestratorConfig) -> bool:
    """Fresh, finite, and with an interval that is not absurdly wide for what it is about."""
    age_s = now - forecast.issued_at
    low, middle, high = (forecast.at(level) for level in (OPTIMISTIC, 0.5, PESSIMISTIC))
    scale = max(middle, measured, LEAST.get(forecast.quantity, 1.0))
    fresh = 0 <= age_s <= config.demand.max_forecast_age_s
    return fresh and isfinite(high) and high - low <= config.demand.max_interval_ratio * scale


def _cap(world: World, state: PairState) -> float:
    """No pair can send more than the narrowest link on its way carries."""
    known = [world.links[key].capacity_bytes_per_s for key in state.links if key in world.links]
    return min((one for one in known if one is not None), default=float("inf"))


def _chance(recent: float, typical: float, config: OrchestratorConfig) -> float:
    """Arrivals are counts: a peak second may exceed a mean m by some sqrt(m) without anything having changed."""
    return config.demand.chance_sigmas * sqrt(max(0.0, min(recent, typical)))


def together(rates: Iterable[Rate]) -> float:
    """What pairs need at the same time: means add, independent excesses in squares; never below what is measured."""
    items = list(rates)
    excess = sqrt(sum(one**2 for one in _excesses(items)))
    # A mean over the last while still remembers a surge that has ended: it may not count for more than the need.
    usual = sum(min(one.typical, one.need) for one in items)
    return max(usual + excess, sum(one.measured for one in items))


def _excesses(items: Iterable[Rate]) -> Iterator[float]:
    for one in items:
        yield max(0.0, one.need - one.typical - one.chance)
