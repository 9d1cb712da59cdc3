"""Turns counters that only grow into what happened since last time; no byte is lost or counted twice."""

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from operator import ge, sub
from typing import NamedTuple, TypeVar, cast

Seconds = float
Entry = tuple[int, int, int, Seconds]
Counts = TypeVar("Counts", bound=tuple[int, ...])

# A switch and this machine measure time apart: an entry this much older than the last look may still be new.
BIRTH_SLACK_S = 0.25
# Births of one entry, worked out from two messages, differ by how long each was on its way and waited here.
JITTER_S = 0.05
DELAY_S = 0.4
# OpenFlow 1.3.5, 5.8: a counter that a switch does not have reads as all ones.
UNAVAILABLE = 2**64 - 1
_RANGE = 2**64
# Only counters beyond this may have wrapped; below it, less than before means that somebody cleared them.
_WRAPS_ABOVE = 2**63
TIME_WENT_BACK_S = 1.0
_FORGET_S = 120.0
# Without and with the clock by which its times are
_MAGIC, _MAGIC_CLOCK = b"forepath counters 1\n", b"forepath counters 2\n"
# Smaller steps of the clock are a daemon's that keeps it right: nothing notices them.
CLOCK_STEP_S = 0.5
BOOT_BYTES = 16
# Positions in an entry's state
_PACKETS, _BYTES, _SEEN, _BORN, _CHANGED = range(5)


class ClockMark(NamedTuple):
    """How far the time of day is ahead of the clock that nobody can set, since a machine's start, which `boot` names.

    Two marks of one start tell by how much the time of day was set between them; of others nothing is known.
    """

    boot: bytes
    ahead_s: Seconds

    def set_since(self, earlier: "ClockMark") -> Seconds:
        """By how much the time of day was set since an earlier mark."""
        by = self.ahead_s - earlier.ahead_s
        return by if self.boot == earlier.boot and abs(by) > CLOCK_STEP_S else 0.0


NO_CLOCK = ClockMark(bytes(BOOT_BYTES), 0.0)


class EntryCounts(NamedTuple):
    """Packets and bytes of one entry."""

    packets: int
    bytes: int


@dataclass(slots=True)
class PollDelta:
    """What grew in (since, t]: (key, packets, bytes) for each entry that did.

    `late` are entries that earlier answers left out: each with the time of its last reading. `whole` is false when the
    past of an entry is unknown; then silence of whoever is not listed is unknown, too. `gaps` are the times between
    distinct values of entries that changed.
    """

    t: Seconds
    since: Seconds
    grown: list[tuple[int, int, int]] = field(default_factory=list)
    late: list[tuple[Seconds, int, int, int]] = field(default_factory=list)
    gaps: list[Seconds] = field(default_factory=list)
    whole: bool = True
    # Entries with less than before that nobody can have cleared
    fallen: int = 0

    @property
    def empty(self) -> bool:
        """Whether this look tells nothing at all, not even silence."""
        return self.t <= self.since


class FlowCounters:
    """Counters of one switch's entries by key (64 bits, one for each entry).

    * A key seen for the first time counts fully if it was born after the last look; else its past is unknown and the
      first reading is only the base: missing is not zero.
    * An answer that is not newer than the last is a duplicate: nothing.
    * PortCounters that went back, or a birth after the last reading, mean a new entry: all of the new value is growth.
    * An entry's final counters (flow removed) are folded into the next look once, whichever message comes first.
    * A gap simply makes the interval longer.
    """

    def __init__(self, watched_since: Seconds) -> None:
        self.looked = self._before = watched_since
        self._last: dict[int, list[float]] = {}
        # Removed entries: key -> (born, removed at)
        self._ended: dict[int, tuple[Seconds, Seconds]] = {}
        # Last reading (packets, bytes, at) of an entry that was replaced before its final word came
        self._former: dict[int, tuple[int, int, Seconds]] = {}
        self._pending: list[tuple[int, int, int]] = []
        self._swept = watched_since

    def __len__(self) -> int:
        return len(self._last)

    def look(self, entries: Iterable[Entry], now: Seconds) -> PollDelta:
        """Takes a complete answer as (key, packets, bytes, age in seconds) for each entry."""
        if now <= self.looked:
            return self._time_went_back(entries, now)
        look, last, looked = PollDelta(now, self.looked), self._last, self.looked
        for key, packets, size, age_s in entries:
            known = last.get(key)
            if known is None:
                self._first(look, (key, packets, size, age_s))
                continue
            seen = known[_SEEN]
            if seen == now:
                continue
            if size == known[_BYTES] and packets == known[_PACKETS] and now - age_s <= seen + BIRTH_SLACK_S:
                known[_SEEN] = now
                continue
            if _trembles(known, EntryCounts(packets, size), now - age_s):
                # Nothing is known to have happened until it is above what it was.
                look.fallen, known[_SEEN] = look.fallen + 1, now
                continue
            growth = self._changed(key, known, packets, size, now - age_s)
            known[_SEEN] = now
            if known[_CHANGED]:
                look.gaps.append(now - known[_CHANGED])
            known[_CHANGED] = now
            if seen < looked:
                look.late.append((seen, key, *growth))
            else:
                look.grown.append((key, *growth))
        look.grown += self._pending
        self._pending = []
        self._before, self.looked = looked, now
        self._sweep(now)
        return look

    def _first(self, look: PollDelta, entry: Entry) -> None:
        key, packets, size, age_s = entry
        born = look.t - age_s
        ended = self._ended.get(key)
        if ended is not None and born < (ended[0] + ended[1]) / 2:
            # Read before it was removed, told after: its final counters are in already.
            return
        packets, size = (0 if value == UNAVAILABLE else value for value in (packets, size))
        self._last[key] = [packets, size, look.t, born, 0.0]
        if born < self.looked - BIRTH_SLACK_S:
            look.whole = False
        elif packets or size:
            look.grown.append((key, packets, size))

    def _changed(self, key: int, known: list[float], packets: int, size: int, born: Seconds) -> tuple[int, int]:
        seen = known[_SEEN]
        packets = int(known[_PACKETS]) if packets == UNAVAILABLE else packets
        size = int(known[_BYTES]) if size == UNAVAILABLE else size
        old = int(known[_PACKETS]), int(known[_BYTES])
        if born > seen + BIRTH_SLACK_S:
            # Born after the last reading: the old counters ended with the old entry, however small the new ones are.
            self._former[key] = (*old, seen)
            known[_BORN] = born
            growth = packets, size
        else:
            growth = grown((packets, size), old)
        known[_PACKETS], known[_BYTES] = packets, size
        return growth

    def removed(self, entry: Entry, now: Seconds) -> None:
        """An entry's final counters; they become part of the next look."""
        key, packets, size, age_s = entry
        final, born, known = EntryCounts(packets, size), now - age_s, self._last.get(key)
        if known is None:
            ended = self._ended.get(key)
            if ended is None or born >= (ended[0] + ended[1]) / 2:
                self._pend_unread(key, final, born)
        elif _earlier(known, final, born):
            # The word on an entry whose successor has been read already.
            *former, read = self._former.pop(key, (0, 0, float("-inf")))
            if born > read + BIRTH_SLACK_S:
                self._pend_unread(key, final, born)
            else:
                self._pend(key, final, EntryCounts(former[0], former[1]))
            return
        elif born > known[_SEEN] + BIRTH_SLACK_S:
            self._pend(key, final, EntryCounts(0, 0))
        else:
            self._pend(key, final, EntryCounts(int(known[_PACKETS]), int(known[_BYTES])))
        self._last.pop(key, None)
        self._ended[key] = (born, now)

    def _pend_unread(self, key: int, final: EntryCounts, born: Seconds) -> None:
        # Never in any answer. It may have been gone from the last one already, and its word came after that.
        if born >= self._before - BIRTH_SLACK_S:
            self._pend(key, final, EntryCounts(0, 0))

    def _pend(self, key: int, final: EntryCounts, old: EntryCounts) -> None:
        packets, size = (old[n] if value == UNAVAILABLE else value for n, value in enumerate(final))
        growth = grown((packets, size), (old.packets, old.bytes))
        if any(growth):
            self._pending.append((key, *growth))

    def _time_went_back(self, entries: Iterable[Entry], now: Seconds) -> PollDelta:
        if now < self.looked - TIME_WENT_BACK_S:
            # The clock was set back: nobody can say how long the interval was, so this reading is only a base.
            self._last = {
                key: [packets, size, now, now - age_s, 0.0]
                for key, packets, size, age_s in entries
                if UNAVAILABLE not in (packets, size)
            }
            self._ended, self._former, self._pending = {}, {}, []
            self.looked = self._before = self._swept = now
        return PollDelta(now, now, whole=False)

    def shift(self, by: Seconds) -> None:
        """The clock was set: all that was before was so much later by it."""
        self.looked, self._before, self._swept = self.looked + by, self._before + by, self._swept + by
        for known in self._last.values():
            for place in (_SEEN, _BORN, _CHANGED):
                known[place] += by if known[place] else 0.0
        self._ended = {key: (born + by, at + by) for key, (born, at) in self._ended.items()}
        self._former = {key: (packets, size, at + by) for key, (packets, size, at) in self._former.items()}

    def _sweep(self, now: Seconds) -> None:
        if now - self._swept < _FORGET_S / 2:
            return
        self._swept = now
        self._last = {key: known for key, known in self._last.items() if now - known[_SEEN] < _FORGET_S}
        self._ended = {key: ended for key, ended in self._ended.items() if now - ended[1] < _FORGET_S}
        self._former = {key: old for key, old in self._former.items() if key in self._last}

    # ---- what outlives the process

    def dump(self, clock: ClockMark = NO_CLOCK) -> bytes:
        """Everything needed to go on after a restart, as bytes; `clock` is that of its times."""
        last = self._last.values()
        whole = array("Q", self._last)
        for column in (_PACKETS, _BYTES):
            whole.extend(int(known[column]) for known in last)
        seen, born = (known[_SEEN] for known in last), (known[_BORN] for known in last)
        times = array("d", (clock.ahead_s, self.looked, *seen, *born))
        return _MAGIC_CLOCK + clock.boot + len(last).to_bytes(8, "little") + whole.tobytes() + times.tobytes()

    @classmethod
    def load(cls, blob: bytes, clock: ClockMark = NO_CLOCK) -> "FlowCounters":
        """The inverse of `dump`, by the clock as it is now; raises ValueError for anything else."""
        marked = blob.startswith(_MAGIC_CLOCK)
        begin = len(_MAGIC) + BOOT_BYTES * marked
        boot, count, body = (
            blob[len(_MAGIC) : begin],
            int.from_bytes(blob[begin : begin + 8], "little"),
            blob[begin + 8 :],
        )
        if not blob.startswith((_MAGIC, _MAGIC_CLOCK)) or len(body) != 8 * (5 * count + 1 + marked):
            raise ValueError("no counters of this version, or cut short")
        whole, times = array("Q", body[: 24 * count]), array("d", body[24 * count :])
        ahead_s = times.pop(0) if marked else 0.0
        self = cls(times[0])
        columns = (whole[count : 2 * count], whole[2 * count :], times[1 : count + 1], times[count + 1 :])
        self._last = {key: [*rest, 0.0] for key, *rest in zip(whole[:count], *columns, strict=True)}
        self.shift(clock.set_since(ClockMark(boot, ahead_s)))
        return self


def _trembles(known: list[float], counts: EntryCounts, born: Seconds) -> bool:
    """Whether an entry shows a little less than before: cleared counters begin at 0, and new entries are young."""
    if born > known[_SEEN] + BIRTH_SLACK_S:
        return False
    return any(old / 2 < new < old < _WRAPS_ABOVE for new, old in zip(counts, known, strict=False))


def _earlier(known: list[float], final: EntryCounts, born: Seconds) -> bool:
    """Whether final counters are those of an entry before the one that is known."""
    fell = final.packets < known[_PACKETS] or final.bytes < known[_BYTES]
    return born < known[_BORN] - (JITTER_S if fell else DELAY_S)


def grown(new: Counts, old: Counts) -> Counts:
    """Growth of counters of one entry: past the end of 64 bits they wrap, else less than before means cleared."""
    if all(map(ge, new, old)):
        return cast(Counts, tuple(map(sub, new, old)))
    if all(now >= before or before >= _WRAPS_ABOVE for now, before in zip(new, old, strict=True)):
        return cast(Counts, tuple((now - before) % _RANGE for now, before in zip(new, old, strict=True)))
    return new


@dataclass(frozen=True, slots=True)
class PortSample:
    """One port's counters."""

    dpid: int
    port: int
    t: Seconds
    age_s: Seconds
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    rx_packets: int
    rx_bytes: int
    rx_dropped: int


@dataclass(frozen=True, slots=True)
class CounterReading:
    """Counters of one thing at `t`; the thing is `age_s` old."""

    t: Seconds
    age_s: Seconds
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CounterDelta:
    """What was added in (t - interval_s, t]."""

    t: Seconds
    interval_s: Seconds
    values: tuple[int, ...]


class PortCounters:
    """Remembers the last reading of each key and answers with the growth since.

    * A key seen for the first time counts fully if it was born after the key's `watched_since`; else its past is
      unknown and the first reading is only the base: missing is not zero.
    * A reading that is not newer than the last is a duplicate: nothing.
    * PortCounters that went back mean a new start: all of the new value is growth. Past the end of 64 bits a counter
      wraps. An age that went back alone does not: the kernel goes on counting while a switch restarts. A counter that
      the switch does not have (all ones) does not grow.
    * A gap simply makes the interval longer.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, CounterReading] = {}

    def grow(self, key: Hashable, reading: CounterReading, watched_since: Seconds | None = None) -> CounterDelta | None:
        """Growth since the last reading of `key`; None when there is nothing sound to say."""
        last = self._last.get(key)
        reading = replace(reading, values=_available(reading.values, last))
        if last is not None and reading.t <= last.t:
            if reading.t < last.t - TIME_WENT_BACK_S:
                # The clock was set back: this is only a base.
                self._last[key] = reading
            return None
        self._last[key] = reading
        if last is None:
            return _first(reading, watched_since)
        # A port that says to be new and counts on from where it was is the old one: so Open vSwitch after a restart.
        return CounterDelta(reading.t, reading.t - last.t, grown(reading.values, last.values))

    def shift(self, by: Seconds) -> None:
        """The clock was set: all that was before was so much later by it."""
        self._last = {key: replace(reading, t=reading.t + by) for key, reading in self._last.items()}

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Keys that are gone for good."""
        for key in keys:
            self._last.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._last


def _first(reading: CounterReading, watched_since: Seconds | None) -> CounterDelta | None:
    if watched_since is None or reading.t - reading.age_s < watched_since - BIRTH_SLACK_S:
        return None
    return CounterDelta(reading.t, max(reading.t - watched_since, 1e-3), reading.values)


def _available(values: tuple[int, ...], last: CounterReading | None) -> tuple[int, ...]:
    if UNAVAILABLE not in values:
        return values
    before = last.values if last else (0,) * len(values)
    return tuple(old if value == UNAVAILABLE else value for value, old in zip(values, before, strict=True))
