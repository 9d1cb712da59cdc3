"""Turns forecasts and measurements into what each pair must be able to get, and pairs into what they need together.

All pairs of a world are worked out at once, as arrays by number of the pair; one pair's demand is a row of them.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from cpdb import Forecast, Pair, Quantity, Seconds
from orchestrator.config import OrchestratorConfig
from orchestrator.demand_table import DemandTable, PairDemand, RateColumns
from orchestrator.foreseen import Bools, Floats, ForecastColumn, Foreseen, Ints
from orchestrator.onset import PEAK, RateBefore, Reading, WindowForecast, read_second
from orchestrator.pair_table import LinkKey, PairTable
from orchestrator.world import World

# Intervals are judged against at least this much, or a silent pair could never be forecast to wake up.
LEAST = {Quantity.BYTES_PEAK: 20_000.0, Quantity.CONNECTIONS_PEAK: 1.0}
MEAN_OF = {
    Quantity.BYTES_PEAK: Quantity.BYTES_MEAN,
    Quantity.CONNECTIONS_PEAK: Quantity.CONNECTIONS_MEAN,
    Quantity.CPU_PEAK: Quantity.CPU_MEAN,
}
OPTIMISTIC, PESSIMISTIC = 0.05, 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Demands of the pairs of one snapshot, worked out when they are asked for and kept.

    `believing`: what would be demanded if every forecast were trusted, whatever it has been worth. `factor` is on the
    configured margin; nothing less than what is forecast is ever asked for.
    """

    world: World
    config: OrchestratorConfig
    believing: bool = False
    factor: float = 1.0
    _tables: dict[tuple[int, Reading], DemandTable] = field(default_factory=dict, repr=False, compare=False)
    _scaled: dict[float, "Demand"] = field(default_factory=dict, repr=False, compare=False)
    # Of whom a forecast that is not trusted was passed over: of all others, trust in everything would ask for the same.
    _passed_over: dict[int, Bools] = field(default_factory=dict, repr=False, compare=False)
    _measured: list["Demand"] = field(default_factory=list, repr=False, compare=False)
    _doubted_own: list[bool] = field(default_factory=list, repr=False, compare=False)
    # What forecasts of sums add, by what was asked; kept by who works it out.
    corrections: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def doubt_own(self) -> None:
        """Notes that a machine would be given more if forecasts of itself were trusted."""
        self._doubted_own.append(True)

    def scaled(self, factor: float) -> "Demand":
        """The same with a factor on the margin; kept, since kinds of action share factors."""
        if factor not in self._scaled:
            self._scaled[factor] = Demand(self.world, self.config, self.believing, factor)
        return self._scaled[factor]

    @property
    def measured(self) -> "Demand":
        """What reacting would ask for: no forecast counts. Kept."""
        if not self._measured:
            self._measured.append(Demand(self.world, self.config.reacts))
        return self._measured[0]

    def table(self, horizon_s: int, reading: Reading = PEAK) -> DemandTable:
        """What all pairs need within `horizon_s` seconds; `reading`: what counts of their forecasts."""
        key = horizon_s, reading
        if key not in self._tables:
            self._tables[key] = _demand_table(self, horizon_s, reading)
        return self._tables[key]

    def of(self, pair: Pair, horizon_s: int, reading: Reading = PEAK) -> PairDemand:
        """The demand of one pair."""
        return self.at(horizon_s, (pair,), reading)[0]

    def at(self, horizon_s: int, pairs: Iterable[Pair], reading: Reading = PEAK) -> list[PairDemand]:
        """The demands of these pairs at one horizon, in their order."""
        table, numbers = self.table(horizon_s, reading), self.world.table.numbers
        return [self.view(table, numbers[pair]) for pair in pairs]

    def view(self, table: DemandTable, number: int) -> PairDemand:
        """The demand of one pair in a table of this demand."""
        return table.view(number, self.world.table.states[number])

    def believes(self, forecast: Forecast) -> bool:
        """Whether forecasts so far ahead have held: before anything is planned on one, it must be trusted."""
        return self.config.policy == "predictive" and (self.believing or forecast.trusted)

    def passed_over(self, horizon_s: int) -> Bools:
        """Of which pairs a forecast was not made use of because it is not trusted."""
        if horizon_s not in self._passed_over:
            self._passed_over[horizon_s] = np.zeros(len(self.world.pairs), dtype=np.bool_)
        return self._passed_over[horizon_s]

    @property
    def doubted(self) -> bool:
        """Whether more would be needed of what was asked for, were every forecast trusted."""
        if self.believing or self.config.policy != "predictive":
            return False
        believing = Demand(self.world, self.config, True, self.factor)
        asked = ((one, passed) for one, passed in self._passed_over.items() if passed.any())
        own = any(_more(self.table(one), believing.table(one), passed) for one, passed in asked)
        return own or bool(self._doubted_own) or any(one.doubted for one in self._scaled.values())


def _more(known: DemandTable, believed: DemandTable, which: Bools) -> bool:
    pairs = (known.bytes, believed.bytes), (known.connections, believed.connections)
    return any(bool((other.need > one.need)[which].any()) for one, other in pairs)


def demands(world: World, config: OrchestratorConfig, believing: bool = False) -> Demand:
    """Demands of every pair: measured ones, and under the predictive policy those of each horizon that is trusted."""
    return Demand(world, config, believing)


def _demand_table(demand: Demand, horizon_s: int, reading: Reading) -> DemandTable:
    known, config = demand.world.table, demand.config
    size = known.column("bytes_per_connection")
    cap = _caps(demand.world, known)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.where(size > 0, cap / size, np.inf)
    measured = KnownRates.of(known, "connections_per_s", most)
    sought, passed = (
        Sought(demand.world.table.foreseen, horizon_s, Quantity.CONNECTIONS_PEAK),
        demand.passed_over(horizon_s),
    )
    connections = foretold_rates(demand, sought, measured, reading, passed)
    if reading == PEAK:  # only a window's peak exceeds the mean by chance that says nothing
        noise = _chance(measured.typical, connections.typical, config)
        connections = replace(connections, chance=noise)
    measured = KnownRates.of(known, "bytes_per_s", cap)
    sent = foretold_rates(demand, sought._replace(peak=Quantity.BYTES_PEAK), measured, reading, passed)
    # A congested path starves what is measured in bytes, and makes up for it afterwards: both are learnt, and repeated
    # in forecasts. Connections are asked for regardless of how they fare.
    asked = connections.need * size
    up_to = known.column("known_connections_per_s")
    follows = (up_to > 0) & (connections.need <= up_to) & (connections.far_s > 0)
    sends = np.where(follows, sent.measured, sent.need)
    need = np.minimum(np.maximum(sends, asked), np.maximum(cap, sent.measured))
    bytes_rate = replace(sent, need=need, chance=connections.chance * size)
    asked_for = (asked > sends) & (connections.far_s > 0)
    return DemandTable(horizon_s, bytes_rate, connections, asked_for, measured.typical)


@dataclass(frozen=True, slots=True, eq=False)
class KnownRates:
    """Rates over the last seconds, over a longer while, the most that there can be, and the newest sample (or NaN)."""

    measured: Floats
    typical: Floats
    cap: Floats
    newest: Floats

    @classmethod
    def of(cls, known: PairTable, name: str, cap: Floats) -> "KnownRates":
        return cls(known.column(name), known.column(f"typical_{name}"), cap, known.column(f"newest_{name}", np.nan))

    def rows(self, which: Ints) -> "KnownRates":
        return KnownRates(self.measured[which], self.typical[which], self.cap[which], self.newest[which])

    def floor(self, reading: Reading) -> Floats:
        """What is asked for at least: the last seconds, or the newest alone where a single second is asked about."""
        return self.measured if reading.within_s is None else np.fmin(self.measured, self.newest)


class _Fan(NamedTuple):
    """What is forecast of a peak of some pairs, and of its mean where anything is."""

    rows: Ints
    peak: ForecastColumn
    mean: ForecastColumn | None


class Sought(NamedTuple):
    """Which forecasts are asked for: those of a peak within one horizon."""

    foreseen: Foreseen
    horizon_s: int
    peak: Quantity


def foretold_rates(demand: Demand, sought: Sought, known: KnownRates, reading: Reading, passed: Bools) -> RateColumns:
    """What is measured; where the nearest trusted horizon that is long enough says anything, what that says.

    `passed` is noted of whom a forecast was passed over because it is not trusted.
    """
    foreseen, horizon_s, peak = sought
    nothing, none = np.zeros(len(known.measured)), np.zeros(len(known.measured), dtype=np.int64)
    found = RateColumns(known.measured.copy(), known.typical.copy(), known.measured.copy(), nothing, none)
    left = np.ones(len(none), dtype=np.bool_)
    for far_s in demand.config.demand.instead_of.get(horizon_s, ()) if demand.config.policy == "predictive" else ():
        column = foreseen.column(far_s, peak)
        if column is not None:
            told = left & column.said
            believed = told if demand.believing else told & column.trusted
            passed[told & ~believed] = True
            left &= ~believed
            for fan in _fans(believed, column, foreseen.column(far_s, MEAN_OF[peak])):
                _foresee(found, demand, fan, known.rows(fan.rows), reading)
    return found


def _fans(which: Bools, peak: ForecastColumn, mean: ForecastColumn | None) -> Iterator[_Fan]:
    """Those of whom a mean is forecast beside the peak, and those of whom none is."""
    both = which & mean.said if mean is not None else np.zeros_like(which)
    rows, alone = np.flatnonzero(both), np.flatnonzero(which & ~both)
    if len(rows) and mean is not None:
        yield _Fan(rows, peak.rows(rows), mean.rows(rows))
    if len(alone):
        yield _Fan(alone, peak.rows(alone), None)


def _foresee(found: RateColumns, demand: Demand, fan: _Fan, known: KnownRates, reading: Reading) -> None:
    """Writes into rates what is forecast of some pairs, of whom this is measured."""
    rows, peak, mean = fan
    sound = are_confident(peak, known.measured, demand.world.now, demand.config)
    floor = np.where(sound, known.floor(reading), known.measured)
    with np.errstate(invalid="ignore", over="ignore"):  # forecasts that are not sound may be anything
        wanted = confident(_read(demand, fan, RateBefore(floor, known.typical), reading), sound)
        usual = known.typical if mean is None else np.where(sound, mean.at(0.5), known.typical)
    found.measured[rows] = floor
    found.typical[rows] = np.minimum(usual, known.cap)
    found.need[rows] = np.maximum(floor, np.minimum(known.cap, wanted))
    found.far_s[rows] = np.where(sound, peak.horizon_s, 0)


def _read(demand: Demand, fan: _Fan, measured: RateBefore, reading: Reading) -> Floats:
    """What a reading says of forecasts; margins are room to be wrong, and who names a level has none to spare."""
    _, peak, mean = fan
    level, settings = reading.level, demand.config.demand
    if reading.within_s is not None and mean is not None:
        second = read_second(WindowForecast(peak, mean), measured, level or settings.level, reading.within_s)
        return second if level is not None else margin(second, max(1.0, demand.factor))
    if level is not None:
        return (mean if reading.mean and mean is not None else peak).at(level)
    return margin(peak.at(settings.level), max(1.0, demand.factor * settings.margin))


def confident(values: Floats, trusted: Bools) -> Floats:
    """The values where the forecast can be trusted, else nothing: a forecast may add, it may not starve."""
    return np.where(trusted, values, 0.0)


def margin(values: Floats, factor: float) -> Floats:
    """The values with room to be wrong."""
    return values * factor


def are_confident(column: ForecastColumn, measured: Floats, now: Seconds, config: OrchestratorConfig) -> Bools:
    """Fresh, finite, and with an interval that is not absurdly wide for what it is about."""
    age_s = now - column.issued_at
    low, middle, high = (column.at(level) for level in (OPTIMISTIC, 0.5, PESSIMISTIC))
    scale = np.maximum(np.maximum(middle, measured), LEAST.get(column.quantity, 1.0))
    fresh = (age_s >= 0) & (age_s <= config.demand.max_age_s(column.horizon_s))
    with np.errstate(invalid="ignore"):
        found: Bools = fresh & np.isfinite(high) & (high - low <= config.demand.max_interval_ratio * scale)
    return found


def _caps(world: World, known: PairTable) -> Floats:
    """No pair can send more than the narrowest links on its ways carry together: one way, or one to each destination.

    Where a virtual IP's connections are placed one by one, a pair talks to all of its destinations. Kept.
    """
    kept: Floats | None = world.index.kept.get("caps")
    if kept is not None:
        return kept
    found = world.index.kept["caps"] = np.full(len(known.states), np.inf)
    widths = np.array([_narrowest(world, (key,)) for key in known.on_link.places])
    np.minimum.at(found, known.on_link.pair, widths[known.on_link.group])
    for vip in (one for one in world.virtual_ips.values() if one.by_connection):
        names = [one.name for one in vip.destinations if one.weight]
        ends = [world.vms[name].host if name in world.vms else name for name in names]
        for number in known.of_service.members.get(vip.address, ()):
            ways = [world.network.ways(known.pairs[number].source, end) for end in ends]
            found[number] = sum(_narrowest(world, way) for way in ways) if ways else np.inf
    return found


def _narrowest(world: World, way: Sequence[LinkKey]) -> float:
    known = [world.links[key].capacity_bytes_per_s for key in way if key in world.links]
    return min((one for one in known if one is not None), default=np.inf)


def _chance(recent: Floats, typical: Floats, config: OrchestratorConfig) -> Floats:
    """Arrivals are counts: a peak second may exceed a mean m by some sqrt(m) without anything having changed."""
    return config.demand.chance_sigmas * np.sqrt(np.maximum(0.0, np.minimum(recent, typical)))
