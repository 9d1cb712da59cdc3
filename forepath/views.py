"""What people ask about the present, read from the database: pairs, link loads, virtual IPs, the machines."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cpdb import (
    Alarm,
    Communication,
    DestinationChange,
    DestinationHealth,
    Forecast,
    HealthReport,
    HostLoad,
    LeaseHolder,
    LinkLoad,
    LiveCount,
    Pair,
    Quantity,
    SettingsError,
    Store,
    VirtualIp,
    VmLoad,
    destination_key,
    read_health,
    show_record,
)
from orchestrator import ACTING, ADVISING, TWICE

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
    return _views(store, now, store.forecasts.latest(now, FORECAST_MAX_AGE_S))


def spoken(store: Store, now: float) -> list[PairView]:
    """All pairs that spoke, without what is expected of them, busiest first."""
    return _views(store, now, ())


def _views(store: Store, now: float, forecasts: Iterable[Forecast]) -> list[PairView]:
    recent: dict[Pair, list[Communication]] = defaultdict(list)
    for row in store.series.communications_at(now, RECENT_S):
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
    """The newest row of each VM within the last seconds, by name; each of several that bear one name."""
    rows = store.facts.loads_at(VmLoad, now, RECENT_S)
    newest = {row.vm: row for row in rows}
    # Two machines of one name are two.
    twice = {(row.vm, row.host): row for row in rows if newest[row.vm].state == row.state == TWICE}
    single = [row for row in newest.values() if row.state != TWICE]
    return sorted([*single, *twice.values()], key=lambda row: (row.vm, row.host))


def newest_host_loads(store: Store, now: float) -> list[HostLoad]:
    """The newest row of each host within the last seconds, by name."""
    newest = {row.host: row for row in store.facts.loads_at(HostLoad, now, RECENT_S)}
    return [newest[name] for name in sorted(newest)]


def observed_at(store: Store, t: float) -> list[dict[str, Any]]:
    """What had been observed at `t` and still stands: the newest word on each thing is all that is kept."""
    return [row for row in map(show_record, store.wanted.observed()) if row["observed_at"] <= t]


def on_duty(store: Store, t: float) -> dict[str, LeaseHolder]:
    """The orchestrators at work at `t`, by what they may do: of each sort one works, others stand by."""
    held = {name: store.leases.holder(lease, t) for name, lease in (("acting", ACTING), ("advising", ADVISING))}
    return {name: one for name, one in held.items() if one is not None and one.since <= t}


def masters(store: Store, t: float) -> dict[str, dict[str, Any]]:
    """By switch: which controller is its master at `t`, and since when; only what still is so is known."""
    names = {node.dpid: node.name for node in store.inventory.nodes() if node.dpid is not None}
    held = store.leases.masters(t).items()
    return {
        names.get(dpid, f"dpid:{dpid:016x}"): {"controller": one.holder, "since": one.since}
        for dpid, one in held
        if one.since <= t
    }


def overview(store: Store, t: float) -> dict[str, Any]:
    """The newest of each sort that the store holds of the moment `t`, as plain data."""
    issued, pause = store.forecasts.issue_at(t, FORECAST_MAX_AGE_S), store.pauses.at(t)
    return {
        "now": t,
        "paused": asdict(pause) if pause else None,
        "on_duty": {name: asdict(one) for name, one in on_duty(store, t).items()},
        "masters": masters(store, t),
        "last_sample_at": store.series.newest(t),
        "last_forecast_at": issued.issued_at if issued else None,
        "reservations": [asdict(item) for item in store.wanted.reservations_at(t)],
        "observed": observed_at(store, t),
        "vms": [asdict(item) for item in newest_vm_loads(store, t)],
        "hosts": [asdict(item) for item in newest_host_loads(store, t)],
        "actions": [asdict(item) for item in store.journal.actions(limit=5, until=t)],
        "alarms": [asdict(item) for item in store.alarms.at(t)],
    }


@dataclass(frozen=True, slots=True)
class LastChange:
    """Who changed a destination while the system ran, why, and when."""

    changed_by: str | None = None
    reason: str | None = None
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class DestinationView:
    """One destination. `share` is its share of new connections; `sources` spoke to it in the last seconds.

    `sources` is None where connections are placed one by one: there the switch alone knows. `live` is what a draining
    one still has: connections, or sources with affinity "source"; None when it is not draining or nobody has counted.
    """

    name: str
    address: str
    mac: str
    weight: int
    standing: str
    health: str
    detail: str
    share: float
    sources: int | None
    live: int | None
    declared: bool
    change: LastChange | None


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A virtual IP and its destinations."""

    name: str
    address: str
    affinity: str
    probe: str
    destinations: tuple[DestinationView, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; a destination's last change stands among its own fields."""
        views = [(asdict(view), asdict(view.change or LastChange())) for view in self.destinations]
        for fields, change in views:
            fields.pop("change")
            fields.update(change)
        return asdict(self) | {"destinations": [fields for fields, _ in views]}


def service(store: Store, named: str) -> VirtualIp:
    """The declared virtual IP with that name or address, as it is now. Raises SettingsError."""
    known = [one for one in store.inventory.virtual_ips() if one.declared]
    for one in known:
        if named in (one.name, one.address):
            return one
    names = ", ".join(one.name for one in known) or "none"
    raise SettingsError(f"{named} is no declared virtual IP; there are: {names}")


def known_source(store: Store, name: str) -> str:
    """The name or address of a node as it is; "" stands for every source. Raises SettingsError for unknown ones."""
    nodes = store.inventory.nodes()
    if name and name not in {one.name for one in nodes} | {one.address for one in nodes}:
        raise SettingsError(f"{name}: no such node is known; forepath pairs shows who has spoken")
    return name


def services(store: Store, now: float) -> list[ServiceView]:
    """All declared virtual IPs."""
    changes = {(one.virtual_ip, one.name): one for one in store.inventory.changes()}
    declared = {(vip.address, one.name) for vip in store.inventory.virtual_ips(True) for one in vip.destinations}
    wanted = {one.virtual_ip: one.weights for one in store.wanted.weights()}
    reports = {report.key: report for report in store.wanted.observed_of(HealthReport)}
    health = read_health(reports.values())
    live = {item.key: item.count for item in store.wanted.observed_of(LiveCount)}
    talking = _talking(store, now)
    found = []
    for vip in store.inventory.virtual_ips():
        if not vip.declared:
            continue
        weights = wanted.get(vip.address, {})
        shares = vip.shares(weights, health.get(vip.address, {}))
        views = []
        for one in vip.with_weights(weights).destinations:
            report = reports.get(destination_key(vip.address, one.name))
            status = report.status.value if report else "unknown"
            detail = report.detail if report else "the controller has not told yet"
            change = changes.get((vip.address, one.name))
            sources = talking[vip.address, one.name] if vip.affinity == "source" else None
            views.append(
                DestinationView(
                    one.name, one.address, one.mac, one.weight, one.standing.value, status, detail,
                    shares.get(one.name, 0.0), sources,
                    live.get(destination_key(vip.address, one.name)), (vip.address, one.name) in declared,
                    LastChange(change.owner, change.reason, change.changed_at) if change else None,
                )
            )  # fmt: skip
        found.append(ServiceView(vip.name, vip.address, vip.affinity, vip.probe, tuple(views)))
    return found


def with_new_weights(vip: VirtualIp, wanted: Mapping[str, int], health: Mapping[str, DestinationHealth]) -> VirtualIp:
    """The virtual IP with weight 0 for whoever gets no new connections."""
    weights = {item.name: item.weight for item in vip.eligible(wanted, health)}
    behind = tuple(replace(item, weight=weights.get(item.name, 0)) for item in vip.destinations)
    return replace(vip, destinations=behind)


def _talking(store: Store, now: float) -> Counter[tuple[str, str]]:
    spoke = {
        (row.source, row.virtual_ip, row.destination)
        for row in store.facts.communications(now - RECENT_S, now)
        if row.destination and row.bytes
    }
    return Counter((virtual_ip, destination) for _, virtual_ip, destination in spoke)


def change_of(store: Store, virtual_ip: str, name: str) -> DestinationChange | None:
    """What was changed about a destination at run time, removal included."""
    changes = store.inventory.changes()
    return next((one for one in changes if (one.virtual_ip, one.name) == (virtual_ip, name)), None)


def alarm_lines(found: Iterable[Alarm], names: dict[str, str]) -> list[str]:
    """Open alarms for people, a line each; `names` of virtual IPs by address."""
    lines = []
    for one in found:
        address, _, rest = one.key.partition("/")
        key = f"{names[address]}/{rest}" if rest and address in names else one.key
        times = f", seen {one.count} times" if one.count > 1 else ""
        lines.append(f"alarm {one.kind}: {key} ({one.node}): {one.detail}{times}")
    return lines
