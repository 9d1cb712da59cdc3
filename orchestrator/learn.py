"""Learns slowly changing facts from the recorded past: bytes per connection, and each machine's CPU relation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cpdb import Communication, Pair, VmLoad
from orchestrator.relation import CpuRelation, LoadSample, fit

BUCKET_S = 2.0
SIZE_BUCKET_S = 5.0
SIZE_QUANTILE = 0.75
FEATURES = ("connections_per_s", "bytes_per_s")


@dataclass(frozen=True, slots=True)
class Past:
    """A stretch of measured rows, each kind oldest first."""

    communications: Sequence[Communication] = ()
    vm_loads: Sequence[VmLoad] = ()


@dataclass(frozen=True, slots=True)
class Learnt:
    """Bytes per connection by pair, CPU relations by machine; a missing entry is 'no opinion'."""

    bytes_per_connection: Mapping[Pair, float] = field(default_factory=dict)
    relations: Mapping[str, tuple[CpuRelation, ...]] = field(default_factory=dict)


def learn(past: Past) -> Learnt:
    """Everything at once."""
    by_pair: dict[Pair, list[Communication]] = defaultdict(list)
    for row in past.communications:
        by_pair[row.pair].append(row)
    sizes = {pair: _bytes_per_connection(rows) for pair, rows in by_pair.items()}
    return Learnt({pair: size for pair, size in sizes.items() if size}, _relations(past))


def _bytes_per_connection(rows: Iterable[Communication]) -> float | None:
    """Size of a connection at times when many come: the upper quartile over connections, not over time.

    Surges may have sizes of their own, and they are what will be asked about. Quiet stretches that drain a queue hold
    few connections, so their odd ratios weigh little; a congested path only ever lowers a ratio.
    """
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        bucket = sums[int(row.t // SIZE_BUCKET_S)]
        bucket[0] += row.bytes
        bucket[1] += row.new_connections
    ratios = sorted((total / count, count) for total, count in sums.values() if count > 0)
    left = SIZE_QUANTILE * sum(count for _, count in ratios)
    for ratio, count in ratios:
        left -= count
        if left <= 0:
            return ratio
    return None


def _relations(past: Past) -> dict[str, tuple[CpuRelation, ...]]:
    talk: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for row in past.communications:
        if row.destination is not None:
            sums = talk[row.destination][int(row.t // BUCKET_S)]
            sums[0] += row.new_connections
            sums[1] += row.bytes
    work: dict[str, dict[int, list[VmLoad]]] = defaultdict(lambda: defaultdict(list))
    for load in past.vm_loads:
        work[load.vm][int(load.t // BUCKET_S)].append(load)
    return {vm: _both(talk[vm], work[vm]) for vm in talk if vm in work}


def _both(talk: Mapping[int, Sequence[float]], work: Mapping[int, Sequence[VmLoad]]) -> tuple[CpuRelation, ...]:
    """One relation a feature, as far as there is an opinion: connections cost, and so do the bytes they bring."""
    shared = sorted(set(talk) & set(work))
    found = []
    for index, feature in enumerate(FEATURES):
        samples = [_sample(talk[number][index] / BUCKET_S, work[number]) for number in shared]
        found.append(fit(feature, samples))
    return tuple(one for one in found if one is not None)


def _sample(x: float, loads: Sequence[VmLoad]) -> LoadSample:
    used = sum(one.cpu_cores_used for one in loads) / len(loads)
    return LoadSample(x, used, min(one.cpu_cores_limit for one in loads))
