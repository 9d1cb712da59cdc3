"""Says of all machines, hosts and services at once who clearly needs nothing, so that a plan looks at the others only.

Each answer errs towards looking: what is left out would have been looked at for nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from orchestrator.actions import SetCpuLimit, SetMemory, SetVcpus
from orchestrator.config import NOW
from orchestrator.context import PlanningContext
from orchestrator.foreseen import Bools, Floats, Ints
from orchestrator.lead_times import Circumstances
from orchestrator.needs import CONNECTIONS, ceiling
from orchestrator.onset import PEAK, Reading
from orchestrator.pair_table import LinkKey
from orchestrator.proposal import on_host
from orchestrator.sums import served_cores
from orchestrator.world import VmState

NEARLY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class MachineColumns:
    """What machines have, by number: cores and vCPUs, and what is declared of them (nothing: infinite everyday limit).

    `host` is the number of the declared host, -1 for another one.
    """

    vms: Sequence[VmState]
    host: Ints
    limit: Floats
    ceiling: Floats
    vcpus: Floats
    everyday: Floats
    vcpus_most: Floats

    @classmethod
    def of(cls, context: PlanningContext) -> "MachineColumns":
        """Of a context's world; kept."""
        found: MachineColumns | None = context.world.index.kept.get(key := cls.__name__)
        if found is None:
            vms = tuple(context.world.vms.values())
            hosts = {name: number for number, name in enumerate(context.world.hosts)}
            columns = (
                [one.cores_limit for one in vms],
                [ceiling(one) for one in vms],
                [float(one.vcpus) for one in vms],
                [one.spec.cpu_cores_min if one.spec else np.inf for one in vms],
                [float(one.spec.vcpus_max) if one.spec else 0.0 for one in vms],
            )
            places = np.array([hosts.get(one.host, -1) for one in vms], dtype=np.int64)
            found = context.world.index.kept[key] = cls(vms, places, *map(np.array, columns))
        return found


def alike(context: PlanningContext, asked: Callable[[Circumstances], Hashable]) -> Iterator[tuple[Any, Bools]]:
    """What is `asked` of the circumstances on hosts, once for each answer: with the machines on hosts with that one."""
    columns, groups = MachineColumns.of(context), defaultdict[Hashable, list[int]](list)
    for number, host in enumerate(context.world.hosts):
        groups[asked(on_host(context.world, host))].append(number)
    for answer, hosts in groups.items():
        yield answer, np.isin(columns.host, hosts)


def to_resize(context: PlanningContext) -> list[VmState]:
    """Machines whose CPU limit or vCPUs may have to change, in the order of the world."""
    columns, cpu = MachineColumns.of(context), context.config.cpu
    found = np.zeros(len(columns.vms), dtype=np.bool_)
    least = columns.everyday * (1.0 + cpu.min_gain) - NEARLY

    def asked(about: Circumstances) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
        soon_s = context.lead_s(SetCpuLimit.kind, about) + context.config.timing.cycle_s
        return soon_s, context.acting_horizons(SetCpuLimit.kind, about), context.acting_horizons(SetVcpus.kind, about)

    for (soon_s, quota_s, plug_s), own in alike(context, asked):
        wanted = _wanted(context, quota_s, Reading(within_s=soon_s))
        up = (wanted >= least) & (wanted > columns.limit - NEARLY)
        ahead = _wanted(context, plug_s, PEAK)
        plugged = (columns.vcpus_most > columns.vcpus) & (ahead >= least) & (ahead > columns.vcpus - NEARLY)
        found |= own & (up | (columns.limit > columns.everyday) | plugged)
    return [columns.vms[number] for number in np.flatnonzero(found & (columns.host >= 0)).tolist()]


def _wanted(context: PlanningContext, horizons_s: Sequence[int], reading: Reading) -> Floats:
    """The largest limit that any of these horizons asks for, as `wanted_limit`, by number of the machine."""
    cpu, found = context.config.cpu, []
    for one in horizons_s:
        steps = np.ceil(
            context.needs(one, reading).columns.cores / (cpu.headroom if one == NOW else 1.0) / cpu.step_cores
        )
        found.append(steps * cpu.step_cores)
    most: Floats = np.max(found, axis=0)
    return most


def to_fill(context: PlanningContext) -> list[VmState]:
    """Machines with a declared maximum of memory that may be given some, or have long been calm."""
    known = [vm for vm in context.world.vms.values() if vm.spec is not None and vm.spec.memory_bytes_max > 0]
    vms = [vm for vm in known if vm.memory.used_bytes is not None and vm.host in context.world.hosts]
    if not vms:
        return []
    settings, place = context.config.memory, np.array([context.machines.places[vm.name] for vm in vms])
    bytes_now, need = (np.array(one, dtype=np.float64) for one in zip(*map(_filled, vms), strict=True))
    for horizons_s, own in alike(context, lambda about: context.acting_horizons(SetMemory.kind, about)):
        for one in horizons_s:
            need = np.where(own[place], np.fmax(need, _memory_bytes(context, vms, place, one)), need)
    half = np.maximum(settings.reserve * need, settings.reserve_bytes) / 2
    short = need + half > bytes_now * (1.0 - NEARLY)
    return [vm for vm, lacks in zip(vms, short.tolist(), strict=True) if lacks or vm.memory.calm]


def _filled(vm: VmState) -> tuple[int, int]:
    return vm.memory.bytes, vm.memory.used_bytes or 0


def _memory_bytes(context: PlanningContext, vms: Sequence[VmState], place: Ints, horizon_s: int) -> Floats:
    """The most that any of their relations asks for, as `MemoryRelation.bytes_at`; NaN where they have none."""
    needs, away = context.needs(horizon_s), NormalDist().inv_cdf(context.config.demand.level)
    rates = {CONNECTIONS: np.array(needs.connections_per_s)[place], "bytes_per_s": np.array(needs.bytes_per_s)[place]}
    found = np.full(len(vms), np.nan)
    rows = [(n, one.feature, one.base_bytes + away * one.spread_bytes, one.slope)
            for n, vm in enumerate(vms) for one in vm.memory.relations]  # fmt: skip
    for feature, rate in rates.items():
        own = [(n, base, slope) for n, of, base, slope in rows if of == feature]
        number, base, slope = np.array(own, dtype=np.float64).reshape(-1, 3).T
        which = number.astype(np.int64)
        np.fmax.at(found, which, base + slope * np.maximum(0.0, rate[which]))
    return found


def crowded_hosts(context: PlanningContext, share: float) -> list[str]:
    """Hosts that may be asked for more than this share of their cores at any horizon, by name."""
    hosts = sorted(context.world.hosts)
    room = share * np.array([context.world.hosts[name].cpu_cores_capacity for name in hosts])
    found = np.zeros(len(hosts), dtype=np.bool_)
    for one in context.config.horizons_s:
        found |= served_cores(context.demand, context.world, (one, PEAK), hosts) > room - NEARLY
    return [hosts[number] for number in np.flatnonzero(found).tolist()]


def roomiest_hosts(context: PlanningContext, count: int) -> list[str]:
    """So many hosts that take machines and have most cores left at the horizon at which they have least."""
    hosts = sorted(name for name, one in context.world.hosts.items() if not one.closed)
    room = context.config.cpu.host_headroom * np.array([context.world.hosts[name].cpu_cores_capacity for name in hosts])
    served = [served_cores(context.demand, context.world, (one, PEAK), hosts) for one in context.config.horizons_s]
    order = np.argsort(np.max(served, axis=0) - room, kind="stable")
    return [hosts[number] for number in order[:count].tolist()]


def not_ample(context: PlanningContext, services: Mapping[str, Sequence[str]], horizon_s: int) -> set[str]:
    """Services, by address, of whose destinations one, or its host with all others, might have too little left if it
    served all: no split asks for more. `services`: with their destinations, those that are no machines left out.
    """
    world, columns, places = context.world, MachineColumns.of(context), context.machines.places
    entries = [(n, places[name]) for n, names in enumerate(services.values()) for name in names if name in places]
    service, machine = np.array(entries, dtype=np.int64).reshape(-1, 2).T
    groups = world.table.of_service
    spoken = np.array([groups.places.get(address, -1) for address in services], dtype=np.int64)
    most = np.zeros(len(services))
    np.maximum.at(most, service, _whole_cost(context, spoken[service], machine, horizon_s))
    full, hosts = 1.0 - context.config.weights.below, tuple(world.hosts)
    capacity = np.array([one.cpu_cores_capacity for one in world.hosts.values()] + [np.inf])
    served = np.append(served_cores(context.demand, world, (horizon_s, PEAK), hosts), 0.0)
    host, asked = columns.host[machine], most[service]
    close = context.machines.idle[machine] + asked > full * columns.ceiling[machine] - NEARLY
    close |= served[host] + asked > full * context.config.cpu.host_headroom * capacity[host] - NEARLY
    names = [*services]
    return {names[number] for number in np.unique(service[close]).tolist()}


def _whole_cost(context: PlanningContext, service: Ints, machine: Ints, horizon_s: int) -> Floats:
    """Cores that all of a service's demand would take at one of its machines; below 0 where nobody knows.

    `service`: numbers among those spoken to, -1 for another one; `machine`: as many numbers of machines.
    """
    world, table = context.world, context.demand.table(horizon_s)
    asked, opened = (np.append(one, 0.0)[service] for one in table.of_groups(world.table.of_service).sums[:2])
    found = np.full(len(service), -1.0)
    for one in context.machines.relations:
        found = np.fmax(found, one.slope[machine] * np.where(one.connections[machine], opened, asked))
    groups = world.table.to_machine()
    served = np.array([groups.places.get(vm.name, -1) for vm in context.machines.vms], dtype=np.int64)[machine]
    own = np.append(groups.sums(world.table.column("bytes_per_s")), 0.0)[served]
    used = np.array([vm.cores_used for vm in context.machines.vms])[machine]
    by_bytes = np.divide(used * asked, own, out=np.full(len(own), -1.0), where=(own > 0) & (service >= 0))
    return np.where(found < 0, by_bytes, found)


def tight_links(context: PlanningContext, horizon_s: int) -> frozenset[LinkKey]:
    """Links that might have less left than weights are to leave, if one service sent everything over them; kept."""
    world, settings, services = context.world, context.config, context.world.table.of_service
    found: frozenset[LinkKey] | None = world.index.kept.get(key := ("tight", context.demand, horizon_s))
    if found is None:
        known = [services.places[address] for address in world.virtual_ips if address in services.places]
        needs = context.demand.table(horizon_s).of_groups(services).sums[3]
        most, share = needs[known].max(initial=0.0).item(), (1.0 - settings.weights.below) * settings.bandwidth.headroom
        found = world.index.kept[key] = frozenset(
            one
            for one in context.bounds(horizon_s).above(share, most)
            if context.needed(one, horizon_s) + most > share * (world.links[one].capacity_bytes_per_s or 0.0)
        )
    return found
