"""Learns slowly changing facts from the recorded past: bytes of a connection, CPU and memory of communications."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cpdb import BytesPerS, Pair, Reservation, VirtualIp
from orchestrator.observe.window import Bools, Floats, Ints, LoadRows, Traffic, Windows, sum_by
from orchestrator.pair_table import ConnectionSize
from orchestrator.relations import CpuRelation, MemoryRelation, Samples, fit_all, fit_memory

BUCKET_S = 2.0
SIZE_BUCKET_S = 5.0
SIZE_QUANTILE = 0.75
# Of whom connections of the upper quartile's size would carry so much of all bytes, and of the bytes of single buckets
# with those opened in it and before: that pair sends what its connections ask for, and nothing else.
FOLLOWS_SHARE = 0.8
# A link is free while it carries less than this share of what it can, and drops nothing.
FREE_SHARE = 0.85
# So many connections, in so many buckets, must have come over a free way for it to speak for all.
ENOUGH_CONNECTIONS, ENOUGH_BUCKETS = 30, 4
# And among them must be times about as busy as the busiest: a surge may have sizes of its own.
AS_BUSY_SHARE = 0.75
# A bucket with this share of the connections of the busiest is busy.
BUSY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Past:
    """A stretch of measured rows, with what the numbers in them stand for; `ways` are the links that pairs take.

    `shares`: virtual IP -> machine -> its share of connections, where they are placed one by one and no row names a
    machine. Machines that did not run are left out. `reservations`: those that were held, each version by itself.
    """

    traffic: Traffic
    machines: LoadRows
    links: LoadRows
    vms: Mapping[str, int]
    link_numbers: Mapping[tuple[str, str], int]
    ways: Mapping[Pair, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    capacities: Mapping[tuple[str, str], BytesPerS] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reservations: Sequence[Reservation] = ()

    @classmethod
    def of(cls, lately: Windows, since: float, until: float) -> "Past":
        """What ended in (since, until]."""
        rows, links = lately.machines.between(since, until), lately.links
        traffic = lately.traffic.between(since, until)
        running = rows["running"]
        # Rows of many machines are hundreds of megabytes, and mostly all of them run.
        return cls(
            traffic,
            rows if running.all() else rows[running],
            links.between(since, until),
            lately.machines.names,
            links.names,
        )


@dataclass(frozen=True, slots=True)
class Learnt:
    """What connections carry by pair, CPU and memory relations by machine; a missing entry is 'no opinion'.

    `lent` is what machines without relations of their own were given of others', as long as services stay.
    """

    sizes: Mapping[Pair, ConnectionSize] = field(default_factory=dict)
    relations: Mapping[str, tuple[CpuRelation, ...]] = field(default_factory=dict)
    memory: Mapping[str, tuple[MemoryRelation, ...]] = field(default_factory=dict)
    lent: dict[str, tuple[Sequence[VirtualIp], Any]] = field(default_factory=dict, compare=False)


def learn(past: Past) -> Learnt:
    """Everything at once."""
    samples = _samples(past)
    names = [name for name, number in past.vms.items() if samples.known[number].any()]
    numbers = np.array([past.vms[name] for name in names], dtype=np.int64)
    cpu: list[tuple[CpuRelation, ...]] = [()] * len(names)
    memory: list[tuple[MemoryRelation, ...]] = [()] * len(names)
    for feature, rates in (("connections_per_s", samples.connections), ("bytes_per_s", samples.bytes)):
        x, known = rates[numbers] / BUCKET_S, samples.known[numbers]
        for n, one in enumerate(fit_all(feature, Samples(x, samples.used[numbers], samples.limit[numbers], known))):
            cpu[n] += () if one is None else (one,)
        filled = Samples(x, samples.memory_used[numbers], samples.memory_limit[numbers], known)
        for n, same in enumerate(fit_memory(feature, filled)):
            memory[n] += () if same is None else (same,)
    return Learnt(dict(_sizes(past)), dict(zip(names, cpu, strict=True)), dict(zip(names, memory, strict=True)))


class _Buckets(NamedTuple):
    """Numbered stretches of time of one length, from the first of anything that was measured on."""

    seconds: float
    first: int
    size: int

    @classmethod
    def of(cls, seconds: float, *times: Floats) -> "_Buckets":
        ends = [int(t // seconds) for one in times if len(one) for t in (one[0], one[-1])]
        return cls(seconds, min(ends, default=0), max(ends, default=0) - min(ends, default=0) + 1)

    def place(self, t: Floats) -> Ints:
        """The bucket that each moment lies in."""
        return (t // self.seconds).astype(np.int64) - self.first

    def sums(self, subject: Ints, bucket: Ints, weights: Floats | None, subjects: int) -> Floats:
        """Subjects x buckets: sums of the weights, without any how many there are."""
        return sum_by(subject * self.size + bucket, weights, subjects * self.size).reshape(subjects, self.size)


def _sizes(past: Past) -> Iterator[tuple[Pair, ConnectionSize]]:
    """Size of a connection at times when many come: the upper quartile over connections, not over time.

    Surges may have sizes of their own, and they are what will be asked about. Quiet stretches that drain a queue hold
    few connections, so their odd ratios weigh little. Where bytes are counted before a congested link, what is sent
    again counts twice: buckets that were not crowded speak alone when they are enough, and about as busy. Else what is
    larger counts: who starves before a full link does not send what its connections would carry. Of whom sends with
    its connections alone, no more than they carried together: single buckets then hold what earlier ones lacked.
    """
    traffic, pairs = past.traffic, past.traffic.names.pairs
    buckets = _Buckets.of(SIZE_BUCKET_S, traffic.t)
    place = buckets.place(traffic.t)[traffic.batch]
    sent = buckets.sums(traffic.pair, place, traffic.bytes, len(pairs))
    count = buckets.sums(traffic.pair, place, traffic.connections, len(pairs))
    size, alone = _upper(np.divide(sent, count, out=np.zeros_like(sent), where=count > 0), count), np.zeros(len(pairs))
    follows = _follow(sent, count, size)
    crowded = _crowded(past, buckets)
    touched = [n for n, pair in enumerate(pairs) if crowded and size[n] > 0 and _on_way(past, crowded, pair).any()]
    if touched:
        kept = np.array([_kept(past, buckets, pairs[n], sent[n]) for n in touched])
        held = np.array([_on_way(past, crowded, pairs[n]) for n in touched]) & ~kept
        # What was lost before a bucket in which nothing was is sent again in it.
        held |= kept & (_shifted(held) > 0)
        own, free = count[touched], np.where(held, 0.0, count[touched])
        ratio = np.divide(sent[touched], own, out=np.zeros_like(own), where=own > 0)
        enough = ((free > 0).sum(axis=1) >= ENOUGH_BUCKETS) & (free.sum(axis=1) >= ENOUGH_CONNECTIONS)
        speaks = enough & (_upper(free, free) >= AS_BUSY_SHARE * _upper(own, own))
        alone[touched] = _upper(ratio, free)
        size[touched] = np.where(speaks, alone[touched], np.maximum(size[touched], alone[touched]))
    size = np.where(follows, np.minimum(size, np.maximum(_whole(sent, count), alone)), size)
    known = np.where(follows, _upper(count, count) / SIZE_BUCKET_S / AS_BUSY_SHARE, 0.0)
    for n in np.flatnonzero(size > 0):
        yield pairs[n], ConnectionSize(float(size[n]), float(known[n]))


def _follow(sent: Floats, count: Floats, size: Floats) -> Bools:
    """Pairs whose bytes come with their connections: none that last for long, none that differ much in size."""
    carried = np.minimum(sent, size[:, None] * (count + _shifted(count))).sum(axis=1)
    found: Bools = np.minimum(carried, size * count.sum(axis=1)) >= FOLLOWS_SHARE * sent.sum(axis=1)
    return found


def _whole(sent: Floats, count: Floats) -> Floats:
    """What connections of busy times carried in all, what was made up for just afterwards included."""
    busy = count >= BUSY_SHARE * _upper(count, count)[:, None]
    busy &= count > 0
    opened = np.where(busy, count, 0.0).sum(axis=1)
    carried = np.where(busy | (_shifted(busy) > 0), sent, 0.0).sum(axis=1)
    found: Floats = np.divide(carried, opened, out=np.full_like(opened, np.inf), where=opened > 0)
    return found


def _shifted(values: Floats | Bools) -> Floats:
    """By one bucket: what was in the one before."""
    return np.pad(values.astype(np.float64), ((0, 0), (1, 0)))[:, :-1]


def _upper(values: Floats, weights: Floats) -> Floats:
    """The upper quartile of each row's values, by weight; 0 where nothing has weight."""
    order = np.argsort(np.where(weights > 0, values, np.inf), axis=1, kind="stable")
    passed = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    place = (passed >= SIZE_QUANTILE * passed[:, -1:]).argmax(axis=1)[:, None]
    found = np.take_along_axis(values, np.take_along_axis(order, place, axis=1), axis=1)[:, 0]
    return np.where(passed[:, -1] > 0, found, 0.0)


def _crowded(past: Past, buckets: _Buckets) -> dict[int, Bools]:
    """Buckets in which a link was full or dropped packets, and the next one: what was lost is sent again later."""
    rows, most = past.links, np.full(len(past.link_numbers), np.inf)
    for key, capacity in past.capacities.items():
        if key in past.link_numbers:
            most[past.link_numbers[key]] = capacity
    bad = rows[(rows["bytes"] >= FREE_SHARE * most[rows["link"]] * rows["interval_s"]) | (rows["drops"] > 0)]
    found: dict[int, Bools] = {}
    # All of (t - interval, t] was crowded.
    first, last = buckets.place(bad["t"] - bad["interval_s"]), buckets.place(bad["t"]) + 2
    for link, begin, end in zip(bad["link"].tolist(), first.tolist(), last.tolist(), strict=True):
        own = found.setdefault(link, np.zeros(buckets.size, dtype=np.bool_))
        own[max(0, begin) : max(0, end)] = True
    return found


def _on_way(past: Past, crowded: Mapping[int, Bools], pair: Pair) -> Bools:
    """Buckets in which a pair's way was crowded anywhere."""
    links = (past.link_numbers.get(key, -1) for key in past.ways.get(pair, ()))
    found = [crowded[one] for one in links if one in crowded]
    return np.logical_or.reduce(found) if found else np.zeros(1, dtype=np.bool_)


def _kept(past: Past, buckets: _Buckets, pair: Pair, sent: Floats) -> Bools:
    """Buckets all through which more was reserved for a pair on a link than it sent: for it the way was free."""
    begin = (np.arange(buckets.size) + buckets.first) * buckets.seconds
    reserved: dict[str, Floats] = {}
    for one in past.reservations:
        if one.pair == pair:
            held_s = np.minimum(begin + buckets.seconds, one.expires_at) - np.maximum(begin, one.created_at)
            reserved[one.key] = reserved.get(one.key, 0.0) + np.maximum(0.0, held_s) * one.bytes_per_s
    most: Floats = np.max([*reserved.values(), np.zeros(buckets.size)], axis=0)
    return most > sent


@dataclass(frozen=True, slots=True, eq=False)
class _MachineSamples:
    """Machines x buckets: what they were asked for, what they used and what they might, where both are `known`."""

    connections: Floats
    bytes: Floats
    used: Floats
    limit: Floats
    memory_used: Floats
    memory_limit: Floats
    known: Bools


def _samples(past: Past) -> _MachineSamples:
    traffic, rows, count = past.traffic, past.machines, len(past.vms)
    buckets = _Buckets.of(BUCKET_S, traffic.t, rows["t"])
    vm, place = rows["vm"].astype(np.int64), buckets.place(rows["t"])
    seen = buckets.sums(vm, place, None, count)
    used = buckets.sums(vm, place, rows["used"], count)
    cells = vm * buckets.size + place
    limit, memory_limit = (_extreme(np.minimum, cells, rows[name], seen.shape) for name in ("limit", "memory_limit"))
    memory_used = _extreme(np.maximum, cells, rows["memory_used"], seen.shape)
    connections, sent, told = _called(past, buckets)
    # What lies in the newest bucket is still incomplete: load without the traffic that caused it would teach nonsense.
    until = min((int(buckets.place(t[-1:])[0]) for t in (traffic.t, rows["t"]) if len(t)), default=0)
    known = told & (seen > 0) & (np.arange(buckets.size) < until)
    return _MachineSamples(connections, sent, used / np.maximum(seen, 1), limit, memory_used, memory_limit, known)


def _extreme(which: np.ufunc, cells: Ints, values: Floats, shape: tuple[int, ...]) -> Floats:
    found = np.full(shape, np.inf if which is np.minimum else -np.inf)
    which.at(found.reshape(-1), cells, values.astype(np.float64))
    return found


def _called(past: Past, buckets: _Buckets) -> tuple[Floats, Floats, Bools]:
    """Connections and bytes of each machine by bucket, and where it is known how many: 0 is known as well.

    An observer that tells all says with every batch that whom it has named before was not called.
    """
    traffic, names, count = past.traffic, past.traffic.names, len(past.vms)
    to_vm = np.array([past.vms.get(name, -1) for name in names.destinations] + [-1], dtype=np.int64)
    spread = sorted(past.shares)
    to_spread = {address: count + n for n, address in enumerate(spread)}
    of_pair = np.array([to_spread.get(one.virtual_ip, -1) for one in names.pairs], dtype=np.int64)
    subject = np.where(traffic.destination >= 0, to_vm[traffic.destination], of_pair[traffic.pair])
    named = subject >= 0
    subject, batch = subject[named], traffic.batch[named]
    place, subjects = buckets.place(traffic.t)[batch], count + len(spread)
    sums = [buckets.sums(subject, place, column[named], subjects) for column in (traffic.connections, traffic.bytes)]
    told = (buckets.sums(subject, place, None, subjects) > 0) | _told(traffic, buckets, subject, batch, subjects)
    for address, row in to_spread.items():
        for vm, share in past.shares[address].items():
            if (number := past.vms.get(vm)) is not None:
                for column in sums:
                    column[number] += share * column[row]
                told[number] |= told[row]
    return sums[0][:count], sums[1][:count], told[:count]


def _told(traffic: Traffic, buckets: _Buckets, subject: Ints, batch: Ints, subjects: int) -> Bools:
    """Subjects x buckets: whether an observer that had named the subject before told all in it."""
    place, observers = buckets.place(traffic.t), len(traffic.names.observers)
    told = np.zeros((observers, buckets.size), dtype=np.bool_)
    told[traffic.observer[traffic.complete], place[traffic.complete]] = True
    # Who was named by whom, and in which bucket first: few observers name the same.
    code = subject * observers + traffic.observer[batch]
    first = np.full(subjects * observers, buckets.size)
    np.minimum.at(first, code, place[batch])
    named = np.flatnonzero(first < buckets.size)
    found = np.zeros((subjects, buckets.size), dtype=np.bool_)
    for own in np.array_split(named, max(1, len(named) // 10_000)):
        says = told[own % observers] & (np.arange(buckets.size) >= first[own][:, None])
        number, starts = np.unique(own // observers, return_index=True)
        found[number] |= np.logical_or.reduceat(says, starts, axis=0) if len(own) else False
    return found
