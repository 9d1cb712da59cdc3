"""A burst of packets is settled a few times, not once for each, and nothing of it is lost."""

import time

import pytest

from ryu_apps.effects import Effect, PacketOut
from ryu_apps.pacing import Pacing


def out(number: int) -> PacketOut:
    return PacketOut(number, (1,), b"")


def test_the_first_packet_is_settled_at_once_and_a_burst_together() -> None:
    settled: list[list[Effect]] = []

    def settle(effects: list[Effect], _now: float) -> None:
        time.sleep(0.01)
        settled.append(effects)

    pacing = Pacing(settle)
    assert pacing.offer([out(0)], 100.0) is None
    assert settled == [[out(0)]]
    waits = [pacing.offer([out(number)], 100.005) for number in range(1, 50)]
    assert len(settled) == 1
    assert waits[0] is not None
    assert 0.0 < waits[0] < 0.5
    assert waits[1:] == [None] * 48
    pacing.flush(100.005 + waits[0])
    assert settled[1] == [out(number) for number in range(1, 50)]
    assert pacing.offer([], 200.0) is None
    assert len(settled) == 3


def test_trouble_while_settling_does_not_stop_what_follows() -> None:
    settled: list[int] = []

    def settle(effects: list[Effect], _now: float) -> None:
        settled.append(len(effects))
        if len(settled) == 1:
            raise ValueError("trouble")

    pacing = Pacing(settle)
    with pytest.raises(ValueError, match="trouble"):
        pacing.offer([out(0)], 1.0)
    pacing.offer([out(1)], 2.0)
    assert settled == [1, 1]


def test_what_waits_is_bounded() -> None:
    settled: list[int] = []
    pacing = Pacing(lambda effects, _now: settled.append(len(effects)))
    pacing.offer([], 1.0)
    pacing._next = 2.0
    wait = pacing.offer([out(number) for number in range(20_000)], 1.0)
    assert wait == 1.0
    pacing.flush(2.0)
    assert settled == [0, 10_000]
