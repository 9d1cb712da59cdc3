"""Counters: whatever happens to the entries and the answers, bytes are neither lost nor counted twice."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ryu_apps.telemetry.counters import CounterDelta, CounterReading, PortCounters

STEPS = st.lists(
    st.tuples(st.sampled_from(("send", "look", "look again", "restart")), st.integers(0, 10_000)), max_size=60
)


@dataclass
class Entry:
    """A flow entry that counts; `seen` is what has been looked at."""

    born: float
    value: int = 0


@given(STEPS)
def test_bytes_are_conserved(steps: list[tuple[str, int]]) -> None:
    counters, now, entry = PortCounters(), 100.0, Entry(100.0)
    total = unseen = seen = 0
    restarted = False
    told: list[CounterDelta] = []
    for what, size in steps:
        now += 1.0
        if what == "send":
            entry.value += size
            unseen += size
        elif what == "restart":
            # What an entry counted after the last look dies with it; nobody can know it.
            entry, unseen, restarted = Entry(now), 0, True
        else:
            reading = CounterReading(now, now - entry.born, (entry.value,))
            readings = [reading, reading] if what == "look again" else [reading]
            told += [grown for one in readings if (grown := counters.grow("e", one, 100.0)) is not None]
            # What is new and shows no less than before cannot be told from what counted on: that much is not known.
            total += entry.value - seen if restarted and entry.value >= seen else unseen
            unseen, seen, restarted = 0, entry.value, False
    assert sum(growth.values[0] for growth in told) == total
    assert all(growth.values[0] >= 0 and growth.interval_s > 0 for growth in told)
    assert sum(growth.interval_s for growth in told) <= now - 100.0 + 1e-6


def test_a_past_nobody_watched_is_unknown_not_zero_and_not_now() -> None:
    counters = PortCounters()
    assert counters.grow("e", CounterReading(50.0, 30.0, (1000,)), watched_since=49.0) is None
    assert counters.grow("e", CounterReading(51.0, 31.0, (1500,))) == CounterDelta(51.0, 1.0, (500,))


def test_a_gap_makes_the_interval_longer() -> None:
    counters = PortCounters()
    counters.grow("e", CounterReading(10.0, 5.0, (0,)), 0.0)
    assert counters.grow("e", CounterReading(17.0, 12.0, (70,))) == CounterDelta(17.0, 7.0, (70,))


def test_a_port_that_says_to_be_new_and_counts_on_is_the_old_one() -> None:
    # Measured on Open vSwitch 3.1: after a restart of its daemon the age of a port begins anew, its counters do not.
    counters = PortCounters()
    counters.grow("e", CounterReading(10.0, 500.0, (1_000_000,)), 0.0)
    assert counters.grow("e", CounterReading(15.0, 2.0, (1_000_400,))) == CounterDelta(15.0, 5.0, (400,))
    assert counters.grow("e", CounterReading(20.0, 2.0, (300,))) == CounterDelta(20.0, 5.0, (300,))


def test_forgotten_keys_start_anew() -> None:
    counters = PortCounters()
    counters.grow("e", CounterReading(10.0, 5.0, (100,)), 0.0)
    counters.forget(["e"])
    assert "e" not in counters
