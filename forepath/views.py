"""What people ask about, read from the database: pairs, forecasts, link loads, the state of the house."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cpdb import Communication, Forecast, HostLoad, LinkLoad, Pair, Quantity, Store, VmLoad

RECENT_S = 10.0
FORECAST_MAX_AGE_S = 30.0


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


def pairs(store: Store, now: float) -> list[PairView]:
    """All pairs that spoke or are expected to speak, busiest expectation first."""
    return _views(store, now, store.foresight.latest(now, FORECAST_MAX_AGE_S))


def spoken(store: Store, now: float) -> list[PairView]:
    """All pairs that spoke, without what is expected of them, busiest first."""
    return _views(store, now, ())


def _views(store: Store, now: float, forecasts: Iterable[Forecast]) -> list[PairView]:
    recent: dict[Pair, list[Communication]] = defaultdict(list)
    for row in store.facts.communications(now - RECENT_S, now):
        recent[row.pair].append(row)
    expected: dict[Pair, dict[int, Forecast]] = defaultdict(dict)
    for forecast in forecasts:
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


def link_rates(rows: Iterable[LinkLoad]) -> dict[tuple[str, str], float]:
    """Mean rate of each directed link over the rows given, bytes/s."""
    total: dict[tuple[str, str], float] = defaultdict(float)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        total[row.from_node, row.to_node] += row.bytes
        seconds[row.from_node, row.to_node] += row.interval_s
    return {hop: total[hop] / seconds[hop] for hop in total if seconds[hop] > 0}


def newest_vm_loads(store: Store, now: float) -> list[VmLoad]:
    """The newest row of each VM within the last seconds, by name."""
    newest = {row.vm: row for row in store.facts.loads(VmLoad, now - RECENT_S, now)}
    return [newest[name] for name in sorted(newest)]


def newest_host_loads(store: Store, now: float) -> list[HostLoad]:
    """The newest row of each host within the last seconds, by name."""
    newest = {row.host: row for row in store.facts.loads(HostLoad, now - RECENT_S, now)}
    return [newest[name] for name in sorted(newest)]
