"""What links and hosts will carry: forecasts of their parts and forecasts of themselves, reconciled.

Peaks of pairs do not coincide, and no pair explains traffic outside virtual IPs: the sum itself knows both. Its mean is
the least-squares combination of both forecasts, each weighted by its variance (WLS of a hierarchy of two levels:
Wickramasuriya, Athanasopoulos and Hyndman, Optimal forecast reconciliation for hierarchical and grouped time series
through trace minimization, 2019). What the highest second adds to the mean is taken from the sum's own forecast: errors
of both are those of the same future, so a variance for independent ones would be too small by far.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from cpdb import Quantity, Subject, SubjectKind
from orchestrator.demand import Demand, KnownRates, Sought, foretold_rates
from orchestrator.foreseen import Bools, Floats, Foreseen, Ints
from orchestrator.needs import MachineNeeds, ceiling, machine_needs, machine_table
from orchestrator.onset import PEAK, Reading
from orchestrator.pair_table import LinkKey
from orchestrator.world import World

# From this share of its capacity on a link shows what it could carry, not what was asked of it.
HELD_SHARE = 0.85

Place = TypeVar("Place", bound=Hashable)
# A horizon in seconds, and what is read out of forecasts within it
Asked = tuple[int, Reading]


class SumForecast(NamedTuple):
    """By number of the sum: its mean, and what the highest second may add to that."""

    usual: Floats
    excess: Floats

    @property
    def upper(self) -> Floats:
        """The upper end."""
        return self.usual + self.excess


class Sums(NamedTuple):
    """Reconciled sums: the mean, the upper end, and how much of the mean's correction is nobody's part."""

    usual: Floats
    upper: Floats
    beside: Floats


def reconcile(parts: SumForecast, whole: SumForecast, unexplained: Floats, held: Bools) -> Sums:
    """Sums of parts with the forecasts of the sums themselves.

    Excesses stand for standard deviations. Of what is `unexplained` (a share of what is measured of the sum) nobody has
    a forecast but the sum: it counts as uncertain as that share of it. What was `held` back may add, never take away.
    """
    known, own = (1.0 - unexplained) * parts.excess**2, unexplained * whole.excess**2
    both = known + whole.excess**2
    weight = np.divide(known + own, both, out=unexplained.copy(), where=both > 0)
    usual = parts.usual + weight * (whole.usual - parts.usual)
    upper = usual + whole.excess
    usual = np.where(held, np.maximum(usual, parts.usual), usual)
    upper = np.where(held, np.maximum(upper, parts.upper), upper)
    share = np.divide(own, known + own, out=unexplained.copy(), where=known + own > 0)
    return Sums(usual, upper, share * (usual - parts.usual))


class Correction(NamedTuple):
    """What the forecast of a sum itself adds to what is known of its parts, in bytes/s or cores: below 0 it takes away.

    `parts` is about their upper end together, which was `of`; `beside` about what is nobody's part; `usual` about their
    mean.
    """

    parts: float
    beside: float
    of: float
    usual: float = 0.0

    def within(self, asked: float) -> float:
        """For parts that ask for so much together: who has left takes its part of the correction along."""
        return self.parts * min(1.0, asked / self.of) if self.of > 0 else self.parts


class _Measured(NamedTuple):
    """What a sum carries now, what it may at most, and whether a part of it is held back."""

    carried: float
    capacity: float | None
    held: bool


NO_CORRECTION = Correction(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class ForetoldSums:
    """Sums of which something is forecast: what is measured of each now, from where on it is held back, and that.

    In bytes/s of links, or cores of hosts.
    """

    foreseen: Foreseen
    peak: Quantity
    reading: Reading
    carried: Floats
    fullest: Floats
    held: Bools

    @classmethod
    def of(
        cls, demand: Demand, subjects: Sequence[Subject], measured: Sequence[_Measured], reading: Reading
    ) -> "ForetoldSums":
        """Sums with what is measured of them."""
        forecasts = demand.world.network.sums
        carried = np.array([one.carried for one in measured])
        fullest = np.array([HELD_SHARE * (one.capacity or np.inf) for one in measured])
        held = np.array([one.held for one in measured], dtype=np.bool_)
        peak = Quantity.BYTES_PEAK if subjects[0].kind is SubjectKind.LINK else Quantity.CPU_PEAK
        return cls(Foreseen([forecasts[one] for one in subjects]), peak, reading, carried, fullest, held)

    def reconcile(self, demand: Demand, horizon_s: int, parts: SumForecast, unexplained: Floats) -> tuple[Sums, Bools]:
        """With the sums of their parts, and of which a trusted forecast within `horizon_s` says anything."""
        now, nothing = self.carried, np.full(len(self.carried), np.inf)
        known, passed = KnownRates(now, now, nothing, np.full(len(now), np.nan)), np.zeros(len(now), dtype=np.bool_)
        told = foretold_rates(demand, Sought(self.foreseen, horizon_s, self.peak), known, self.reading, passed)
        whole = SumForecast(told.typical, np.maximum(0.0, told.need - told.typical))
        held = self.held | (self.carried >= self.fullest) | (told.need >= self.fullest)
        return reconcile(parts, whole, unexplained, held), told.far_s > 0


def link_corrections(demand: Demand, horizon_s: int, reading: Reading = PEAK) -> Mapping[LinkKey, Correction]:
    """By link of which a trusted forecast within `horizon_s` says anything; kept."""
    return _once(demand, (horizon_s, reading), _of_links)


def host_corrections(demand: Demand, horizon_s: int, reading: Reading = PEAK) -> Mapping[str, Correction]:
    """By host of which a trusted forecast within `horizon_s` says anything, in cores; kept."""
    return _once(demand, (horizon_s, reading), _of_hosts)


def _once(
    demand: Demand, asked: Asked, work_out: Callable[[Demand, int, Reading], Mapping[Place, Correction]]
) -> Mapping[Place, Correction]:
    found: Mapping[Place, Correction] | None = demand.corrections.get((asked, work_out))
    if found is None:
        found = demand.corrections[asked, work_out] = work_out(demand, *asked) if asked[0] else {}
    return found


def _of_links(demand: Demand, horizon_s: int, reading: Reading) -> Mapping[LinkKey, Correction]:
    world = demand.world
    known = {key: one for key, one in world.links.items() if Subject(SubjectKind.LINK, *key) in world.network.sums}
    if not known:
        return {}
    limited = {limit.pair for one in world.wanted.reservations.values() for limit in one.limits}
    slowed = {key for pair in limited if pair in world.pairs for key in world.pairs[pair].links}
    measured = [
        _Measured(one.bytes_per_s, one.capacity_bytes_per_s, one.drop_share > 0 or key in slowed)
        for key, one in known.items()
    ]
    subjects = [Subject(SubjectKind.LINK, *key) for key in known]
    sums = ForetoldSums.of(demand, subjects, measured, reading)
    groups = world.table.on_link
    places = np.array([groups.places.get(key, -1) for key in known], dtype=np.int64)
    asked = demand.table(horizon_s, reading).of_groups(groups).bytes.at(places)
    beside = np.maximum(0.0, sums.carried - asked.measured)
    unexplained = np.divide(beside, sums.carried, out=(places < 0).astype(np.float64), where=sums.carried > 0)
    parts = SumForecast(asked.usual + beside, asked.together() - asked.usual)
    found, says = sums.reconcile(demand, horizon_s, parts, unexplained)
    columns = found.upper - parts.upper - found.beside, found.beside, asked.together()
    rows = np.stack([*columns, found.usual - parts.usual - found.beside], axis=-1).tolist()
    return {key: Correction(*row) for key, row, told in zip(known, rows, says.tolist(), strict=True) if told}


class MachinesTogether(NamedTuple):
    """By host, what its machines need together in cores: in the mean, in the highest second, and at least (what they
    use). `unforeseen`: the share of what they use of whom nothing is foreseen.
    """

    usual: Floats
    upper: Floats
    least: Floats
    unforeseen: Floats


class HostedMachines(NamedTuple):
    """The machines on some hosts: numbers of the host and of the machine, cores used, and the most that it may use."""

    hosts: int
    host: Ints
    place: Ints
    used: Floats
    most: Floats

    @classmethod
    def of(cls, world: World, hosts: Sequence[str]) -> "HostedMachines":
        """Those on these hosts, in the order of hosts and of names; kept."""
        found: HostedMachines | None = world.index.kept.get(key := (cls.__name__, *hosts))
        if found is None:
            own, places = [world.on_host(name) for name in hosts], machine_table(world).places
            vms = [vm for some in own for vm in some]
            found = world.index.kept[key] = cls(
                len(hosts),
                np.repeat(np.arange(len(hosts)), [len(some) for some in own]),
                np.array([places[vm.name] for vm in vms], dtype=np.int64),
                np.array([vm.cores_used for vm in vms]),
                np.array([ceiling(vm) for vm in vms]),
            )
        return found

    def together(self, needs: MachineNeeds) -> MachinesTogether:
        """None above its ceiling: means add, excesses in squares. What is measured is there at once."""
        needed, usually, told = (column[self.place] for column in needs.columns)
        cores = np.minimum(self.most, needed)
        mean = np.minimum(cores, usually)
        columns = mean, (cores - mean) ** 2, cores, np.minimum(self.most, self.used), self.used
        usual, squares, whole, least, used = (self._sums(one) for one in columns)
        upper = np.maximum(usual + np.sqrt(squares), least) if needs.table.horizon_s else whole
        unknown = self._sums(np.where(told, 0.0, self.used))
        return MachinesTogether(usual, upper, least, np.divide(unknown, used, out=np.zeros_like(used), where=used > 0))

    def _sums(self, values: Floats) -> Floats:
        return np.bincount(self.host, values, self.hosts).astype(np.float64, copy=False)


def served_cores(demand: Demand, world: World, asked: Asked, hosts: Sequence[str]) -> Floats:
    """What the machines on each of these hosts would take together, reconciled with the forecast of the host itself."""
    found = HostedMachines.of(world, hosts).together(machine_needs(world, demand, *asked))
    known = host_corrections(demand, *asked)
    more = [known.get(name, NO_CORRECTION).within(most) for name, most in zip(hosts, found.upper.tolist(), strict=True)]
    served: Floats = np.maximum(found.least, found.upper + np.array(more))
    return served


def _of_hosts(demand: Demand, horizon_s: int, reading: Reading) -> Mapping[str, Correction]:
    """A host is held back, too, where a machine may use less than it needs."""
    world = demand.world
    subjects = [one for name in world.hosts if (one := Subject(SubjectKind.HOST, name)) in world.network.sums]
    if not subjects:
        return {}
    needs, places = machine_needs(world, demand, horizon_s, reading), machine_table(world).places
    names = [one.a for one in subjects]
    held = [
        any(vm.starved or needs.cores[places[vm.name]] > vm.cores_limit for vm in world.on_host(name)) for name in names
    ]
    measured = [
        _Measured(world.used_on(name), world.hosts[name].cpu_cores_capacity, one)
        for name, one in zip(names, held, strict=True)
    ]
    # What machines always do is given no margin.
    own_reading = Reading(level=demand.config.demand.level) if reading == PEAK else reading
    sums = ForetoldSums.of(demand, subjects, measured, own_reading)
    own = HostedMachines.of(world, names).together(needs)
    parts = SumForecast(own.usual, own.upper - own.usual)
    found, says = sums.reconcile(demand, horizon_s, parts, own.unforeseen)
    nobodys = np.zeros(len(names))
    rows = np.stack([found.upper - parts.upper, nobodys, own.upper, found.usual - parts.usual], axis=-1).tolist()
    return {name: Correction(*row) for name, row, told in zip(names, rows, says.tolist(), strict=True) if told}
