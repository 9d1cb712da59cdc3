"""`make soak MINUTES=m` or `make soak DAY=1`: lets everything run without a fault, and says whether anything grows.

    python -m tools.lab.stage -- python -m tools.soak --minutes 60     a real lab, the one of tools.chaos
    python -m tools.soak --day [--hours 6]                             a simulated day, in this process
    python -m tools.soak --again soak.csv [--json -]                   judges samples that were kept, also of half a run

Exit code 0 when all that is forepath's is flat, 1 when anything grows or cannot be told (too short: the first third is
the warm-up, and retention is a quarter of an hour, so an hour is the least that says something), 2 without a lab.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import psutil
import structlog
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cpdb import DatabaseSection, LabError
from tools.chaos.scene import Scene
from tools.soak.day import RETAIN_BUDGET_S, soak_day
from tools.soak.sampling import SampleFile, SoakSample, read_samples, sample_processes, size_mb
from tools.soak.slopes import BOUNDS_PER_H, Slope, find_slopes

EVERY_S = 10.0
# The shortest that can be set: within a quarter of an hour the database has all that it will keep of seconds.
RETENTION = {
    "keep_1s_hours": 0.25,
    "keep_10s_hours": 0.25,
    "keep_1min_days": 0.1,
    "keep_past_forecasts_hours": 0.25,
    "keep_scores_hours": 0.25,
    "keep_journal_days": 1.0,
}


def _disk(scene: Scene, at_s: float) -> list[SoakSample]:
    sizes = {
        "database": scene.disk.glob("cpdb.db*"),
        "spool": (one for one in (scene.disk / "state").rglob("*") if one.is_file()),
        "logs": (scene.folder / "lab").rglob("*.log"),
    }
    return [SoakSample(at_s, who, "size_mb", size_mb(files)) for who, files in sizes.items()]


def soak_lab(path: Path, minutes: float, say: Callable[[float], None]) -> None:
    """Samples a running lab into the file at `path`. Raises LabError off stage."""
    folder = Path(tempfile.mkdtemp(prefix="forepath-soak-"))
    scene = Scene(folder, folder / "clock", retention=RETENTION, disk_mb=1024)
    policy = DatabaseSection(**RETENTION).retention_policy()
    try:
        scene.start()
        with SampleFile(path) as file:
            while (at := file.at()) < 60 * minutes:
                names = {one.pid: name for name, one in scene.running.items()}
                file.write(sample_processes(at, psutil.process_iter(), names))
                file.write(_disk(scene, at))
                # As `forepath run` does beside the programs that run here one by one.
                scene.store.retain(time.time(), policy, RETAIN_BUDGET_S)
                say(at / 60 / minutes)
                time.sleep(max(0.0, EVERY_S - (file.at() - at)))
    finally:
        scene.stop()


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    columns = (TextColumn("soak"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("soak", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _table(slopes: Sequence[Slope]) -> Iterator[str]:
    yield f"{'who':24}{'what':10}{'first':>9}{'last':>9} {'per hour (95 %)':>27}  bound  verdict"
    for one in slopes:
        if not one.is_ours and one.verdict == "flat":
            continue
        slope = f"{one.per_h:.2f} ({one.low_per_h:.2f} to {one.high_per_h:.2f})"
        verdict = one.verdict if one.is_ours else f"({one.verdict})"
        bound = BOUNDS_PER_H[one.what]
        yield f"{one.who[:23]:24}{one.what:10}{one.first:9.1f}{one.last:9.1f} {slope:>27}  {bound:.2f}   {verdict}"


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--minutes", type=float, default=60.0, help="of the lab")
    way.add_argument("--day", action="store_true", help="a simulated day instead")
    way.add_argument("--again", type=Path, metavar="CSV", help="judge these samples instead")
    parser.add_argument("--hours", type=float, default=24.0, help="how much of the day is played")
    parser.add_argument("--samples", type=Path, default=Path("soak.csv"), help="where samples are kept")
    parser.add_argument("--json", metavar="PATH|-", help="slopes as JSON")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """0 when nothing grows, 1 when something does or may, 2 when nothing could be sampled."""
    options = _options(words)
    try:
        # What was sampled until somebody loses patience is judged all the same.
        with _progress() as say, suppress(KeyboardInterrupt):
            if options.day:
                structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
                soak_day(options.samples, options.hours, RETENTION, say)
            elif options.again is None:
                soak_lab(options.samples, options.minutes, say)
        slopes = find_slopes(read_samples(options.again or options.samples))
    except (LabError, OSError, KeyError, ValueError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    if options.json:
        text = json.dumps([{**asdict(one), "verdict": one.verdict, "judged": one.is_ours} for one in slopes], indent=2)
        Path("/dev/stdout" if options.json == "-" else options.json).write_text(text + "\n", encoding="utf-8")
    if options.json != "-":
        print("\n".join(_table(slopes)))
    return 0 if slopes and all(one.verdict == "flat" for one in slopes if one.is_ours) else 1


if __name__ == "__main__":
    sys.exit(main())
