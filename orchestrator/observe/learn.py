"""Learns slowly changing facts from the recorded past: bytes of a connection, CPU and memory of communications."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from cpdb import BytesPerS, Communication, LinkLoad, Pair, VmLoad
from orchestrator.relations import CpuRelation, LoadSample, MemoryRelation, fit, fit_memory

BUCKET_S = 2.0
SIZE_BUCKET_S = 5.0
SIZE_QUANTILE = 0.75
# A link is free while it carries less than this share of what it can, and drops nothing.
FREE_SHARE = 0.85
# So many connections, in so many buckets, must have come over a free way for it to speak for all.
ENOUGH_CONNECTIONS, ENOUGH_BUCKETS = 30, 4
# And among them must be times about as busy as the busiest: a surge may have sizes of its own.
AS_BUSY_SHARE = 0.75
FEATURES = ("connections_per_s", "bytes_per_s")


@dataclass(frozen=True, slots=True)
class Past:
    """A stretch of measured rows, each kind oldest first; `ways` are the links that pairs take, as far as known."""

    communications: Sequence[Communication] = ()
    vm_loads: Sequence[VmLoad] = ()
    link_loads: Sequence[LinkLoad] = ()
    ways: Mapping[Pair, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    capacities: Mapping[tuple[str, str], BytesPerS] = field(default_factory=dict)
    # virtual IP -> machine -> its share of connections, where they are placed one by one and no row names a machine
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Learnt:
    """Bytes per connection by pair, CPU and memory relations by machine; a missing entry is 'no opinion'."""

    bytes_per_connection: Mapping[Pair, float] = field(default_factory=dict)
    relations: Mapping[str, tuple[CpuRelation, ...]] = field(default_factory=dict)
    memory: Mapping[str, tuple[MemoryRelation, ...]] = field(default_factory=dict)


def learn(past: Past) -> Learnt:
    """Everything at once."""
    by_pair: dict[Pair, list[Communication]] = defaultdict(list)
    for row in past.communications:
        by_pair[row.pair].append(row)
    crowded = _crowded(past)
    sizes = {
        pair: _bytes_per_connection(rows, {bucket for key in past.ways.get(pair, ()) for bucket in crowded[key]})
        for pair, rows in by_pair.items()
    }
    found = _both_kinds(past)
    cpu, memory = {vm: both[0] for vm, both in found.items()}, {vm: both[1] for vm, both in found.items()}
    return Learnt({pair: size for pair, size in sizes.items() if size}, cpu, memory)


def _crowded(past: Past) -> dict[tuple[str, str], set[int]]:
    """Buckets in which a link was full or dropped packets, and the next one: what was lost is sent again later."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for load in past.link_loads:
        key = load.from_node, load.to_node
        capacity = past.capacities.get(key)
        full = capacity is not None and load.bytes >= FREE_SHARE * capacity * load.interval_s
        if full or load.drops:
            # All of (t - interval, t] was crowded.
            first, last = int((load.t - load.interval_s) // SIZE_BUCKET_S), int(load.t // SIZE_BUCKET_S)
            found[key].update(range(first, last + 2))
    return found


def _bytes_per_connection(rows: Iterable[Communication], crowded: AbstractSet[int] = frozenset()) -> float | None:
    """Size of a connection at times when many come: the upper quartile over connections, not over time.

    Surges may have sizes of their own, and they are what will be asked about. Quiet stretches that drain a queue hold
    few connections, so their odd ratios weigh little. Where bytes are counted before a congested link, what is sent
    again counts twice: buckets that were not `crowded` speak alone when they are enough, and about as busy.
    """
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        bucket = sums[int(row.t // SIZE_BUCKET_S)]
        bucket[0] += row.bytes
        bucket[1] += row.new_connections
    every = [(total / count, count) for total, count in sums.values() if count > 0]
    free = [(sums[one][0] / sums[one][1], sums[one][1]) for one in sums.keys() - crowded if sums[one][1] > 0]
    return _upper(free if _speaks_for(free, every) else every, 0)


def _speaks_for(free: Sequence[tuple[float, int]], every: Sequence[tuple[float, int]]) -> bool:
    enough = len(free) >= ENOUGH_BUCKETS and sum(count for _, count in free) >= ENOUGH_CONNECTIONS
    return enough and (_upper(free, 1) or 0) >= AS_BUSY_SHARE * (_upper(every, 1) or 0)


def _upper(samples: Sequence[tuple[float, int]], by: int) -> float | None:
    """The upper quartile over connections of (bytes per connection, connections), in the column `by`."""
    left = SIZE_QUANTILE * sum(count for _, count in samples)
    for one in sorted(samples, key=lambda one: one[by]):
        left -= one[1]
        if left <= 0:
            return one[by]
    return None


def _both_kinds(past: Past) -> dict[str, tuple[tuple[CpuRelation, ...], tuple[MemoryRelation, ...]]]:
    """Machine -> its CPU relations and its memory relations, one a feature as far as there is an opinion."""
    communicated: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for row in past.communications:
        parts = {row.destination: 1.0} if row.destination else past.shares.get(row.virtual_ip, {})
        for vm, share in parts.items():
            sums = communicated[vm][int(row.t // BUCKET_S)]
            sums[0] += share * row.new_connections
            sums[1] += share * row.bytes
    work: dict[str, dict[int, list[VmLoad]]] = defaultdict(lambda: defaultdict(list))
    for load in past.vm_loads:
        work[load.vm][int(load.t // BUCKET_S)].append(load)
    # What lies in the newest bucket is still incomplete: load without the traffic that caused it would teach nonsense.
    rows = (past.communications, past.vm_loads)
    until = min((int(one[-1].t // BUCKET_S) for one in rows if one), default=0)
    return {vm: _of_machine(_before(until, communicated[vm]), work[vm]) for vm in communicated if vm in work}


def _before(until: int, communicated: Mapping[int, list[float]]) -> dict[int, list[float]]:
    return {number: sums for number, sums in communicated.items() if number < until}


def _of_machine(
    communicated: Mapping[int, Sequence[float]], work: Mapping[int, Sequence[VmLoad]]
) -> tuple[tuple[CpuRelation, ...], tuple[MemoryRelation, ...]]:
    """Connections cost, and so do the bytes they bring."""
    shared = sorted(set(communicated) & set(work))
    cpu, memory = [], []
    for index, feature in enumerate(FEATURES):
        rates = [(communicated[number][index] / BUCKET_S, work[number]) for number in shared]
        cpu.append(fit(feature, [_sample(x, loads) for x, loads in rates]))
        memory.append(fit_memory(feature, [_filled(x, loads) for x, loads in rates]))
    return tuple(one for one in cpu if one is not None), tuple(one for one in memory if one is not None)


def _sample(x: float, loads: Sequence[VmLoad]) -> LoadSample:
    used = sum(one.cpu_cores_used for one in loads) / len(loads)
    return LoadSample(x, used, min(one.cpu_cores_limit for one in loads))


def _filled(x: float, loads: Sequence[VmLoad]) -> LoadSample:
    return LoadSample(x, max(one.memory_bytes_used for one in loads), min(one.memory_bytes_limit for one in loads))
