"""What the machines of a world need: through what was learnt of their communications, for all of them at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from orchestrator.demand import Demand
from orchestrator.demand_table import DemandTable, PairDemand, RateSums, scaled_demand
from orchestrator.foreseen import Bools, Floats, Foreseen, Ints
from orchestrator.onset import PEAK, Reading
from orchestrator.own_needs import ALONE, OwnForecasts, OwnNeeds, OwnWindow, Slopes, add_own
from orchestrator.relations import CpuRelation
from orchestrator.world import VmState, World

# A starved machine shows only what it was given; asking for this much more finds out step by step.
STARVED_FACTOR = 1.5
CONNECTIONS = "connections_per_s"


class _Relations(NamedTuple):
    """One relation of each machine; NaN where it has not so many. `connections`: of which feature it is."""

    connections: Bools
    base: Floats
    slope: Floats
    spread: Floats

    @classmethod
    def of(cls, relations: Sequence[CpuRelation | None]) -> "_Relations":
        """By number of the machine."""
        none = CpuRelation("", np.nan, np.nan, np.nan, 0)
        known = [none if one is None else one for one in relations]
        columns = ([one.base_cores for one in known], [one.slope for one in known], [one.spread_cores for one in known])
        return cls(np.array([one.feature == CONNECTIONS for one in known]), *map(np.array, columns))

    def cores(self, connections_per_s: Floats, bytes_per_s: Floats) -> Floats:
        """As `CpuRelation.cores`."""
        x = np.where(self.connections, connections_per_s, bytes_per_s)
        return self.base + self.slope * np.maximum(0.0, x) + self.spread


class MachineTable:
    """The machines of a world, numbered, as far as actions leave them as they are.

    `shares`: virtual IPs whose connections are placed one by one, and the share of each machine.
    """

    def __init__(self, world: World) -> None:
        vms = list(world.vms.values())
        self.places = {name: place for place, name in enumerate(world.vms)}
        self.vms = vms
        self.least = np.array([_least(vm) for vm in vms])
        self.known = [vm.relations for vm in vms]
        most = max(map(len, self.known), default=0)
        own = ([one[slot] if slot < len(one) else None for one in self.known] for slot in range(most))
        self.relations = [_Relations.of(one) for one in own]
        self.idle = np.array([min((one.base_cores for one in own), default=0.0) for own in self.known])
        self.shares = {
            vip.address: vip.shares(world.wanted.weights.get(vip.address, {}), world.health(vip.address))
            for vip in world.virtual_ips.values()
            if vip.by_connection
        }
        self.spread = frozenset(self.shares)
        self.own = self._own_forecasts() if any(vm.beside for vm in vms) else None
        self.needs: dict[DemandTable, MachineNeeds] = {}
        self.kept: dict[Hashable, Any] = {}  # what strategies find out about needs, by all that it depends on

    def _own_forecasts(self) -> OwnForecasts:
        spread = {name for shares in self.shares.values() for name in shares}
        return OwnForecasts(
            Foreseen([vm.beside for vm in self.vms]),
            np.array([vm.cores_used for vm in self.vms]),
            np.array([vm.cores_limit for vm in self.vms]),
            np.array([vm.name in spread for vm in self.vms]),
        )


def ceiling(vm: VmState) -> float:
    """The most that a machine may ever use, in cores."""
    return max(vm.cores_limit, vm.spec.cpu_cores_max) if vm.spec else vm.cores_limit


def _least(vm: VmState) -> float:
    return vm.cores_used * (STARVED_FACTOR if vm.starved else 1.0)


class NeedColumns(NamedTuple):
    """Needs in cores by number of the machine, what is needed of them in the mean, and of whom anything is foreseen."""

    cores: Floats
    usual: Floats
    told: Bools


@dataclass(frozen=True, slots=True, eq=False)
class MachineNeeds:
    """What each machine needs in cores within one horizon, and what its pairs ask for together, by number.

    `relation` is the number of the relation behind it, -1 where there is none; `leader` that of the pair that needs
    most bytes with its `share`, -1 where no pair is served. `own_cores` are needed beside communications, by a forecast
    within `far_s` (0: nothing is foreseen that counts). `columns` are the same for all machines at once.
    """

    demand: Demand
    table: DemandTable
    cores: list[float]
    relation: list[int]
    connections_per_s: list[float]
    bytes_per_s: list[float]
    leader: list[int]
    share: list[float]
    own_cores: list[float]
    far_s: list[int]
    columns: NeedColumns

    def rate_of(self, place: int, feature: str) -> float:
        """What is asked for together, of the feature that a learnt relation is about."""
        return (self.connections_per_s if feature == CONNECTIONS else self.bytes_per_s)[place]

    def leading(self, place: int) -> PairDemand | None:
        """The demand of the pair that asks for most."""
        number = self.leader[place]
        if number < 0:
            return None
        return scaled_demand(self.demand.view(self.table, number), self.share[place])


def machine_needs(world: World, demand: Demand, horizon_s: int, reading: Reading = PEAK) -> MachineNeeds:
    """Through the learnt relations where there are any, else what is measured; never below what is measured.

    Of several relations the one that asks for most counts: each of them knows a need that the other may miss.
    """
    known, table = machine_table(world), demand.table(horizon_s, reading)
    found = known.needs.get(table)
    if found is None:
        asked = _asked_of(world, known, table)
        own = (
            _own_needs(demand, known, asked, OwnWindow(known.own, horizon_s, reading))
            if known.own and horizon_s
            else None
        )
        found = known.needs[table] = _needs(asked, _Subject(demand, known, table), own)
    return found


def machine_table(world: World) -> MachineTable:
    """The machines of a world, numbered; made once."""
    known = world.index.machines
    if not isinstance(known, MachineTable):
        known = world.index.machines = MachineTable(world)
    return known


class _Subject(NamedTuple):
    """The demand, the machines and the table of pairs that needs are worked out from."""

    demand: Demand
    known: MachineTable
    table: DemandTable


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What pairs ask of each machine together, and who leads with which share."""

    connections: RateSums
    bytes: RateSums
    leader: Ints
    share: Floats


def _needs(asked: _Asked, of: _Subject, own: OwnNeeds | None) -> MachineNeeds:
    demand, known, table = of
    connections, sent = asked.connections.together(), asked.bytes.together()
    most, relation = np.full(len(known.least), -np.inf), np.full(len(known.least), -1)
    usual = known.least.copy()
    for number, one in enumerate(known.relations):
        cores, mean = one.cores(connections, sent), one.cores(asked.connections.usual, asked.bytes.usual) - one.spread
        more = cores > most
        most[more], relation[more], usual[more] = cores[more], number, mean[more]
    most = np.where(asked.leader >= 0, most, -np.inf)
    own = own or OwnNeeds.nothing(len(most))
    counts = (own.cores > most) & (own.cores >= known.least)
    most, relation = np.where(counts, own.cores, most), np.where(counts, own.relation, relation)
    usual = np.where(counts, own.usual, usual)
    # A relation may be wrong: what is measured stands for itself.
    told = most >= known.least
    cores, relation, far_s = (
        np.where(told, most, known.least), np.where(told, relation, -1), np.where(counts, own.far_s, 0)
    )  # fmt: skip
    usual = np.where(told, np.minimum(usual, most), known.least)
    return MachineNeeds(
        demand,
        table,
        cores.tolist(),
        relation.tolist(),
        connections.tolist(),
        sent.tolist(),
        asked.leader.tolist(),
        asked.share.tolist(),
        np.where(counts, own.own_cores, 0.0).tolist(),
        far_s.tolist(),
        NeedColumns(cores, usual, (relation >= 0) | (far_s > 0)),
    )


def _own_needs(demand: Demand, known: MachineTable, asked: _Asked, window: OwnWindow) -> OwnNeeds:
    """Communications by each relation together with what is foreseen beside them.

    A machine that serves nobody, or of which nothing was taken off, stands by its own forecast alone.
    """
    found = OwnNeeds.nothing(len(known.least))
    alone = window.known.alone | (asked.leader < 0)
    add_own(found, demand, window, Slopes(ALONE, np.where(alone, 0.0, np.nan)), asked.bytes)
    for number, one in enumerate(known.relations):
        slope = np.where(alone, np.nan, one.slope)
        for which, sums in ((one.connections, asked.connections), (~one.connections, asked.bytes)):
            if which.any():
                add_own(found, demand, window, Slopes(number, np.where(which, slope, np.nan)), sums)
    return found


def _asked_of(world: World, known: MachineTable, table: DemandTable) -> _Asked:
    """Where a virtual IP's connections are placed one by one, a pair talks to all machines, each by its share."""
    groups = world.table.to_machine(known.spread)
    own, needs = table.of_groups(groups), table.bytes.need
    places = np.array([groups.places.get(name, -1) for name in known.places], dtype=np.int64)
    sent, opened, leader = own.bytes.at(places), own.connections.at(places), np.append(own.leaders, -1)[places]
    share, most = np.ones(len(places)), np.where(leader >= 0, np.append(needs, 0.0)[leader], -np.inf)
    services = world.table.of_service
    for address, shares in known.shares.items():
        whole, at = table.of_groups(services), services.places.get(address, -1)
        for name, part in shares.items() if at >= 0 else ():
            place, lead = known.places.get(name), int(whole.leaders[at])
            if place is not None and part > 0:
                sent.add(place, part, whole.bytes, at)
                opened.add(place, part, whole.connections, at)
                if part * needs[lead] > most[place]:
                    leader[place], share[place], most[place] = lead, part, part * needs[lead]
    return _Asked(opened, sent, leader, share)


def served_numbers(world: World, vm: str) -> list[tuple[int, float]]:
    """The pairs that a machine has to serve, by number, each with its share of them."""
    known = machine_table(world)
    found = [(number, 1.0) for number in world.table.to_machine(known.spread).members.get(vm, ())]
    for address, shares in known.shares.items():
        share = shares.get(vm, 0.0)
        found += [(number, share) for number in world.table.of_service.members.get(address, ()) if share > 0]
    return found
