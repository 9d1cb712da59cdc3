"""Turns what the clients wrote down and what the sampler saw into the figures by which policies are compared.

Only the surges' windows count, and only requests to the service that surges in them.

* offered bytes: bodies of the requests scheduled in the windows; delivered bytes: of those that were answered.
* p95 latency: 95th percentile over the same requests, from the scheduled time to the whole answer; a lost request
  counts as the client's timeout.
* A second of a window was badly served when a request scheduled in it was lost or took longer than one second.
* short of bandwidth: badly served seconds in which the access link to a host of the service's VMs dropped packets and
  was at least 90 % busy.
* short of CPU: seconds in which a VM of the service was held back by its own quota (held back for more than 5 % of the
  second, and using at least 90 % of one virtual CPU's limit), or badly served seconds in which its whole host was held
  back likewise.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from forepath.demo.layout import LabLayout
from forepath.demo.schedule import JudgedWindow

TIMEOUT_S = 4.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at Unix time `t`.

    Links "from>to" -> (bytes, packets, drops); VMs -> (CPU s, held back s, limit of one virtual CPU, host, limit of
    all virtual CPUs); hosts -> (CPU s, held back s, capacity).
    """

    t: float
    links: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    vms: dict[str, tuple[float, float, float, str, float]] = field(default_factory=dict)
    hosts: dict[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a request. `latency_s` counts from the scheduled time and is None when it was lost."""

    client: str
    service: str
    scheduled_at: float
    started_at: float
    latency_s: float | None
    bytes: int
    surge: bool


def read_samples(path: Path) -> list[Sample]:
    """Read the samples of a file, oldest first."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Sample(
            row["t"],
            {k: tuple(v) for k, v in row["links"].items()},
            {k: tuple(v) for k, v in row["vms"].items()},
            {k: tuple(v) for k, v in row["hosts"].items()},
        )
        for row in rows
    ]


BUSY = 0.90
HELD_BACK = 0.05
SLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one policy over its windows; see the module's text. `p95_latency_s` is None without requests."""

    offered_bytes: int
    delivered_bytes: int
    requests: int
    lost: int
    p95_latency_s: float | None


def read_played(paths: Iterable[Path]) -> list[Played]:
    """Read the clients' files; lines about streams are left out."""
    rows = (json.loads(line) for path in paths for line in path.read_text().splitlines())
    return [Played(**row) for row in rows if "stream" not in row]


def at_unix(windows: Iterable[JudgedWindow], start_at: float) -> list[JudgedWindow]:
    """Return the windows in Unix seconds instead of seconds after `start_at`."""
    return [JudgedWindow(w.segment, w.start_s + start_at, w.end_s + start_at, w.client, w.service) for w in windows]


def _inside(played: Played, windows: Sequence[JudgedWindow]) -> bool:
    return any(w.start_s <= played.scheduled_at < w.end_s and w.service == played.service for w in windows)


def percentile(values: Sequence[float], level: float) -> float | None:
    """Return the smallest value that at least `level` of the values do not exceed; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(1, math.ceil(level * len(ordered))) - 1]


def summarise(requests: Iterable[Played], windows: Sequence[JudgedWindow]) -> Summary:
    """Summarise the requests scheduled inside `windows` (Unix seconds)."""
    counted = [played for played in requests if _inside(played, windows)]
    served = [played for played in counted if played.latency_s is not None]
    latencies = [TIMEOUT_S if played.latency_s is None else played.latency_s for played in counted]
    return Summary(
        offered_bytes=sum(played.bytes for played in counted),
        delivered_bytes=sum(played.bytes for played in served),
        requests=len(counted),
        lost=len(counted) - len(served),
        p95_latency_s=percentile(latencies, 0.95),
    )


@dataclass(frozen=True, slots=True)
class ShortageSeconds:
    """Seconds inside the windows in which something was missing; see the module's text."""

    short_bandwidth_s: float
    short_cpu_s: float


def _badly_served(requests: Sequence[Played], service: str, start: float, end: float) -> bool:
    return any(
        played.latency_s is None or played.latency_s > SLOW_S
        for played in requests
        if played.service == service and start <= played.scheduled_at < end
    )


def _held_back(before: Sequence[float], after: Sequence[float], interval_s: float) -> bool:
    """Whether (CPU s, held back s, limit) grew like that of something that wanted more than its limit."""
    used, held, limit = (after[0] - before[0]), (after[1] - before[1]), after[2]
    return used >= 0 and held > HELD_BACK * interval_s and used >= BUSY * limit * interval_s


def _link_full(before: Sample, after: Sample, link: str, capacity_bytes_per_s: float) -> bool:
    if link not in before.links or link not in after.links:
        return False
    grown = [new - old for old, new in zip(before.links[link], after.links[link], strict=True)]
    return grown[2] > 0 and grown[0] >= BUSY * capacity_bytes_per_s * (after.t - before.t)


def _vms_held_back(before: Sample, after: Sample, vms: Iterable[str]) -> bool:
    for vm in vms:
        old, new = before.vms.get(vm), after.vms.get(vm)
        if old and new and old[3] == new[3] and _held_back(old[:3], new[:3], after.t - before.t):
            return True
    return False


def _hosts_held_back(before: Sample, after: Sample, hosts: Iterable[str]) -> bool:
    return any(
        _held_back(before.hosts[host], after.hosts[host], after.t - before.t)
        for host in hosts
        if host in before.hosts and host in after.hosts
    )


def shortage(
    samples: Sequence[Sample], requests: Sequence[Played], windows: Sequence[JudgedWindow], layout: LabLayout
) -> ShortageSeconds:
    """Add up the seconds of `windows` (Unix seconds) that were short of bandwidth and of CPU."""
    bandwidth_s = cpu_s = 0.0
    for window in windows:
        vms = set(layout.service(window.service).weights)
        for before, after in pairwise(samples):
            if before.t < window.start_s or after.t > window.end_s + SLOW_S:
                continue
            hosts = {row[3] for vm, row in after.vms.items() if vm in vms}
            bad = _badly_served(requests, window.service, before.t, after.t)
            if bad and _any_access_full(before, after, hosts, layout):
                bandwidth_s += after.t - before.t
            if _vms_held_back(before, after, vms) or (bad and _hosts_held_back(before, after, hosts)):
                cpu_s += after.t - before.t
    return ShortageSeconds(round(bandwidth_s, 1), round(cpu_s, 1))


def _any_access_full(before: Sample, after: Sample, hosts: Iterable[str], layout: LabLayout) -> bool:
    return any(
        _link_full(before, after, f"{spec.switch}>{spec.name}", spec.access_bytes_per_s)
        for spec in (layout.hypervisor(host) for host in hosts)
    )


def delivered_share(sent_bytes: int, sink_bytes: int) -> float | None:
    """Share of a stream's bytes that its sink counted; None when nothing was sent."""
    return min(1.0, sink_bytes / sent_bytes) if sent_bytes > 0 else None
