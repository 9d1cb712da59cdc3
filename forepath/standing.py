"""Whether a destination may be drained, or serve again, as a person wants it; commands and the API ask here alike."""

from dataclasses import dataclass

from cpdb import DestinationChange, ForepathError, HealthReport, SettingsError, Standing, Store, VirtualIp, read_health
from forepath.views import service


@dataclass(frozen=True, slots=True)
class StandingWish:
    """A destination of a virtual IP (by name or address), and who wants it to stand otherwise, why, and when."""

    virtual_ip: str
    name: str
    who: str
    reason: str
    now: float


def drain_change(store: Store, wish: StandingWish) -> DestinationChange:
    """No new connections for it. Raises SettingsError where it is unknown, ForepathError for the last that serves."""
    found = service(store, wish.virtual_ip)
    change = standing_change(found, wish, Standing.DRAINING)
    if _last(store, found, wish.name):
        raise ForepathError(
            f"{wish.name} is the only destination of {found.name} that gets new connections; "
            f"add or undrain another one first"
        )
    return change


def undrain_change(store: Store, wish: StandingWish) -> DestinationChange:
    """New connections for a drained one again. Raises SettingsError, and ForepathError where it is not draining."""
    found = service(store, wish.virtual_ip)
    change = standing_change(found, wish, Standing.SERVING)
    standing = next(one.standing for one in found.destinations if one.name == wish.name)
    if standing is not Standing.DRAINING:
        raise ForepathError(f"{wish.name} is {standing.value}, not draining")
    return change


def standing_change(vip: VirtualIp, wish: StandingWish, standing: Standing) -> DestinationChange:
    """The change itself. Raises SettingsError where the virtual IP has no such destination."""
    for one in vip.destinations:
        if one.name == wish.name:
            place = (one.address, one.mac, one.weight)
            return DestinationChange(vip.address, wish.name, *place, standing, wish.who, wish.reason, wish.now)
    names = ", ".join(one.name for one in vip.destinations) or "none"
    raise SettingsError(f"{wish.name} is no destination of {vip.name}; there are: {names}")


def _last(store: Store, vip: VirtualIp, name: str) -> bool:
    """Whether nobody else would get new connections."""
    wanted = next((one.weights for one in store.wanted.weights() if one.virtual_ip == vip.address), {})
    eligible = vip.eligible(wanted, read_health(store.wanted.observed_of(HealthReport)).get(vip.address, {}))
    return [item.name for item in eligible] == [name]
