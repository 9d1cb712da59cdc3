"""Where the nodes of the topology are drawn: a fabric in layers, anything else by springs; many hosts as one."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import networkx as nx

# More nodes than these nobody can tell apart: the hosts of a switch are drawn as one.
MOST_NODES = 160
FOLDED = "hosts at "
LAYER_HEIGHT, WIDTH = 100.0, 1000.0
# What hangs on a switch of a mesh stands so near.
MESH_HEIGHT, NEAR_WIDTH, NEAR_HEIGHT = 400.0, 24.0, 34.0
# Between these switches many links lead sideways: layers would hide them.
SIDEWAYS_SHARE = 0.3
SEED = 1


class Place(NamedTuple):
    """Where: x to the right, y downwards."""

    x: float
    y: float


ORIGIN = Place(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Spot:
    """One node as it is drawn: where, and how many nodes it stands for; `parent` is what it hangs on."""

    name: str
    kind: str
    place: Place = ORIGIN
    count: int = 1
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Hanging:
    """What hangs on what, how wide each is with what hangs on it, and all of it together."""

    below: Mapping[str, Sequence[str]]
    rooms: Mapping[str, int]
    total: int
    is_mesh: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Spots by name, and under which name each node is drawn."""

    spots: Mapping[str, Spot]
    drawn_as: Mapping[str, str]


def lay_out(nodes: Sequence[Mapping[str, Any]], wires: Iterable[tuple[str, str]]) -> Drawing:
    """A place for each node of `nodes` (name, kind, attached_to, host), the same whenever these are the same.

    Units are arbitrary: x within WIDTH, y growing downwards.
    """
    switches = {one["name"] for one in nodes if one["kind"] == "switch"}
    graph = nx.Graph(sorted((a, b) if a <= b else (b, a) for a, b in wires))
    spots = {one["name"]: Spot(one["name"], one["kind"], parent=_parent(one, graph, switches)) for one in nodes}
    drawn_as = {name: name for name in spots}
    for apart in (("switch", "hypervisor"), ("switch",)):
        if len(set(drawn_as.values())) > MOST_NODES:
            drawn_as = _folded(spots, apart)
    counts: dict[str, int] = defaultdict(int)
    for name in spots:
        counts[drawn_as[name]] += 1
    kept: dict[str, Spot] = {}
    for name, spot in spots.items():
        shown = drawn_as[name]
        parent = drawn_as.get(spot.parent or "")
        kept.setdefault(
            shown, replace(spot, name=shown, count=counts[shown], parent=parent if parent != shown else None)
        )
    fabric = nx.Graph(graph.subgraph(switches))
    fabric.add_nodes_from(sorted(switches))
    below: dict[str, list[str]] = defaultdict(list)
    for spot in kept.values():
        if spot.parent in kept:
            below[spot.parent].append(spot.name)
    layers, rooms = _layers(fabric, below), _rooms(kept, below)
    is_mesh = _is_mesh(fabric, layers)
    places = _by_springs(fabric) if is_mesh else _in_rows(fabric, layers, rooms)
    total = sum(rooms[name] for name, layer in layers.items() if layer == 0) or 1
    known = _hang(kept, places, Hanging(below, rooms, total, is_mesh))
    return Drawing({name: replace(spot, place=known[name]) for name, spot in kept.items()}, drawn_as)


def _parent(one: Mapping[str, Any], graph: "nx.Graph[str]", switches: set[str]) -> str | None:
    """The host of a machine, else the switch on which something hangs."""
    if one["kind"] == "switch":
        return None
    if one.get("host"):
        return str(one["host"])
    near = sorted(set(graph[one["name"]]) & switches) if one["name"] in graph else []
    return near[0] if near else one.get("attached_to")


def _folded(spots: Mapping[str, Spot], apart: Collection[str]) -> dict[str, str]:
    """What hangs on the same thing under one name, but for kinds that are drawn apart."""

    def shown(name: str) -> str:
        spot, on = spots[name], spots.get(spots[name].parent or "")
        if spot.kind in apart or on is None:
            return name
        parent = on.name if on.kind in apart else shown(on.name)
        return parent if parent.startswith(FOLDED) else f"{FOLDED}{parent}"

    return {name: shown(name) for name in spots}


def _layers(fabric: "nx.Graph[str]", parents: Iterable[str]) -> dict[str, int]:
    """Distance of each switch from the nearest one with hosts; those without a way to one are in the first layer."""
    edge = [name for name in parents if name in fabric]
    far = nx.multi_source_dijkstra_path_length(fabric, edge, weight=None) if edge else {}
    return {name: int(far.get(name, 0)) for name in fabric}


def _is_mesh(fabric: "nx.Graph[str]", layers: Mapping[str, int]) -> bool:
    count = int(fabric.number_of_edges())
    sideways = sum(layers[a] == layers[b] for a, b in fabric.edges)
    return count > 3 and sideways > SIDEWAYS_SHARE * count


def _by_springs(fabric: "nx.Graph[str]") -> dict[str, Place]:
    places = nx.spring_layout(fabric, seed=SEED, iterations=100)
    return {name: Place(WIDTH * (0.5 + x / 2), MESH_HEIGHT * (0.5 + y / 2)) for name, (x, y) in places.items()}


def _in_rows(fabric: "nx.Graph[str]", layers: Mapping[str, int], widths: Mapping[str, int]) -> dict[str, Place]:
    """The lowest layer over what hangs on it, each other row in the order of the middle of its neighbours below."""
    top = max(layers.values(), default=0)
    places: dict[str, Place] = {}
    for layer in range(top + 1):
        row = sorted((name for name in fabric if layers[name] == layer), key=_natural)
        row.sort(key=lambda name: _middle(fabric[name], places))
        room = [widths.get(name, 1) if layer == 0 else 1 for name in row]
        for name, x in zip(row, _spread(room), strict=True):
            places[name] = Place(x, LAYER_HEIGHT * (top - layer))
    return places


def _natural(name: str) -> list[tuple[int, str]]:
    """leaf2 before leaf10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _middle(near: Iterable[str], places: Mapping[str, Place]) -> float:
    below = [places[name].x for name in near if name in places]
    return sum(below) / len(below) if below else 0.0


def _spread(room: Sequence[int], left: float = 0.0, width: float = WIDTH) -> list[float]:
    """The middles of parts of `width` that are as wide as `room` says."""
    total, found, used = sum(room), [], 0.0
    for part in room:
        found.append(left + width * (used + part / 2) / total)
        used += part
    return found


def _rooms(spots: Mapping[str, Spot], below: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many nodes side by side hang on each: machines on a host, hosts on a switch."""
    rooms = dict.fromkeys(spots, 1)
    for _ in range(2):
        rooms |= {name: max(1, sum(rooms[one] for one in own)) for name, own in below.items() if name in rooms}
    return rooms


def _hang(spots: Mapping[str, Spot], places: Mapping[str, Place], hanging: Hanging) -> dict[str, Place]:
    """Hosts below their switches and machines below their hosts; in a mesh each near its own."""
    known = dict(places)
    deepest = max((one.y for one in known.values()), default=-LAYER_HEIGHT)
    for depth in (1, 2):
        for name in [one for one in hanging.below if one in known and (one in places) == (depth == 1)]:
            own = sorted(hanging.below[name], key=lambda one: (spots[one].kind, _natural(one)))
            room = [hanging.rooms[one] for one in own]
            width = NEAR_WIDTH * sum(room) if hanging.is_mesh else WIDTH * sum(room) / hanging.total
            y = known[name].y + NEAR_HEIGHT if hanging.is_mesh else deepest + depth * LAYER_HEIGHT
            for one, x in zip(own, _spread(room, known[name].x - width / 2, width), strict=True):
                known[one] = Place(x, y)
    rest = [name for name in sorted(spots) if name not in known]
    lowest = max((one.y for one in known.values()), default=0.0)
    return known | {
        name: Place(x, lowest + LAYER_HEIGHT) for name, x in zip(rest, _spread([1] * len(rest)), strict=True)
    }
