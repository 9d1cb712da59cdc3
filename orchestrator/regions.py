"""Divides a large network into regions that are planned apart: declared ones, or hosts that are linked most closely.

What regions share comes first: the needs of all pairs count on every link, whoever plans, and of what is left on a link
that is no host's own each region may use an equal part.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from orchestrator.context import PlanningContext
from orchestrator.pair_table import LinkKey
from orchestrator.screens import roomiest_hosts
from orchestrator.world import World

# Communities are found by a method that begins at random; the same network has always the same regions.
SEED = 1


@dataclass(frozen=True, slots=True)
class WeightedLink:
    """Two nodes and what is between them in bytes/s."""

    key: LinkKey
    bytes_per_s: float


def regions_of(context: PlanningContext) -> list[frozenset[str]]:
    """The hosts of each region; [] where all are planned together. Machines of one affinity are never torn apart."""
    world, settings = context.world, context.config.moves.regions
    declared = defaultdict[str, set[str]](set)
    for name, host in world.hosts.items():
        declared[host.region].add(name)
    found: Iterable[Iterable[str]] = declared.values()
    if len(declared) < 2:
        if len(world.hosts) < settings.find_from:
            return []
        links = (one for key, one in sorted(world.links.items()) if key[0] < key[1])
        known = tuple(WeightedLink(one.key, one.capacity_bytes_per_s or 1.0) for one in links)
        found = find_regions(tuple(sorted(world.hosts)), known, settings.least_hosts)
    regions = _joined(world, [set(one) for one in found])
    return sorted(regions, key=min) if len(regions) > 1 else []


@lru_cache(maxsize=4)
def find_regions(
    hosts: tuple[str, ...], links: tuple[WeightedLink, ...], least_hosts: int
) -> tuple[frozenset[str], ...]:
    """Communities of largest modularity (Blondel et al., Fast unfolding of communities in large networks, 2008).

    Each with `least_hosts` at least: smaller ones go together in the order of their names, however far apart. Hosts
    without a known link are one more.
    """
    from networkx import Graph
    from networkx.algorithms.community import louvain_communities

    graph, named = Graph(), set(hosts)
    graph.add_weighted_edges_from((*one.key, one.bytes_per_s) for one in links)
    communities = [named & set(one) for one in louvain_communities(graph, seed=SEED)] if links else []
    found, small = list[frozenset[str]](), set[str]()
    for own in sorted((one for one in communities if one), key=min):
        small |= own
        if len(small) >= least_hosts:
            found.append(frozenset(small))
            small = set()
    small |= named.difference(*communities)
    if small and found and len(small) < least_hosts:
        small |= found.pop()
    return (*found, frozenset(small)) if small else tuple(found)


def _joined(world: World, regions: list[set[str]]) -> list[frozenset[str]]:
    """Regions that have machines of one affinity are one."""
    for hosts in _homes(world):
        touched = [one for one in regions if one & hosts]
        if len(touched) > 1:
            regions = [one for one in regions if not one & hosts] + [set().union(*touched)]
    return [frozenset(one) for one in regions if one]


def _homes(world: World) -> list[set[str]]:
    """The hosts of each affinity."""
    found = defaultdict[str, set[str]](set)
    for vm in world.vms.values():
        if vm.spec is not None and vm.spec.affinity and vm.host in world.hosts:
            found[vm.spec.affinity].add(vm.host)
    return [*found.values()]


def with_shares(context: PlanningContext, regions: int) -> PlanningContext:
    """The same, links that are no host's own having left only what one of so many regions may use of them."""
    world, most = context.world, dict[LinkKey, float]()
    for bounds in map(context.bounds, context.config.horizons_s):
        for key, need in zip(bounds.keys, bounds.most.tolist(), strict=True):
            most[key] = max(need, most.get(key, 0.0))
    links = dict(world.links)
    for key, need in most.items():
        capacity = links[key].capacity_bytes_per_s or 0.0
        if key[0] not in world.hosts and key[1] not in world.hosts and need < capacity:
            links[key] = replace(links[key], capacity_bytes_per_s=need + (capacity - need) / regions)
    return replace(context, world=world.changed(links=links))


def part_of(context: PlanningContext, hosts: frozenset[str]) -> PlanningContext:
    """The machines and hosts of a part of the network; pairs and links stay those of the whole."""
    world = context.world
    vms = {name: vm for name, vm in world.vms.items() if vm.host in hosts}
    own = {name: host for name, host in world.hosts.items() if name in hosts}
    return replace(context, world=world.changed(vms=vms, hosts=own))


def between(context: PlanningContext, short: Sequence[str]) -> frozenset[str]:
    """Hosts that regions could not relieve, and those with most room wherever they are; with the homes of mates."""
    hosts = {*short, *roomiest_hosts(context, context.config.moves.regions.between)}
    return frozenset(hosts.union(*(own for own in _homes(context.world) if own & hosts)))
