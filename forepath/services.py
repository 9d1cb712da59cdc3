"""Virtual IPs as people ask about them: every destination with its weight, standing, health, and who changed it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cpdb import Alarm, Destination, DestinationChange, SettingsError, Standing, Store, VirtualIp

RECENT_S = 10.0
HEALTH = "health"
LIVE = "live"


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
    changed_by: str | None
    reason: str | None
    changed_at: float | None


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A virtual IP and its destinations."""

    name: str
    address: str
    affinity: str
    probe: str
    destinations: tuple[DestinationView, ...]


def service(store: Store, named: str) -> VirtualIp:
    """The declared virtual IP with that name or address, as it is now. Raises SettingsError."""
    known = [one for one in store.inventory.virtual_ips() if one.declared]
    for one in known:
        if named in (one.name, one.address):
            return one
    names = ", ".join(one.name for one in known) or "none"
    raise SettingsError(f"{named} is no declared virtual IP; there are: {names}")


def services(store: Store, now: float) -> list[ServiceView]:
    """All declared virtual IPs."""
    changes = {(one.virtual_ip, one.name): one for one in store.destinations.changes()}
    declared = {(vip.address, one.name) for vip in store.inventory.virtual_ips(True) for one in vip.destinations}
    wanted = {one.virtual_ip: one.weights for one in store.wanted.weights()}
    observed = store.wanted.observed()
    health = {row.key: (row.status, row.detail) for row in observed if row.kind == HEALTH}
    live = {row.key: int(row.status) for row in observed if row.kind == LIVE and row.status.isdigit()}
    talking = _talking(store, now)
    found = []
    for vip in store.inventory.virtual_ips():
        if not vip.declared:
            continue
        weights = wanted.get(vip.address, {})
        behind = [replace(one, weight=max(0, int(weights.get(one.name, one.weight)))) for one in vip.destinations]
        new = new_weights(vip.address, behind, {key: told[0] for key, told in health.items()})
        views = []
        for one in behind:
            status, detail = health.get(f"{vip.address}/{one.name}", ("unknown", "the controller has not told yet"))
            change = changes.get((vip.address, one.name))
            sources = talking[vip.address, one.name] if vip.affinity == "source" else None
            views.append(
                DestinationView(
                    one.name, one.address, one.mac, one.weight, one.standing.value, status, detail,
                    new[one.name] / (sum(new.values()) or 1), sources,
                    live.get(f"{vip.address}/{one.name}"), (vip.address, one.name) in declared,
                    *((change.owner, change.reason, change.changed_at) if change else (None, None, None)),
                )
            )  # fmt: skip
        found.append(ServiceView(vip.name, vip.address, vip.affinity, vip.probe, tuple(views)))
    return found


def health_of(store: Store) -> dict[str, str]:
    """What the controller says of destinations, by VIRTUAL_IP/NAME: up, down, frozen or unknown."""
    return {row.key: row.status for row in store.wanted.observed() if row.kind == HEALTH}


def as_for_new(vip: VirtualIp, health: dict[str, str]) -> VirtualIp:
    """The virtual IP with weight 0 for whoever gets no new connections."""
    weights = new_weights(vip.address, vip.destinations, health)
    return replace(vip, destinations=tuple(replace(one, weight=weights[one.name]) for one in vip.destinations))


def new_weights(address: str, behind: Iterable[Destination], health: dict[str, str]) -> dict[str, int]:
    """Weights that count for new connections: of those that serve and are well, as the controller has it."""
    behind = list(behind)
    told = {one.name: health.get(f"{address}/{one.name}", "unknown") for one in behind}
    allowed = {
        one.name: one.weight
        for one in behind
        if told[one.name] != "frozen"
        and (one.standing is Standing.SERVING or (one.standing is Standing.JOINING and told[one.name] == "up"))
    }
    well = {name: weight for name, weight in allowed.items() if told[name] != "down"}
    # When nobody answers, everyone stays.
    counted = well if any(well.values()) else allowed
    return {one.name: counted.get(one.name, 0) for one in behind}


def _talking(store: Store, now: float) -> Counter[tuple[str, str]]:
    spoke = {
        (row.source, row.virtual_ip, row.destination)
        for row in store.facts.communications(now - RECENT_S, now)
        if row.destination and row.bytes
    }
    return Counter((virtual_ip, destination) for _, virtual_ip, destination in spoke)


def change_of(store: Store, virtual_ip: str, name: str) -> DestinationChange | None:
    """What was changed about a destination at run time, removal included."""
    changes = store.destinations.changes()
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
