"""The figures of the comparison, on data small enough to add up by hand."""

import json
from pathlib import Path

import pytest

from forepath.demo.layout import LabLayout
from forepath.demo.results import (
    TIMEOUT_S,
    Played,
    Sample,
    at_unix,
    delivered_share,
    percentile,
    read_played,
    shortage,
    summarise,
)
from forepath.demo.schedule import JudgedWindow

LAYOUT = LabLayout()
WINDOW = JudgedWindow("static", 100.0, 104.0, "c1", "shop")
FULL = int(LAYOUT.hypervisor("hA").access_bytes_per_s)


def played(at: float, latency_s: float | None, service: str = "shop", size: int = 1000) -> Played:
    return Played("c1", service, at, at, latency_s, size, True)


def samples(link: tuple[int, int], vm: tuple[float, float], host: tuple[float, float]) -> list[Sample]:
    """Six samples whose counters grow by (bytes, drops), (CPU, held back) of shop1 and of its host each second."""
    return [
        Sample(
            100.0 + n,
            {"leaf2>hA": (n * link[0], n, n * link[1])},
            {"shop1": (n * vm[0], n * vm[1], 0.2, "hA", 0.2)},
            {"hA": (n * host[0], n * host[1], 0.8)},
        )
        for n in range(6)
    ]


def test_only_the_surging_service_inside_its_windows_counts() -> None:
    rows = [played(99.9, 0.1), played(100.0, 0.2), played(103.9, None), played(104.0, 0.3), played(101, 0.1, "search")]
    summary = summarise(rows, [WINDOW])
    assert (summary.requests, summary.lost) == (2, 1)
    assert (summary.offered_bytes, summary.delivered_bytes) == (2000, 1000)
    assert summary.p95_latency_s == TIMEOUT_S


def test_without_requests_there_is_no_latency() -> None:
    assert summarise([], [WINDOW]).p95_latency_s is None


def test_a_few_slow_requests_do_not_move_the_95th_percentile() -> None:
    assert percentile([0.1] * 96 + [9.0] * 4, 0.95) == 0.1
    assert percentile([0.1] * 94 + [9.0] * 6, 0.95) == 9.0
    assert percentile([3.0], 0.95) == 3.0


BAD = [played(100.5 + n, None) for n in range(4)]
GOOD = [played(100.5 + n, 0.1) for n in range(4)]
QUIET, IDLE = (0.01, 0.0), (0.1, 0.0)


@pytest.mark.parametrize(
    ("rows", "requests", "bandwidth_s", "cpu_s"),
    [
        (samples((FULL, 5), QUIET, IDLE), BAD, 4.0, 0.0),
        (samples((FULL, 5), QUIET, IDLE), GOOD, 0.0, 0.0),  # dropped, but everyone was served
        (samples((FULL, 0), QUIET, IDLE), BAD, 0.0, 0.0),  # full, but nothing dropped
        (samples((FULL // 2, 5), QUIET, IDLE), BAD, 0.0, 0.0),  # a burst, not a shortage
        (samples((0, 0), (0.2, 0.5), IDLE), GOOD, 0.0, 4.0),  # held back by its own quota
        (samples((0, 0), (0.1, 0.5), IDLE), GOOD, 0.0, 0.0),  # held back in bursts, far below its limit
        (samples((0, 0), QUIET, (0.8, 0.5)), BAD, 0.0, 4.0),  # its whole host is short
        (samples((0, 0), QUIET, (0.8, 0.5)), GOOD, 0.0, 0.0),
    ],
)
def test_shortages(rows: list[Sample], requests: list[Played], bandwidth_s: float, cpu_s: float) -> None:
    short = shortage(rows, requests, [WINDOW], LAYOUT)
    # The second that begins inside the window's last moment may still count.
    assert bandwidth_s <= short.short_bandwidth_s <= bandwidth_s * 1.25
    assert cpu_s <= short.short_cpu_s <= cpu_s * 1.25


def test_a_vm_that_arrived_at_another_host_starts_its_counters_again() -> None:
    before = Sample(100.0, {}, {"shop1": (50.0, 30.0, 0.2, "hA", 0.2)}, {})
    after = Sample(101.0, {}, {"shop1": (0.2, 0.5, 0.2, "hB", 0.2)}, {})
    assert shortage([before, after], [], [WINDOW], LAYOUT).short_cpu_s == 0.0


def test_windows_move_to_the_start() -> None:
    (moved,) = at_unix([WINDOW], 1000.0)
    assert (moved.start_s, moved.end_s) == (1100.0, 1104.0)


def test_lines_about_streams_are_left_out(run_file: Path) -> None:
    row = {"client": "c1", "service": "shop", "scheduled_at": 1, "started_at": 1, "latency_s": None, "bytes": 1}
    run_file.write_text(json.dumps(row | {"surge": False}) + '\n{"stream": "backup", "datagrams": 1, "bytes": 9}\n')
    assert [p.service for p in read_played([run_file])] == ["shop"]


def test_delivered_share() -> None:
    assert delivered_share(200, 100) == 0.5
    assert delivered_share(0, 0) is None
