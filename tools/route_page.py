"""`python -m tools.route_page PAGE DATA`: replays recorded matrices into one page of results.

`python -m tools.route_page PAGE --live FILE` puts what `forepath bench routing --json FILE` found below them.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backtest import read_matrices, route
from predictor.service.workers import use_one_thread

TRAIN_FRACTION = 0.75
COLUMNS = ("mean", "p50", "p95", "p99", "max", "share_above_2", "churn", "touched", "seconds_per_decision")
INTRO = """# Routing: how near to the best possible

Written by `make bench-route DATA=DIR`: each `NAME.csv.gz` of that folder that has a `NAME.topo.json` beside it is
replayed by `forepath backtest route` with the default setting, which was chosen on train rows
([routing](../routing.md)). {machine}

MLU ratio: maximum link utilisation of the splits that were decided from earlier rows only, over that of the best
splits of the very row, on the same paths. Every complete row of the last quarter is judged. Churn: share of a pair's
traffic that changes its path from row to row; touched: share of pairs and rows where more than 1 % does. `auto` is the
default. CPU seconds a decision include the optimum of each new row where a strategy needs it.
"""


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits of the mean and the 99th percentile that `auto` should keep together."""

    name: str
    mean: float
    p99: float

    def line(self, auto: dict[str, float]) -> str:
        """One line of the page."""
        met = auto["mean"] <= self.mean and auto["p99"] <= self.p99
        return (
            f"* {self.name}: mean <= {self.mean} and p99 <= {self.p99}: **{'met' if met else 'missed'}** "
            f"({auto['mean']:.4f} and {auto['p99']:.3f})"
        )


LIVE = "## On real switches"
COUNTS = ("sent", "left_out", "overtaken", "actions_done", "splits_changed")
LIVE_INTRO = """Written by `forepath bench routing --minutes {minutes:g} --blocks {blocks} --load {load:g} --json FILE`
and `python -m tools.route_page PAGE --live FILE`. Half a fat-tree of 4-port switches (two pods, four cores, links of
{link_mbit:g} Mbit/s) in Open vSwitch in user space; 48 pairs with Pareto rates (shape 1.2) that last a minute on
average, of four connections each that last 20 s, send numbered UDP packets of 1,000 bytes. Off: each destination has
one shortest way. On: `routing.enabled = "auto"`, by measured traffic alone (no predictor ran). Nobody is limited.
Overtaken: packets that came after a later one of their connection. Left out: not sent, for want of CPU. By turns in
blocks over the same traffic, seed {seed}. {machine}"""
GATES = {"geant_15min_7d": Gate("gate", 1.0018, 1.027), "meta_pod_db_1s": Gate("gate", 1.127, 1.65)}
# The mean of the mixture must be at most so much of that of its best part
OF_THE_BEST = 1.003


def main(words: list[str]) -> int:
    """Replays every recording found and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.route_page", description=__doc__)
    parser.add_argument("page", type=Path, help="file to write")
    parser.add_argument("data", type=Path, nargs="?", help="folder with NAME.csv.gz and NAME.topo.json")
    parser.add_argument("--live", type=Path, help="what `forepath bench routing --json` wrote; the rest stays as it is")
    options = parser.parse_args(words)
    if (options.data is None) == (options.live is None):
        parser.error("give a folder with recordings, or --live FILE")
    replayed, mark, live = _text(options.page).partition(f"{LIVE}\n")
    if options.live is not None:
        found = live_section(json.loads(options.live.read_text(encoding="utf-8")))
        options.page.write_text(f"{replayed.rstrip()}\n\n{found}", encoding="utf-8")
        return 0
    names = sorted(file.name.removesuffix(".topo.json") for file in options.data.glob("*.topo.json"))
    if not names:
        parser.error(f"{options.data}: no NAME.topo.json in it")
    use_one_thread()
    parts = [INTRO.format(machine=_machine()), *(section(name, _replayed(options.data, name)) for name in names)]
    options.page.write_text("\n".join([*parts, *([mark + live] if mark else [])]), encoding="utf-8")
    return 0


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""


def live_section(document: dict[str, Any]) -> str:
    """The part of the page about real switches: routing off beside routing on, over the same traffic."""
    scale, figures = document["scale"], document["figures"]
    rows = []
    for way in ("off", "on"):
        told = {name.removeprefix(f"{way}_"): value for name, value in figures.items() if name.startswith(f"{way}_")}
        cells = [f"{told['congested_s']:.0f} of {told['seconds']:.0f}", f"{told['lost_share']:.2%}"]
        counts = [f"{told[name]:,.0f}" for name in COUNTS]
        rows.append([way, *cells, *counts])
    head = ["routing", "seconds with a link that drops", "lost", *(name.replace("_", " ") for name in COUNTS)]
    targets = [
        f"* {one['name']}: {one['value']:.3g}, at most {one['limit']:g}: **{'met' if one['met'] else 'missed'}**"
        for one in document["targets"]
    ]
    intro = LIVE_INTRO.format(machine=_machine(), **scale)
    return "\n".join([LIVE, "", intro, "", *_table(head, rows), "", *targets, ""])


def _machine() -> str:
    return f"Run on {os.cpu_count()} shared cores with Python {platform.python_version()}, one thread."


def _replayed(folder: Path, name: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        given = read_matrices(folder / f"{name}.csv.gz", folder / f"{name}.topo.json")
        outcome = route(given, TRAIN_FRACTION, lambda _, done, of: bar.update(task, completed=done, total=of or None))
    return outcome.report


def section(name: str, report: dict[str, Any]) -> str:
    """One recording's part of the page."""
    strategies = report["strategies"]
    head = [column.replace("_", " ") for column in COLUMNS]
    head[-1] = "CPU s a decision"
    rows = [[way, *(f"{figures[column]:.4f}" for column in COLUMNS)] for way, figures in strategies.items()]
    lines = [
        f"## {name}\n",
        f"{report['nodes']} nodes, {report['links']} links, {report['pairs']} pairs on {report['paths']} paths; "
        f"{report['snapshots']} rows judged.{_deviation(report)}\n",
        *_table(["strategy", *head], rows),
        "",
        *_parts(report["parts"], strategies["auto"]),
        *([GATES[name].line(strategies["auto"])] if name in GATES else []),
        "",
    ]
    return "\n".join(lines)


def _parts(parts: dict[str, dict[str, float]], auto: dict[str, float]) -> list[str]:
    columns = ("mean", "p50", "p95", "p99", "max", "weight")
    rows = [[name, *(f"{figures[column]:.4f}" for column in columns)] for name, figures in parts.items()]
    best = min(figures["mean"] for figures in parts.values())
    met = "met" if auto["mean"] <= OF_THE_BEST * best else "missed"
    table = _table(["part of auto: how far it looks back", *columns[:-1], "weight in the end"], rows)
    return [*table, "", f"* mean <= {OF_THE_BEST} of the best part's: **{met}** ({auto['mean'] / best:.4f})"]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _deviation(report: dict[str, Any]) -> str:
    deviation = report["oracle_deviation"]
    if deviation is None:
        return ""
    return f" The best MLU found here is within {deviation:.0e} (share) of the file's own `oracle_mlu` on every row."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
