"""`python -m tools.bench`: what the loop costs beside peers and limits. A missed limit is told, not an error."""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ryu_apps import framework_name
from tools.bench import cycles, destinations, rule_making, store
from tools.bench.figures import Bench, BenchTarget, Result, Size

BENCHES = (
    Bench("store", "writing and reading communications", store.small),
    Bench("decoding", "decoding flow statistics", rule_making.measure_decoding),
    Bench("rule_making", "computing the switches' rules", rule_making.measure_rules),
    Bench("destinations", "placing connections by rules", destinations.small),
    Bench("planning", "planning", cycles.measure_orchestrator),
    Bench("foreseeing", "forecasting", cycles.measure_predictor),
)
LIBRARIES = ("sqlalchemy", framework_name(), "numpy", "scikit-learn", "statsmodels", "networkx")
TINY = Size(share=0.02, repetitions=2)


def main(words: list[str]) -> int:
    """Runs every bench; returns 0 also when a limit is missed."""
    options = _options(words)
    results = _measure(TINY if options.tiny else Size())
    payload = document(results, ["python", "-m", "tools.bench", *words])
    if options.json == "-":
        sys.stdout.write(json.dumps(payload, indent=2) + "\n")
        return 0
    if options.json:
        Path(options.json).write_text(json.dumps(payload, indent=2) + "\n", encoding="utf-8")
    _print(results)
    return 0


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="What the loop costs.")
    parser.add_argument("--json", metavar="PATH|-", help="write one JSON document to a file, or - for stdout")
    parser.add_argument("--tiny", action="store_true", help="a small part of everything: shows that it runs, no more")
    options = parser.parse_args(words)
    if options.json not in (None, "-") and not Path(options.json).parent.is_dir():
        parser.error(f"--json {options.json}: no such folder")
    return options


def _measure(size: Size) -> dict[str, Result]:
    from predictor.service.workers import use_one_thread

    use_one_thread()
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn())
    results = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=len(BENCHES))
        for bench in BENCHES:
            progress.update(task, description=bench.about)
            results[bench.name] = bench.measure(size)
            progress.advance(task)
    return results


def document(results: dict[str, Result], command: list[str]) -> dict[str, Any]:
    """The one JSON object of a run."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "command": shlex.join(command),
        "versions": versions,
        "cores": os.cpu_count(),
        "results": {name: result.figures for name, result in results.items()},
        "targets": [target.to_json() for target in _targets(results)],
    }


def _targets(results: dict[str, Result]) -> list[BenchTarget]:
    return [target for result in results.values() for target in result.targets]


def _print(results: dict[str, Result]) -> None:
    console = Console()
    raw = Table("bench", "figure", "value", title="raw figures", title_justify="left", show_edge=False)
    for name, result in results.items():
        for figure, value in result.figures.items():
            raw.add_row(name, figure, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")
    judged = Table("target", "value", "limit", "", title="targets", title_justify="left", show_edge=False)
    for one in _targets(results):
        sign = "<=" if one.better == "lower" else ">="
        judged.add_row(one.name, f"{one.value:.3g}", f"{sign} {one.limit:g}", "met" if one.met else "MISSED")
    console.print(raw, "", judged)
    missed = [one.name for one in _targets(results) if not one.met]
    console.print(f"missed: {'; '.join(missed)}" if missed else "every target is met")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
