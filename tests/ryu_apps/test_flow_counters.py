"""Counters of flow entries: whatever becomes of entries and messages, no byte is lost or told twice."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps.telemetry.counters import UNAVAILABLE, ClockMark, FlowCounters

KEYS = (1, 2, 3)
EVENTS = (
    "send",
    "look",
    "look twice",
    "answer lost",
    "removed",
    "word after answer",
    "answer after word",
    "replaced, word after answer",
    "vanished",
    "cleared",
    "controller restarts",
)
STEPS = st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from(KEYS), st.integers(1, 10_000)), max_size=80)


@dataclass
class Entry:
    """A flow entry; `unseen` is what nobody has read yet."""

    born: float
    bytes: int = 0
    packets: int = 0
    unseen: int = 0


@dataclass
class Switch:
    """A switch with a few entries and the wire to its controller."""

    counters: FlowCounters = field(default_factory=lambda: FlowCounters(100.0))
    now: float = 100.0
    entries: dict[int, Entry] = field(default_factory=dict)
    sent: int = 0
    unknowable: int = 0
    told: int = 0
    told_s: float = 0.0

    def send(self, key: int, size: int) -> None:
        entry = self.entries.setdefault(key, Entry(self.now))
        entry.bytes, entry.packets, entry.unseen = entry.bytes + size, entry.packets + 1, entry.unseen + size
        self.sent += size

    def compose(self) -> list[tuple[int, int, int, float]]:
        for entry in self.entries.values():
            entry.unseen = 0
        return [(key, one.packets, one.bytes, self.now - one.born) for key, one in self.entries.items()]

    def deliver(self, answer: list[tuple[int, int, int, float]]) -> None:
        look = self.counters.look(answer, self.now)
        assert all(packets >= 0 and size >= 0 for _, packets, size in look.grown)
        self.told += sum(size for *_, size in look.grown) + sum(size for *_, size in look.late)
        self.told_s += look.t - look.since

    def remove(self, key: int) -> tuple[int, int, int, float]:
        one = self.entries.pop(key)
        return key, one.packets, one.bytes, self.now - one.born

    def step(self, what: str, key: int, size: int) -> None:
        self.now += 1.0
        if what == "send" or (key not in self.entries and "look" not in what):
            return self.send(key, size)
        match what:
            case "look":
                self.deliver(self.compose())
            case "look twice":
                answer = self.compose()
                self.deliver(answer)
                self.deliver(answer)
            case "removed":
                self.counters.removed(self.remove(key), self.now)
            case _:
                self.trouble(what, key, size)
        return None

    def trouble(self, what: str, key: int, size: int) -> None:
        match what:
            case "word after answer":
                word = self.remove(key)
                self.deliver(self.compose())
                self.counters.removed(word, self.now)
            case "answer after word":
                answer, word = self.compose(), self.remove(key)
                self.counters.removed(word, self.now)
                self.now += 0.01
                self.deliver(answer)
            case "replaced, word after answer":
                word = self.remove(key)
                self.now += 0.5
                self.send(key, size)
                word = (*word[:3], word[3] + 0.5)
                self.deliver(self.compose())
                self.counters.removed(word, self.now)
            case "vanished" | "cleared":
                # What nobody read before it went, nobody can know.
                self.unknowable += self.entries[key].unseen
                self.entries[key].bytes = self.entries[key].packets = self.entries[key].unseen = 0
                if what == "vanished":
                    del self.entries[key]
                else:
                    # Cleared in place and grown past its old value before anybody looks: nobody could tell.
                    self.deliver(self.compose())
            case "controller restarts":
                self.deliver(self.compose())
                self.counters = FlowCounters.load(self.counters.dump())


@settings(max_examples=300)
@given(STEPS)
def test_bytes_are_conserved(steps: list[tuple[str, int, int]]) -> None:
    switch = Switch()
    for step in steps:
        switch.step(*step)
    switch.now += 1.0
    switch.deliver(switch.compose())
    assert switch.told == switch.sent - switch.unknowable
    assert switch.told_s <= switch.now - 100.0 + 1e-6


def test_a_past_nobody_watched_is_unknown_and_so_is_everybodys_silence() -> None:
    counters = FlowCounters(100.0)
    look = counters.look([(1, 10, 1000, 50.0), (2, 1, 80, 0.5)], 101.0)
    assert (look.grown, look.whole) == ([(2, 1, 80)], False)
    look = counters.look([(1, 12, 1300, 51.0), (2, 1, 80, 1.5)], 102.0)
    assert (look.grown, look.whole, look.t - look.since) == ([(1, 2, 300)], True, 1.0)


def test_an_entry_that_answers_left_out_comes_with_its_own_longer_interval() -> None:
    counters = FlowCounters(100.0)
    counters.look([(1, 1, 100, 0.5), (2, 1, 100, 0.5)], 101.0)
    counters.look([(1, 1, 100, 1.5)], 102.0)
    look = counters.look([(1, 2, 200, 2.5), (2, 4, 400, 2.5)], 103.0)
    assert look.grown == [(1, 1, 100)]
    assert look.late == [(101.0, 2, 3, 300)]


def test_counters_wrap_at_64_bits_and_clear_anywhere_else() -> None:
    counters = FlowCounters(100.0)
    counters.look([(1, 5, 2**64 - 100, 50.0), (2, 5, 5000, 50.0)], 101.0)
    look = counters.look([(1, 6, 50, 51.0), (2, 6, 50, 51.0)], 102.0)
    assert sorted(look.grown) == [(1, 1, 150), (2, 6, 50)]


def test_counters_that_a_switch_does_not_have_do_not_grow() -> None:
    counters = FlowCounters(100.0)
    counters.look([(1, 0, UNAVAILABLE, 0.5)], 101.0)
    look = counters.look([(1, 7, UNAVAILABLE, 1.5)], 102.0)
    assert look.grown == [(1, 7, 0)]


def test_a_clock_that_is_set_back_costs_one_interval_only() -> None:
    counters = FlowCounters(1000.0)
    counters.look([(1, 1, 100, 0.5)], 1001.0)
    assert counters.look([(1, 2, 200, 1.5)], 500.0).empty
    look = counters.look([(1, 3, 350, 2.5)], 501.0)
    assert (look.grown, look.t - look.since) == ([(1, 1, 150)], 1.0)


@pytest.mark.parametrize("by", [-500.0, 30.0])
def test_a_clock_that_is_known_to_be_set_costs_nothing_and_counts_nothing_twice(by: float) -> None:
    counters = FlowCounters(1000.0)
    counters.look([(1, 1, 100, 0.5), (2, 4, 400, 0.5), (3, 1, 50, 0.5)], 1001.0)
    counters.removed((3, 2, 75, 1.2), 1001.7)
    counters.shift(by)
    # The second entry is another one by now.
    look = counters.look([(1, 2, 250, 1.5), (2, 5, 500, 0.25)], 1002.0 + by)
    assert sorted(look.grown) == [(1, 1, 150), (2, 5, 500), (3, 1, 25)]
    assert (look.t, look.t - look.since, look.whole) == (1002.0 + by, 1.0, True)


@pytest.mark.parametrize(("boot", "twice"), [(b"1" * 16, 0), (b"2" * 16, 250)])
def test_a_clock_that_was_set_between_two_controllers_counts_nothing_twice(boot: bytes, twice: int) -> None:
    before = FlowCounters(1000.0)
    before.look([(1, 1, 100, 0.5), (2, 4, 400, 0.5)], 1001.0)
    after = FlowCounters.load(before.dump(ClockMark(b"1" * 16, 5.0)), ClockMark(boot, 35.0))
    look = after.look([(1, 2, 250, 1.5), (2, 4, 400, 1.5)], 1032.0)
    # Of another machine nobody knows whether its clock was set: there what is young by this one's counts as new.
    assert look.grown[0][2] == (twice or 150)
    assert look.t - look.since == (31.0 if twice else 1.0)


def test_entries_that_are_gone_for_long_are_forgotten() -> None:
    counters = FlowCounters(0.0)
    counters.look([(key, 1, 1, 0.1) for key in range(100)], 1.0)
    for second in range(2, 300):
        counters.look([], float(second))
    assert len(counters) == 0


@pytest.mark.parametrize("blob", [b"", b"forepath counters 1\n", b"forepath counters 3\n" + bytes(16), b"\xff" * 100])
def test_what_was_kept_is_read_only_when_it_is_whole(blob: bytes) -> None:
    with pytest.raises(ValueError):
        FlowCounters.load(blob)


def test_times_between_distinct_values_show_how_often_a_switch_renews_its_counters() -> None:
    counters, gaps = FlowCounters(0.0), list[float]()
    for second in range(1, 31):
        renewed = second // 5 * 5
        gaps += counters.look([(1, renewed, renewed * 100, float(second))], float(second)).gaps
    assert set(gaps) == {5.0}
