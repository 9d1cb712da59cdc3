"""Strategy: where a destination will run short, new communications go to those that will have most left."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cpdb import Standing, VirtualIp
from orchestrator.actions import SetWeights
from orchestrator.config import OrchestratorConfig
from orchestrator.demand import Demand
from orchestrator.lead import Circumstances
from orchestrator.moving.destination import Scene
from orchestrator.sharing.fullness import Places, Service, View, places, service_of
from orchestrator.steps import Refusal, Step, acting_horizons, evidence, when
from orchestrator.world import World

if TYPE_CHECKING:
    from orchestrator.placing import Rows

TOTAL = 100
# A destination keeps at least this share: who gets nothing at all shows nothing about itself.
LEAST_SHARE = 0.02
UNFIT = frozenset({"down", "frozen"})


def plan_weights(world: World, demand: Demand, config: OrchestratorConfig) -> tuple[list[Step], list[Refusal]]:
    """Weights to change, and where no split would help. Only destinations that are declared with a weight take part."""
    found: list[Step | Refusal] = []
    view = View(Scene(world, demand, config))
    for vip in (
        sorted(world.virtual_ips.values(), key=lambda one: (-one.priority, one.address)) if config.balance else ()
    ):
        names = candidates(world, vip)
        if len(names) > 1:
            found += _for_service(view, vip, names)
    return [one for one in found if isinstance(one, Step)], [one for one in found if isinstance(one, Refusal)]


def candidates(world: World, vip: VirtualIp) -> tuple[str, ...]:
    """Destinations that may be sent more: declared with a weight, serving, and not known to be away."""
    away = {one.key for one in world.observed if one.kind == "health" and one.status in UNFIT}
    return tuple(
        one.name
        for one in vip.destinations
        if one.weight > 0 and one.standing is Standing.SERVING and f"{vip.address}/{one.name}" not in away
    )


def _for_service(view: View, vip: VirtualIp, names: tuple[str, ...]) -> Iterator[Step | Refusal]:
    world, config = view.scene.world, view.scene.config
    horizons = acting_horizons(world, SetWeights.kind, config, Circumstances(vip.address))
    tables = {one: places(view, service_of(view, vip, names, one), one) for one in horizons}
    if not any(table.base for table in tables.values()):
        return
    worst = min(horizons, key=lambda one: (tables[one].least(tables[one].service.shares), one))
    table, shares = tables[worst], tables[worst].service.shares
    now = table.least(shares)
    if now >= config.balance_below:
        yield from _back(view.scene, table, worst)
        return
    best = _best(table)
    if table.least(best) - now < config.balance_min_gain:
        fullest = min(table.base, key=lambda one: (table.left(shares, one), one))
        text = f"{fullest} has {now:.0%} left, and no split leaves {config.balance_min_gain:.0%} more"
        yield Refusal(f"other weights for {vip.name}", text)
    elif max(abs(best[name] - shares[name]) for name in names) >= config.balance_min_gain:
        yield _step(view.scene, table, best, worst)


def _back(scene: Scene, table: Places, horizon_s: int) -> Iterator[Step]:
    """What was declared holds again as soon as it leaves enough."""
    service = table.service
    if not scene.world.weights.get(service.vip.address):
        return
    if table.least(service.declared) >= scene.config.balance_below + scene.config.balance_min_gain:
        yield _step(scene, table, service.declared, horizon_s)


def _best(table: Places) -> dict[str, float]:
    # numpy and scipy take half a second to import, which most commands need not spend.
    from orchestrator.placing import best_shares

    found = best_shares(_rows(table), LEAST_SHARE)
    return {name: float(share) for name, share in zip(table.service.names, found, strict=True)}


def _rows(table: Places) -> "Rows":
    import numpy as np

    from orchestrator.placing import Rows

    service, known = table.service, sorted(table.base)
    amounts = np.array([[table.per_share[one].get(name, 0.0) for name in service.names] for one in known])
    pinned = np.array([service.pinned.get(name, 0.0) for name in service.names])
    return Rows(np.array([table.base[one] for one in known]) + amounts @ pinned, amounts * service.free)


def _step(scene: Scene, table: Places, best: Mapping[str, float], horizon_s: int) -> Step:
    service, world, vip = table.service, scene.world, table.service.vip
    before = tuple((name, int(weight)) for name, weight in world.weights.get(vip.address, {}).items())
    after = _weights(service, best)
    rooms = {place: {"now": table.left(service.shares, place), "then": table.left(best, place)} for place in table.base}
    said = ", ".join(f"{place} {one['now']:.0%} -> {one['then']:.0%}" for place, one in sorted(rooms.items()))
    leader = max(service.wants, key=lambda one: one.bytes.need, default=None)
    proof = evidence(leader.bytes, horizon_s, scene.config) if leader else None
    needed_at = world.now + horizon_s
    vms = [name for name in service.names if name in world.vms]
    reason: dict[str, Any] = {
        "forecast": proof,
        "where": {"virtual_ip": vip.address},
        "headrooms": rooms,
        "circumstances": Circumstances(vip.address).to_json(),
        "alternatives": [],
        "promise": {
            "what": "headroom",
            "vms": vms,
            "value": min(one["then"] for one in rooms.values()),
            "by": needed_at,
        },
    }
    lead_s = world.leads.needed(SetWeights.kind, scene.config, Circumstances(vip.address))
    why = f"{vip.name} {when(horizon_s)}: headroom {said}"
    return Step(SetWeights(vip.address, before, after), why, reason, needed_at, lead_s)


def _weights(service: Service, best: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Whole numbers on the scale of the declared ones, so that a destination that joins finds its place among them.

    None at all where the declared ones are to hold again.
    """
    if best is service.declared:
        return ()
    total = max(TOTAL, sum(one.weight for one in service.vip.destinations if one.name in service.names))
    return tuple((name, max(1, round(total * best[name]))) for name in service.names)
