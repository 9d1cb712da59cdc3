"""Says how long the CPU that the offered load needs exceeded what its machine might use, and how much was allotted.

The judge may know the schedule, which nobody who decides does. Definitions, by machine and second of a segment:

* need: CPU of the requests that were due in that second, however they fared, idling included. Each costs its known work
  times one factor; both factor and idling are measured, by least squares, in the seconds of the whole run in which no
  quota held the machine back: they are the same for every policy.
* capacity: the quota of the virtual CPUs there are, and no more than the host has beside what all else on it used (over
  some three seconds), unless it did use more.
* shortage: seconds in which the need exceeds the capacity, by however little.
* beyond: those of them in which the need exceeds even what the machine's first host has for it when all that may leave
  has left, and nobody else has more than a first limit: no policy can serve them there. They come with a slow machine.
* vCPU-seconds: cores allotted (quota of a virtual CPU times their number), over all machines and the whole segment.
* held back: what the control group itself counted as waiting for the quota; a check that knows nothing of the schedule.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from forepath.demo.layout import LabLayout
from forepath.demo.results import Sample
from forepath.demo.schedule import Schedule, request_cpu_s

# A stretch from which the price is learnt lasts so long, and begins so long after the machine was last held back.
STRETCH_S, AFTER_S = 3.0, 6.0
HELD_BACK = 0.05
# Counters of two samples that are closer than this say more about who was read when than about who used what.
LEAST_STEP_S = 0.8
NO_ROOMS: Mapping[str, float] = MappingProxyType({})


class Work(NamedTuple):
    """One request's nominal CPU seconds, due at `at` (Unix seconds)."""

    at: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Price:
    """What work really costs: `idle_cores` without any, and `factor` times the nominal CPU seconds of each request.

    Where that is not `measured`, it is the least that it can be.
    """

    idle_cores: float = 0.0
    factor: float = 1.0
    measured: bool = True


@dataclass(frozen=True, slots=True)
class CpuAccount:
    """One segment: short, held back, beyond seconds by machine; vCPU-seconds allotted and CPU seconds used by all."""

    shortage_s: dict[str, float] = field(default_factory=dict)
    held_back_s: dict[str, float] = field(default_factory=dict)
    beyond_s: dict[str, float] = field(default_factory=dict)
    vcpu_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def total_shortage_s(self) -> float:
        """Seconds summed over the machines."""
        return round(sum(self.shortage_s.values()), 1)

    @property
    def total_beyond_s(self) -> float:
        """Seconds of the shortage that no policy could have avoided, summed over the machines."""
        return round(sum(self.beyond_s.values()), 1)


def rooms(layout: LabLayout) -> dict[str, float]:
    """Machine -> cores that its first host has for it beside the first limits of those that must stay there."""
    staying = [vm for vm in layout.vms if vm.service is not None]
    return {
        vm.name: layout.hypervisor(vm.host).cpu_cores
        - sum(one.quota_cores for one in staying if one.host == vm.host and one.name != vm.name)
        for vm in layout.vms
    }


def offered(schedule: Schedule, layout: LabLayout, start_at: float) -> dict[str, list[Work]]:
    """Machine -> its share of the requests, by time; destinations share a service's requests by their first weights."""
    found: dict[str, list[Work]] = {vm.name: [] for vm in layout.vms}
    for request in (one for requests in schedule.requests.values() for one in requests):
        weights = layout.service(request.service).weights
        for vm, weight in weights.items():
            if weight:
                share = weight / sum(weights.values())
                found[vm].append(Work(start_at + request.at_s, share * request_cpu_s(request)))
    return {vm: sorted(works) for vm, works in found.items() if works}


def price(samples: Sequence[Sample], works: Mapping[str, Sequence[Work]]) -> Price:
    """Least squares over all stretches of all machines in which nobody was held back; idling costs at least nothing.

    No request costs less than its nominal work, which is that of a guest at its best speed. Where a machine is held
    back in every busy second, what is left to learn from says nothing about work: then this bound is all that is known.
    """
    rows = _steady(samples)
    points = [point for vm, own in works.items() for point in _free(rows, vm, own)]
    if len(points) < 2 or len({due for due, _ in points}) < 2:
        return Price(measured=False)
    mean_due, mean_used = fmean(due for due, _ in points), fmean(used for _, used in points)
    spread = sum((due - mean_due) ** 2 for due, _ in points)
    factor = max(0.0, sum((due - mean_due) * (used - mean_used) for due, used in points) / spread)
    factor = min(factor, mean_used / mean_due)
    if factor < 1.0:
        return Price(max(0.0, mean_used - mean_due), measured=False)
    return Price(mean_used - factor * mean_due, factor)


def _free(rows: Sequence[Sample], vm: str, works: Sequence[Work]) -> Iterator[tuple[float, float]]:
    """(Nominal cores due, cores used) of stretches of some seconds in which the machine got all that it wanted."""
    free_since = first = 0
    for number, (before, after) in enumerate(pairwise(rows)):
        seconds, grown = after.t - before.t, _grown(before, after, vm)
        if grown is None or grown[1] > HELD_BACK * seconds or not works[0].at <= before.t < works[-1].at:
            # What was held back is worked off later: the seconds after it show more than was due in them.
            free_since = first = number + 1
        elif after.t - rows[first].t >= STRETCH_S:
            used = _grown(rows[first], after, vm)
            rested = free_since == 0 or rows[first].t - rows[free_since].t >= AFTER_S
            if used is not None and rested:
                length = after.t - rows[first].t
                yield _due(works, rows[first].t, after.t) / length, used[0] / length
            first = number + 1


def _due(works: Sequence[Work], since: float, until: float) -> float:
    """Nominal CPU seconds due in [since, until)."""
    first, last = (bisect_left(works, (t,)) for t in (since, until))
    return sum(one.cpu_s for one in works[first:last])


def _grown(before: Sample, after: Sample, vm: str) -> tuple[float, float] | None:
    """CPU and held back seconds between two samples; None when the machine was not at one place all the time."""
    old, new = before.vms.get(vm), after.vms.get(vm)
    if old is None or new is None or old[3] != new[3] or new[0] < old[0]:
        return None
    return new[0] - old[0], max(0.0, new[1] - old[1])


class Span(NamedTuple):
    """A stretch of time, both ends included; Unix seconds."""

    start: float
    end: float


def account(
    samples: Sequence[Sample],
    works: Mapping[str, Sequence[Work]],
    cost: Price,
    span: Span,
    room: Mapping[str, float] = NO_ROOMS,
) -> CpuAccount:
    """Adds up the samples inside `span`; without `room` (see `rooms`) nothing is beyond."""
    short, held, beyond = (dict.fromkeys(works, 0.0) for _ in range(3))
    allotted = used = 0.0
    rows = _steady([one for one in samples if span.start <= one.t <= span.end])
    for number, (before, after) in enumerate(pairwise(rows)):
        seconds, around = after.t - before.t, rows[max(0, number - 1) : number + 3]
        for vm in after.vms:
            allotted += _limit(before, after, vm) * seconds
            used += (_grown(before, after, vm) or (0.0, 0.0))[0]
        for vm, own in works.items():
            need = cost.idle_cores + cost.factor * _due(own, before.t, after.t) / seconds
            lacking = need > min(_limit(before, after, vm), _host_leaves(around, before, after, vm))
            short[vm] += seconds * lacking
            beyond[vm] += seconds * (lacking and need > room.get(vm, float("inf")))
            held[vm] += (_grown(before, after, vm) or (0.0, 0.0))[1]
    rounded = [{vm: round(one, 1) for vm, one in every.items()} for every in (short, held, beyond)]
    return CpuAccount(rounded[0], rounded[1], rounded[2], round(allotted, 1), round(used, 1))


def _limit(before: Sample, after: Sample, vm: str) -> float:
    """Cores allotted to all virtual CPUs, halfway between the samples; never more than the host has, 0 if nowhere."""
    if vm not in after.vms:
        return 0.0
    limits = [one.vms[vm][4] for one in (before, after) if vm in one.vms]
    host = after.hosts.get(after.vms[vm][3])
    return min(sum(limits) / len(limits), host[2] if host else float("inf"))


def _steady(samples: Sequence[Sample]) -> list[Sample]:
    """Without those that follow too closely on the one before: counters are not all read at the same moment."""
    kept: list[Sample] = []
    for one in samples:
        if not kept or one.t - kept[-1].t >= LEAST_STEP_S:
            kept.append(one)
    return kept


def _host_leaves(around: Sequence[Sample], before: Sample, after: Sample, vm: str) -> float:
    """Cores that its host leaves to the machine, over a second more on both sides; at least what it used."""
    if vm not in after.vms:
        return 0.0
    first, last = around[0], around[-1]
    host, used = after.vms[vm][3], _grown(before, after, vm)
    wider, old, new = _grown(first, last, vm), first.hosts.get(host), last.hosts.get(host)
    if used is None or wider is None or old is None or new is None:
        return float("inf")
    others = (new[0] - old[0] - wider[0]) / (last.t - first.t)
    return max(new[2] - others, used[0] / (after.t - before.t))
