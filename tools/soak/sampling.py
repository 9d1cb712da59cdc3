"""What processes hold at an instant, and what lies on disk, one line for each figure: what a soak is judged by."""

import csv
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import psutil

MB = 1e6
COLUMNS = ("at_s", "who", "what", "value")


class SoakSample(NamedTuple):
    """One figure of one process (or `database`, `spool`, `logs`), so long after the begin of the soak."""

    at_s: float
    who: str
    what: str
    value: float


def sample_processes(
    at_s: float, processes: Iterable[psutil.Process], names: Mapping[int, str]
) -> Iterator[SoakSample]:
    """What each holds; `names` by pid, others by their program and pid."""
    for process in processes:
        with suppress(psutil.Error):
            who = names.get(process.pid) or f"{process.name()}/{process.pid}"
            memory = process.memory_full_info()
            held = (memory.rss / MB, memory.pss / MB, process.num_fds(), process.num_threads())
            for what, value in zip(("rss_mb", "pss_mb", "handles", "threads"), held, strict=True):
                yield SoakSample(at_s, who, what, float(value))


def size_mb(files: Iterable[Path]) -> float:
    """Of files that may vanish meanwhile."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total / MB


class SampleFile:
    """Keeps samples as CSV, each at once: a soak that is cut short can be judged as far as it went. Use in `with`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def at(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self._begin

    def write(self, samples: Iterable[SoakSample]) -> None:
        """Adds samples."""
        for sample in samples:
            self._writer.writerow((f"{sample.at_s:.1f}", sample.who, sample.what, f"{sample.value:.6g}"))
        self._file.flush()


def read_samples(path: Path) -> list[SoakSample]:
    """What `SampleFile` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            SoakSample(float(row["at_s"]), row["who"], row["what"], float(row["value"])) for row in csv.DictReader(file)
        ]
