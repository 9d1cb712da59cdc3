"""What a controller says of wanted weights: for worlds that have none."""

from collections.abc import Collection

from cpdb import InstallStatus, Seconds, Standing, Store, VirtualIp, WantedWeights, WeightsReport


def weight_words(store: Store, now: Seconds, away: Collection[str] = ()) -> list[WeightsReport]:
    """A word for each change: followed, unless one that shall have a share does not serve, or is `away`."""
    told = {(one.generation, one.status, one.detail) for one in store.wanted.observed_of(WeightsReport)}
    known = {one.address: one for one in store.inventory.virtual_ips()}
    rows = []
    for one in store.wanted.weights():
        status, detail = _word(one, known.get(one.virtual_ip), away)
        if (one.generation, status, detail) not in told:
            rows.append(WeightsReport(one.virtual_ip, "controller", one.generation, status, detail, now))
    return rows


def _word(wanted: WantedWeights, vip: VirtualIp | None, away: Collection[str]) -> tuple[InstallStatus, str]:
    serving = {one.name for one in vip.destinations if one.standing is Standing.SERVING} if vip else set()
    left_out = [name for name, weight in wanted.weights.items() if weight and (name in away or name not in serving)]
    if left_out:
        return InstallStatus.REFUSED, f"{' and '.join(sorted(left_out))} gets nothing new"
    return InstallStatus.INSTALLED, "new connections go by them on leaf1"
