"""How a figure is taken and judged: CPU of this process, several times, the median, beside a limit."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cpdb import LabError
from tools.lab.stage import on_stage, run_on_stage

Found = dict[str, Any]


def found_on_stage(module: str, words: Sequence[str]) -> Found:
    """What `python -m module FILE words...` found; needs root and Open vSwitch: LabError says what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        code = run_on_stage([sys.executable, "-m", module, str(file), *words])
        if not file.exists():
            raise LabError(f"the measurement on the stage ended with exit code {code} and found nothing")
        found: Found = json.loads(file.read_text(encoding="utf-8"))
    if "error" in found:
        raise LabError(found["error"])
    return found


def tell(command: str, words: Sequence[str], look: Callable[[Path, Sequence[str]], Found]) -> int:
    """The other end: `look` measures, with a folder that is gone afterwards and the words after the file's name.

    Returns the exit code; `command` is what people should have typed who are on no stage.
    """
    if not on_stage():
        print(f"run it as `{command}`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = look(Path(folder), words[1:])
        except LabError as error:
            found = {"error": str(error)}
    Path(words[0]).write_text(json.dumps(found), encoding="utf-8")
    return 0


Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured; `share` of 1 is the full size, the tests take a little of it."""

    share: float = 1.0
    repetitions: int = 5

    def of(self, full: int) -> int:
        """So many instead of `full`, at least two."""
        return max(2, round(full * self.share))


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """A figure and the limit that it should keep."""

    name: str
    value: float
    limit: float
    better: Better

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        """The target as one JSON object."""
        return {"name": self.name, "value": self.value, "limit": self.limit, "better": self.better, "met": self.met}


@dataclass(frozen=True, slots=True)
class Result:
    """What one bench found: raw figures by name, and those that have a limit."""

    figures: dict[str, float]
    targets: list[BenchTarget] = field(default_factory=list)


def joined(one: Result, other: Result) -> Result:
    """Both results as one."""
    return Result(one.figures | other.figures, [*one.targets, *other.targets])


@dataclass(frozen=True, slots=True)
class Bench:
    """One bench: its name in the document, what it is for people, and how it is taken."""

    name: str
    about: str
    measure: Callable[[Size], Result]


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds that this process (all its threads, not its children) spends on `work`."""
    before = time.process_time()
    work()
    return time.process_time() - before


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(values)
