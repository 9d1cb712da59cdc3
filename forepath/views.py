"""What people ask about, read from the database: pairs, forecasts, link loads, the state of the house."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from cpdb import Communication, Forecast, HostLoad, Link, LinkLoad, Pair, Quantity, Store, VmLoad

RECENT_S = 10.0
FORECAST_MAX_AGE_S = 30.0
PathOf = Callable[[str, str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class PairView:
    """One pair: what it did in the last seconds, and what is expected of it by horizon (seconds)."""

    pair: Pair
    service: str
    destination: str | None
    bytes_per_s: float
    connections_per_s: float
    mean_packet_bytes: float
    expected_q50: dict[int, float]
    expected_q90: dict[int, float]
    models: dict[int, str]


@dataclass(frozen=True, slots=True)
class LinkView:
    """One direction of a link: capacity, load now and predicted peak load (bytes/s, median and 0.9 quantile)."""

    from_node: str
    to_node: str
    capacity_bytes_per_s: float | None
    bytes_per_s: float
    predicted_q50: float
    predicted_q90: float

    @property
    def predicted_utilisation(self) -> float:
        """Share of the capacity that the 0.9 quantile would take; 0 where no capacity is known."""
        return self.predicted_q90 / self.capacity_bytes_per_s if self.capacity_bytes_per_s else 0.0


def pairs(store: Store, now: float) -> list[PairView]:
    """All pairs that spoke or are expected to speak, busiest expectation first."""
    recent: dict[Pair, list[Communication]] = defaultdict(list)
    for row in store.facts.communications(now - RECENT_S, now):
        recent[row.pair].append(row)
    expected: dict[Pair, dict[int, Forecast]] = defaultdict(dict)
    for forecast in store.foresight.latest(now, FORECAST_MAX_AGE_S):
        if forecast.quantity is Quantity.BYTES_PEAK:
            expected[forecast.pair][forecast.horizon_s] = forecast
    services = {item.address: item.name for item in store.inventory.virtual_ips()}
    views = [
        _pair_view(pair, services.get(pair.virtual_ip, pair.virtual_ip), recent[pair], expected[pair])
        for pair in sorted(recent.keys() | expected.keys(), key=str)
    ]
    return sorted(views, key=lambda view: -max([view.bytes_per_s, *view.expected_q90.values()]))


def _pair_view(pair: Pair, service: str, rows: list[Communication], ahead: dict[int, Forecast]) -> PairView:
    seconds = sum(row.interval_s for row in rows)
    total = sum(row.bytes for row in rows)
    packets = sum(row.packets for row in rows)
    horizons = sorted(ahead)
    return PairView(
        pair=pair,
        service=service,
        destination=next((row.destination for row in reversed(rows) if row.destination), None),
        bytes_per_s=total / seconds if seconds else 0.0,
        connections_per_s=sum(row.new_connections for row in rows) / seconds if seconds else 0.0,
        mean_packet_bytes=total / packets if packets else 0.0,
        expected_q50={horizon: ahead[horizon].at(0.5) for horizon in horizons},
        expected_q90={horizon: ahead[horizon].at(0.9) for horizon in horizons},
        models={horizon: ahead[horizon].model for horizon in horizons},
    )


def links(store: Store, now: float, horizon_s: int, path_of: PathOf) -> list[LinkView]:
    """Every directed link with its load now and predicted at `horizon_s`; most congested prediction first.

    Predicted load of a link is the sum over the pairs whose path crosses it: of medians, and of 0.9 quantiles
    (an upper estimate: pairs do not all peak together).
    """
    median: dict[tuple[str, str], float] = defaultdict(float)
    upper: dict[tuple[str, str], float] = defaultdict(float)
    for view in pairs(store, now):
        hops = path_of(view.pair.source, view.destination or view.pair.virtual_ip)
        for hop in pairwise(hops):
            median[hop] += view.expected_q50.get(horizon_s, view.bytes_per_s)
            upper[hop] += max(view.expected_q90.get(horizon_s, 0.0), view.bytes_per_s)
    measured = link_rates(store.facts.loads(LinkLoad, now - RECENT_S, now))
    views = [
        LinkView(*hop, capacity, measured.get(hop, 0.0), median[hop], upper[hop])
        for hop, capacity in _capacities(store.inventory.links()).items()
    ]
    return sorted(views, key=lambda view: (-view.predicted_utilisation, view.from_node, view.to_node))


def link_rates(rows: Iterable[LinkLoad]) -> dict[tuple[str, str], float]:
    """Mean rate of each directed link over the rows given, bytes/s."""
    total: dict[tuple[str, str], float] = defaultdict(float)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        total[row.from_node, row.to_node] += row.bytes
        seconds[row.from_node, row.to_node] += row.interval_s
    return {hop: total[hop] / seconds[hop] for hop in total if seconds[hop] > 0}


def _capacities(items: Iterable[Link]) -> dict[tuple[str, str], float | None]:
    both = {}
    for item in items:
        both[item.a, item.b] = item.capacity_bytes_per_s
        both[item.b, item.a] = item.capacity_bytes_per_s
    return both


def newest_vm_loads(store: Store, now: float) -> list[VmLoad]:
    """The newest row of each VM within the last seconds, by name."""
    newest = {row.vm: row for row in store.facts.loads(VmLoad, now - RECENT_S, now)}
    return [newest[name] for name in sorted(newest)]


def newest_host_loads(store: Store, now: float) -> list[HostLoad]:
    """The newest row of each host within the last seconds, by name."""
    newest = {row.host: row for row in store.facts.loads(HostLoad, now - RECENT_S, now)}
    return [newest[name] for name in sorted(newest)]
