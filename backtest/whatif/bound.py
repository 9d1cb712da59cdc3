"""The least that any schedule could cost: each second by itself, all in its best place, at once and for nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from backtest.whatif.cost import Hop, WayFinder, weigh_priorities
from backtest.whatif.records import Flags, Floats, OfferedLoad, ReplayScene, RequestCost
from cpdb import NodeKind, Pair
from orchestrator import judge_routes

# What the solver leaves of a cost that is 0.
TOLERANCE = 1e-6
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DestinationChoice:
    """One destination that a pair may be sent to: columns of the pair and of the machine (-1: it is none).

    `hops` have to be crossed wherever the machine is; `widest` is the narrowest link on the best of its ways, bytes/s.
    """

    pair: int
    vm: int
    hops: tuple[Hop, ...]
    widest: float
    cost: RequestCost


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Entries of one second's matrix."""

    rows: Places
    columns: Places
    values: Floats


def least_costs(scene: ReplayScene, load: OfferedLoad, judged: Flags) -> Floats:
    """The least cost of every judged second (seconds,), 0 in the others; no policy's run can cost less.

    A linear program a second. It leaves out all that takes time or is whole: machines may be on several hosts, limits
    follow needs, connections are split, copies are free, what waits is short once, and requests may be worked off at
    another destination than the one that their bytes went to.
    """
    programs = LeastCost(scene, load)
    return np.array([programs.solve(second) if judged[second] else 0.0 for second in range(load.seconds)])


class LeastCost:
    """Variables: shares of bytes and of requests by choice, cores short and given by machine, cores lent by host."""

    def __init__(self, scene: ReplayScene, load: OfferedLoad) -> None:
        self._scene, self._load = scene, load
        self._short = scene.orchestrator.demand.cost_of_short
        self._hosts = tuple(host.name for host in scene.hosts)
        self._vms = [scene.orchestrator.declared.vm(name) for name in load.vms]
        self._choices = tuple(self._all_choices(WayFinder(scene)))
        self._pair_of = np.array([choice.pair for choice in self._choices], dtype=np.int64)
        self._ms = np.array([choice.cost.cpu_ms_per_connection for choice in self._choices])
        self._ms_mb = np.array([choice.cost.cpu_ms_per_mb for choice in self._choices])
        links = tuple(dict.fromkeys(hop for choice in self._choices for hop in choice.hops))
        ways = WayFinder(scene)
        crossings = [(links.index(hop), place) for place, choice in enumerate(self._choices) for hop in choice.hops]
        self._crossing = np.array(crossings, dtype=np.int64).reshape(-1, 2)
        self._room = np.array([ways.capacity(hop) for hop in links])
        weights = weigh_priorities(scene.virtual_ips)
        widest = np.zeros(len(load.pairs))
        np.maximum.at(widest, self._pair_of, [choice.widest for choice in self._choices])
        self._price = np.array([weights[pair.virtual_ip] for pair in load.pairs]) / np.maximum(widest, 1e-9)
        self._fixed = self._machine_rows()
        most = [spec.cpu_cores_max if spec else 0.0 for spec in self._vms]
        self._most, self._cores = np.array(most), np.array([host.cpu_cores_capacity for host in scene.hosts])
        self._host_of = np.array([self._hosts.index(scene.host_of[name]) for name in load.vms], dtype=np.int64)
        self._served = np.array([choice.vm for choice in self._choices], dtype=np.int64)
        tops = [*[1.0] * 2 * len(self._choices), *[math.inf] * len(most), *most, *[math.inf] * len(self._hosts)]
        self._bounds = [(0.0, top) for top in tops]

    def _all_choices(self, ways: WayFinder) -> Iterator[DestinationChoice]:
        switches = {node.name for node in self._scene.nodes if node.kind is NodeKind.SWITCH}
        routed = judge_routes(self._scene.orchestrator.routing, self._scene.nodes, self._scene.links).on
        for number, pair in enumerate(self._load.pairs):
            for name in self._destinations(pair):
                column = self._load.vms.index(name) if name in self._load.vms else -1
                spec = self._vms[column] if column >= 0 else None
                here = self._scene.host_of.get(name, name)
                places = self._hosts if spec is not None and spec.movable else (here,)
                crossed = [frozenset(ways.hops(pair.source, place)) for place in places]
                hops = reduce(frozenset.intersection, crossed)
                # With splits over several paths nobody has to cross a certain link between switches.
                kept = [hop for hop in sorted(hops) if not (routed and {hop.a, hop.b} <= switches)]
                widest = max(ways.narrowest(pair.source, place) for place in places)
                yield DestinationChoice(number, column, tuple(kept), widest, self._scene.costs.get(name, RequestCost()))

    def _destinations(self, pair: Pair) -> list[str]:
        declared = [
            item.name for vip in self._scene.virtual_ips if vip.address == pair.virtual_ip for item in vip.destinations
        ]
        pool = self._scene.orchestrator.declared.pool(pair.virtual_ip)
        return [*declared, *(member.vm for member in pool.members if pool)] if pool else declared

    def _machine_rows(self) -> Coefficients:
        """Rows of hosts (cores given there and lent to machines that move) and the one of all that is lent."""
        machines, hosts, first = len(self._vms), len(self._hosts), 2 * len(self._choices)
        rows, columns, values = [], [], []
        for number, (name, spec) in enumerate(zip(self._load.vms, self._vms, strict=True)):
            movable = spec is not None and spec.movable
            rows.append(hosts if movable else self._hosts.index(self._scene.host_of[name]))
            columns.append(first + machines + number)
            values.append(1.0)
        for number in range(hosts):
            rows += [number, hosts]
            columns += [first + 2 * machines + number] * 2
            values += [1.0, -1.0]
        return Coefficients(np.array(rows), np.array(columns), np.array(values))

    def solve(self, second: int) -> float:
        """The least cost of this second."""
        offered, connections = self._load.bytes_per_s[second], self._load.connections_per_s[second]
        wanted = self._load.cores[second]
        work = (connections[self._pair_of] * self._ms + offered[self._pair_of] * self._ms_mb / 1e6) / 1e3
        whole = self._short * float(offered @ self._price)
        if self._fits(offered, work, wanted):
            return 0.0
        pairs, machines, choices = len(self._load.pairs), len(self._vms), len(self._choices)
        first = 2 * pairs + len(self._room)
        parts = [
            Coefficients(self._pair_of, np.arange(choices), np.ones(choices)),
            Coefficients(self._pair_of + pairs, np.arange(choices) + choices, -np.ones(choices)),
            self._link_rows(offered, 2 * pairs),
            *self._need_rows(work, first),
            Coefficients(self._fixed.rows + first + machines, self._fixed.columns, self._fixed.values),
        ]
        once, links = np.ones(pairs), np.ones(len(self._room))
        limits = np.concatenate([once, -once, links, -wanted, self._cores, [0.0]])
        saved = -self._short * (offered * self._price)[self._pair_of]
        goal = np.concatenate(
            [saved, np.zeros(choices), np.full(machines, self._short), np.zeros(machines + len(self._hosts))]
        )
        rows, columns, values = (
            np.concatenate([getattr(part, field) for part in parts]) for field in ("rows", "columns", "values")
        )
        matrix = csr_array((values, (rows, columns)), shape=(len(limits), len(goal)))
        found = whole + float(linprog(goal, matrix, limits, bounds=self._bounds, method="highs").fun)
        return found if found > TOLERANCE else 0.0

    def _fits(self, offered: Floats, work: Floats, wanted: Floats) -> bool:
        """Whether nothing is short with all pairs spread evenly and all machines where they begin: nearly always so."""
        links, choices = self._crossing.T
        share = 1.0 / np.bincount(self._pair_of, minlength=len(offered))[self._pair_of]
        carried = np.bincount(links, (offered[self._pair_of] * share)[choices], len(self._room))
        # A last place for destinations that are no machines.
        need = np.append(wanted, 0.0) + np.bincount(self._served % (len(wanted) + 1), work * share, len(wanted) + 1)
        on_hosts = np.bincount(self._host_of, need[:-1], len(self._hosts))
        within = (carried <= self._room).all() and (need[:-1] <= self._most).all()
        return bool(within and (on_hosts <= self._cores).all())

    def _link_rows(self, offered: Floats, first: int) -> Coefficients:
        links, choices = self._crossing.T
        return Coefficients(links + first, choices, offered[self._pair_of[choices]] / self._room[links])

    def _need_rows(self, work: Floats, first: int) -> Iterator[Coefficients]:
        machines, choices = len(self._vms), len(self._choices)
        on_vm = np.flatnonzero(self._served >= 0)
        yield Coefficients(self._served[on_vm] + first, on_vm + choices, work[on_vm])
        for block in range(2):
            columns = np.arange(machines) + 2 * choices + block * machines
            yield Coefficients(np.arange(machines) + first, columns, -np.ones(machines))
