"""Turns forecasts and measurements into what each pair must be able to get, and pairs into what they need together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import NamedTuple

from cpdb import Forecast, Pair, Quantity, Seconds
from orchestrator.config import OrchestratorConfig
from orchestrator.onset import PEAK, RateBefore, Reading, WindowForecast, read_second
from orchestrator.world import LinkKey, PairState, World

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
    """Demands of the pairs of one snapshot, worked out when they are asked for and kept.

    `believing`: what would be demanded if every forecast were trusted, whatever it has been worth. `factor` is on the
    configured margin; nothing less than what is forecast is ever asked for.
    """

    world: World
    config: OrchestratorConfig
    believing: bool = False
    factor: float = 1.0
    _known: dict[tuple[Pair, int, Reading], PairDemand] = field(default_factory=dict, repr=False, compare=False)
    _scaled: dict[float, "Demand"] = field(default_factory=dict, repr=False, compare=False)
    # Of whom a forecast that is not trusted was passed over: of all others, trust in everything would ask for the same.
    _passed_over: set[tuple[Pair, int]] = field(default_factory=set, repr=False, compare=False)

    def pass_over(self, pair: Pair, horizon_s: int) -> None:
        """Notes that a forecast was not made use of because it is not trusted."""
        self._passed_over.add((pair, horizon_s))

    def scaled(self, factor: float) -> "Demand":
        """The same with a factor on the margin; kept, since kinds of action share factors."""
        if factor not in self._scaled:
            self._scaled[factor] = Demand(self.world, self.config, self.believing, factor)
        return self._scaled[factor]

    def of(self, pair: Pair, horizon_s: int, reading: Reading = PEAK) -> PairDemand:
        """The demand of one pair within `horizon_s` seconds; `reading`: what counts of its forecasts."""
        key = pair, horizon_s, reading
        if key not in self._known:
            self._known[key] = _pair_demand(self, self.world.pairs[pair], horizon_s, reading)
        return self._known[key]

    def at(self, horizon_s: int, pairs: Iterable[Pair], reading: Reading = PEAK) -> list[PairDemand]:
        """The demands of these pairs at one horizon, in their order."""
        return [self.of(pair, horizon_s, reading) for pair in pairs]

    def believes(self, forecast: Forecast) -> bool:
        """Whether forecasts so far ahead have held: before anything is planned on one, it must be trusted."""
        return self.config.policy == "predictive" and (self.believing or forecast.trusted)

    @property
    def doubted(self) -> bool:
        """Whether more would be needed of what was asked for, were every forecast trusted."""
        if self.believing or self.config.policy != "predictive":
            return False
        believing = Demand(self.world, self.config, True, self.factor)
        own = any(_more(self.of(*key), believing.of(*key)) for key in self._passed_over)
        return own or any(one.doubted for one in self._scaled.values())


def _more(known: PairDemand, believed: PairDemand) -> bool:
    pairs = (known.bytes, believed.bytes), (known.connections, believed.connections)
    return any(other.need > one.need for one, other in pairs)


def demands(world: World, config: OrchestratorConfig, believing: bool = False) -> Demand:
    """Demands of every pair: measured ones, and under the predictive policy those of each horizon that is trusted."""
    return Demand(world, config, believing)


def _pair_demand(demand: Demand, state: PairState, horizon_s: int, reading: Reading) -> PairDemand:
    world, config = demand.world, demand.config
    size = state.bytes_per_connection or 0.0
    cap = _cap(world, state)
    most = cap / size if size else float("inf")
    measured = _MeasuredRate(
        state.connections_per_s, state.typical_connections_per_s, most, state.newest_connections_per_s
    )
    connections = _rate(demand, _fan(demand, state, horizon_s, Quantity.CONNECTIONS_PEAK), measured, reading)
    # Only a window's peak exceeds the mean by chance that says nothing.
    noise = _chance(state.typical_connections_per_s, connections.typical, config) if reading == PEAK else 0.0
    connections = Rate(connections.measured, connections.typical, connections.need, noise, connections.forecast)
    measured = _MeasuredRate(state.bytes_per_s, state.typical_bytes_per_s, cap, state.newest_bytes_per_s)
    sent = _rate(demand, _fan(demand, state, horizon_s, Quantity.BYTES_PEAK), measured, reading)
    # A congested path starves what is measured in bytes; connections are asked for regardless of how they fare.
    asked = connections.need * size
    need = min(max(sent.need, asked), max(cap, sent.measured))
    forecast = connections.forecast if asked > sent.need and connections.forecast else sent.forecast
    bytes_rate = Rate(sent.measured, sent.typical, need, noise * size, forecast)
    return PairDemand(state.pair, horizon_s, bytes_rate, connections)


@dataclass(frozen=True, slots=True)
class _MeasuredRate:
    """A rate over the last seconds, over a longer while, the most that there can be, and the newest sample."""

    measured: float
    typical: float
    cap: float
    newest: float | None = None

    def floor(self, reading: Reading) -> float:
        """What is asked for at least: the last seconds, or the newest alone where a single second is asked about."""
        if reading.within_s is None or self.newest is None:
            return self.measured
        return min(self.measured, self.newest)


MEAN_OF = {Quantity.BYTES_PEAK: Quantity.BYTES_MEAN, Quantity.CONNECTIONS_PEAK: Quantity.CONNECTIONS_MEAN}


class _Fan(NamedTuple):
    """What is forecast of a peak, and of its mean."""

    peak: Forecast | None = None
    mean: Forecast | None = None


def _fan(demand: Demand, state: PairState, horizon_s: int, peak: Quantity) -> _Fan:
    """What is forecast within the nearest trusted horizon that is long enough."""
    for far in demand.config.demand.instead_of.get(horizon_s, ()):
        found = state.forecasts.get((far, peak))
        if found is not None and demand.believes(found):
            return _Fan(found, state.forecasts.get((far, MEAN_OF[peak])))
        if found is not None:
            demand.pass_over(state.pair, horizon_s)
    return _Fan()


def _rate(demand: Demand, fan: _Fan, known: _MeasuredRate, reading: Reading) -> Rate:
    config, (peak, mean) = demand.config, fan
    if peak is None:
        return Rate(known.measured, known.typical, known.measured, 0.0)
    sound = is_confident(peak, known.measured, demand.world.now, config)
    floor = known.floor(reading) if sound else known.measured
    wanted = confident(_read(demand, fan, RateBefore(floor, known.typical), reading), sound)
    usual = mean.at(0.5) if sound and mean is not None else known.typical
    need = max(floor, min(known.cap, wanted))
    return Rate(floor, min(usual, known.cap), need, 0.0, peak if sound else None)


def _read(demand: Demand, fan: _Fan, measured: RateBefore, reading: Reading) -> float:
    """What a reading says of a forecast; margins are room to be wrong, and who names a level has none to spare."""
    peak, mean = fan
    if peak is None:
        return measured.now
    level, settings = reading.level, demand.config.demand
    if reading.within_s is not None and mean is not None:
        second = read_second(WindowForecast(peak, mean), measured, level or settings.level, reading.within_s)
        return second if level is not None else margin(second, max(1.0, demand.factor))
    if level is not None:
        return (mean if reading.mean and mean is not None else peak).at(level)
    return margin(peak.at(settings.level), max(1.0, demand.factor * settings.margin))


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
    fresh = 0 <= age_s <= config.demand.max_age_s(forecast.horizon_s)
    return fresh and isfinite(high) and high - low <= config.demand.max_interval_ratio * scale


def _cap(world: World, state: PairState) -> float:
    """No pair can send more than the narrowest links on its ways carry together: one way, or one to each destination.

    Where a virtual IP's connections are placed one by one, a pair talks to all of its destinations.
    """
    vip = world.virtual_ips.get(state.pair.virtual_ip)
    if vip is None or not vip.by_connection:
        return _narrowest(world, state.links)
    ends = [world.vms[one.name].host if one.name in world.vms else one.name for one in vip.destinations if one.weight]
    ways = [world.network.ways(state.pair.source, end) for end in ends]
    return sum(_narrowest(world, way) for way in ways) if ways else float("inf")


def _narrowest(world: World, way: Sequence[LinkKey]) -> float:
    known = [world.links[key].capacity_bytes_per_s for key in way if key in world.links]
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
