"""What a run cost: shortage, idling, copying and pauses, each second, in the one number that the planner minimises."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backtest.whatif.records import Flags, Floats, ObjectSeries, OfferedLoad, PolicyRun, ReplayScene
from backtest.whatif.waiting import WaitingLine
from cpdb import SettingsError, VirtualIp
from ryu_apps import Topology


class Hop(NamedTuple):
    """One direction of a link."""

    a: str
    b: str


class WayFinder:
    """Shortest ways of a scene, as the controller finds them, and the narrowest link on them."""

    def __init__(self, scene: ReplayScene) -> None:
        self._topology = Topology.of(scene.nodes, scene.links)
        self._places = scene.host_of
        self._capacities = {
            hop: link.capacity_bytes_per_s for link in scene.links for hop in (Hop(link.a, link.b), Hop(link.b, link.a))
        }
        self._found: dict[tuple[str, str], tuple[Hop, ...]] = {}

    def hops(self, source: str, place: str) -> tuple[Hop, ...]:
        """The directed links from a node to a host (or to a destination that is no machine).

        Raises SettingsError when nothing declared leads there, or a capacity on the way is not known.
        """
        key = source, place
        if key not in self._found:
            start = self._places.get(source, source)
            path = self._topology.path(start, place) if start != place else (place,)
            if not path:
                raise SettingsError(
                    f"link: nothing leads from {source} to {place}; add the [[link]]s between, with their capacities"
                )
            hops = tuple(Hop(*hop) for hop in pairwise(path))
            for hop in hops:
                if self._capacities.get(hop) is None:
                    raise SettingsError(f"link: the capacity of {hop.a}>{hop.b} is not known; add it as a [[link]]")
            self._found[key] = hops
        return self._found[key]

    def capacity(self, hop: Hop) -> float:
        """Bytes/s of one direction of a link."""
        return self._capacities[hop] or math.inf

    def narrowest(self, source: str, place: str) -> float:
        """Bytes/s of the narrowest link between them; infinite on one and the same host."""
        return min((self.capacity(hop) for hop in self.hops(source, place)), default=math.inf)


def check_ways(scene: ReplayScene, load: OfferedLoad) -> None:
    """Raises SettingsError unless declared links with capacities lead from each pair's source to its destinations."""
    ways = WayFinder(scene)
    for pair in load.pairs:
        for vip in scene.virtual_ips:
            for item in vip.destinations if vip.address == pair.virtual_ip else ():
                ways.hops(pair.source, scene.host_of.get(item.name, item.name))


def weigh_priorities(virtual_ips: tuple[VirtualIp, ...]) -> Mapping[str, float]:
    """Virtual IP's address -> rank of its priority among the distinct ones (lowest 1) / how many there are."""
    ranks = {priority: rank for rank, priority in enumerate(sorted({vip.priority for vip in virtual_ips}), 1)}
    return {vip.address: ranks[vip.priority] / len(ranks) for vip in virtual_ips}


def base_limits(scene: ReplayScene, names: tuple[str, ...]) -> Floats:
    """Everyday cores of each machine; 0 for one of a pool, which rests at first."""
    limits = {vm.name: vm.cpu_cores_min for vm in scene.vms}
    return np.array([limits.get(name, 0.0) for name in names])


@dataclass(frozen=True, slots=True)
class RunCost:
    """The parts of a run's cost, each (seconds,) but what is by pair: (seconds, pairs)."""

    short_cores: Floats
    idle_cores: Floats
    short_bytes: Floats
    short_link_s: Floats
    weighted_link_s: Floats
    copy_link_s: Floats
    pause_core_s: Floats

    def by_part(self, cost_of_short: float) -> Mapping[str, Floats]:
        """Each part of the cost by second (seconds,)."""
        return {
            "CPU short": cost_of_short * self.short_cores,
            "CPU idle": self.idle_cores,
            "links short": cost_of_short * self.weighted_link_s,
            "copying": self.copy_link_s,
            "pauses": self.pause_core_s,
        }

    def by_second(self, cost_of_short: float) -> Floats:
        """The cost of each second (seconds,): r x short cores + idle cores + r x weighted link-seconds + actions."""
        return np.asarray(sum(self.by_part(cost_of_short).values()), dtype=np.float64)


def price_run(scene: ReplayScene, load: OfferedLoad, run: PolicyRun, judged: Flags) -> RunCost:
    """The cost of one run in every second; pairs' in judged ones. Raises SettingsError where a way is not declared."""
    vms = run.vms
    base = base_limits(scene, vms.names)
    weights = weigh_priorities(scene.virtual_ips)
    short = short_bytes(load, run.pairs, judged)
    short_link_s = short / _way_capacities(scene, load, run)
    copied, paused = np.zeros(load.seconds), np.zeros(load.seconds)
    for action in run.actions:
        if 0 <= action.t < load.seconds:
            copied[int(action.t)] += action.copied_bytes / action.link_bytes_per_s
            paused[int(action.t)] += action.pause_s * action.cores_meanwhile
    return RunCost(
        short_cores=short_cores(vms).sum(axis=1),
        idle_cores=np.maximum(0.0, vms.allowed - np.maximum(vms.need, base)).sum(axis=1),
        short_bytes=short,
        short_link_s=short_link_s,
        weighted_link_s=short_link_s @ np.array([weights[pair.virtual_ip] for pair in load.pairs], dtype=np.float64),
        copy_link_s=copied,
        pause_core_s=paused,
    )


def short_cores(vms: ObjectSeries) -> Floats:
    """What each machine lacked (seconds, machines)."""
    return np.maximum(0.0, vms.need - vms.allowed)


def short_bytes(load: OfferedLoad, pairs: ObjectSeries, judged: Flags) -> Floats:
    """Bytes of each pair that wait or are given up at the end of each judged second, as its need and use say.

    The oldest are carried first. What waited when judging began, or begins again after a gap, is not counted.
    """
    found = np.zeros(pairs.need.shape)
    streams = np.array([pair in load.streams for pair in load.pairs], dtype=bool)
    for second in np.flatnonzero(judged).tolist():
        if not second or not judged[second - 1]:
            line = WaitingLine(len(pairs.names))
        line.join(pairs.need[second]).serve(pairs.used[second])
        found[second] = line.total
        line.give_up()
        line.ages[:, streams] = 0.0
    return found


def _way_capacities(scene: ReplayScene, load: OfferedLoad, run: PolicyRun) -> Floats:
    """The narrowest link of each pair's shortest way to where its destination is, (seconds, pairs)."""
    ways = WayFinder(scene)
    result = np.full(run.pairs.need.shape, math.inf)
    columns = {name: column for column, name in enumerate(run.vms.names)}
    for number, pair in enumerate(load.pairs):
        first = _first_destination(scene, pair.virtual_ip)
        # -1 is nowhere: the pair has not spoken yet.
        names = (*run.pairs.places, first)
        chosen = np.full(load.seconds, -1) if run.pairs.where is None else run.pairs.where[:, number]
        for destination in np.unique(chosen).tolist():
            name = names[destination]
            rows, column = np.flatnonzero(chosen == destination), columns.get(name)
            places = (*run.vms.places, scene.host_of.get(name, name))
            where = run.vms.where if column is not None else None
            hosts = np.full(len(rows), -1) if where is None else where[rows, column]
            for host in np.unique(hosts).tolist():
                result[rows[hosts == host], number] = ways.narrowest(pair.source, places[host])
    return result


def _first_destination(scene: ReplayScene, virtual_ip: str) -> str:
    declared = next(vip for vip in scene.virtual_ips if vip.address == virtual_ip).destinations
    return max(declared, key=lambda item: item.weight).name
