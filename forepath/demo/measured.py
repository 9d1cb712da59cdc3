"""What a demo writes down as it runs: counters once a second, and what became of each request."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
