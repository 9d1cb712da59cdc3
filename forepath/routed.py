"""Whether traffic is split over paths, and why: by what settings forbid, what is known of the network, and alarms."""

from collections.abc import Mapping
from typing import Any

from cpdb import LABELS, Store
from forepath.settings import Settings, declared_links, declared_nodes
from orchestrator import RouteUse, judge_routes, routes_in_use


def never_routed(settings: Settings) -> str | None:
    """Why these settings forbid to label paths; None when they do not."""
    if settings.controller.mode == "guest":
        return "a guest leaves the ways to others"
    first = settings.routing.first_label
    found = sorted(vlan for vlan in settings.controller.used_vlans() if first <= vlan < first + LABELS)
    if not found:
        return None
    return (
        f"labels of paths are {first} to {first + LABELS - 1}, and controller.vlans names {found[0]}; write another "
        "routing.first_label: 1024, 2048 or 3072"
    )


def routing_use(settings: Settings, store: Store | None) -> RouteUse:
    """Whether traffic is routed and why: in the network that was seen, else in what is declared. Raises StoreError."""
    if settings.routing.enabled == "auto" and (why := never_routed(settings)):
        return RouteUse(False, why)
    if store is not None and store.inventory.links():
        return routes_in_use(settings.routing, store)
    return judge_routes(settings.routing, [*declared_nodes(settings)], declared_links(settings))


def routing(settings: Settings, store: Store) -> dict[str, Any]:
    """Whether traffic is split over paths now, why, and between how many pairs of switches it is."""
    use = routing_use(settings, store)
    return {"on": use.on, "why": use.why, "splits": len(store.wanted.splits())}


def told_routing(now: Mapping[str, Any]) -> str:
    """The same for people."""
    splits = f"; {now['splits']} splits in force" if now["splits"] else ""
    return f"{'on' if now['on'] else 'off'}: {now['why']}{splits}"
