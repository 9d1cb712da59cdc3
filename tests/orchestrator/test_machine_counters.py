"""Cumulative counters become what a machine used between two looks; nothing is made up where there is none."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.act.libvirt.measuring import MachineCounters

FIRST: dict[str, Any] = {
    "cpu.time": 10**9,
    "net.count": 2,
    "net.0.rx.bytes": 100,
    "net.0.tx.bytes": 10,
    "net.1.rx.bytes": 5,
}
LATER: dict[str, Any] = FIRST | {"cpu.time": 2 * 10**9, "net.0.rx.bytes": 1100, "net.1.tx.bytes": 50}


def test_use_is_growth_over_time_of_all_interfaces() -> None:
    grown = MachineCounters.of(LATER, 12.0).growth(MachineCounters.of(FIRST, 10.0))
    assert grown is not None
    assert (grown.cores, grown.rx_bytes_per_s, grown.tx_bytes_per_s) == (0.5, 500.0, 25.0)


def test_a_first_look_a_restart_and_a_clock_set_back_say_nothing() -> None:
    first, later = MachineCounters.of(FIRST, 10.0), MachineCounters.of(LATER, 12.0)
    assert first.growth(None) is None
    assert MachineCounters.of(FIRST, 13.0).growth(later) is None
    assert MachineCounters.of(LATER, 9.0).growth(first) is None


def test_a_machine_without_an_interface_uses_no_network() -> None:
    grown = MachineCounters.of({"cpu.time": 5}, 2.0).growth(MachineCounters.of({"cpu.time": 5}, 1.0))
    assert grown is not None and (grown.rx_bytes_per_s, grown.tx_bytes_per_s) == (0.0, 0.0)


@given(*[st.integers(0, 2**63)] * 4)
def test_use_is_never_negative(rx: int, tx: int, rx_after: int, tx_after: int) -> None:
    grown = MachineCounters(2.0, 1, rx_after, tx_after).growth(MachineCounters(1.0, 1, rx, tx))
    assert grown is not None and grown.rx_bytes_per_s >= 0 and grown.tx_bytes_per_s >= 0
