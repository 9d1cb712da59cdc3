"""`python -m tools.forecast_page DATA PAGE`: backtests the four public sets into one page."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.baselines import BASELINES, WINDOW_BASELINES
from backtest.live_models import AUTO
from backtest.reading import read
from backtest.run import BacktestPlan, backtest

Gate = tuple[str, str, float]  # "horizons" or "windows", which, largest WAPE


@dataclass(frozen=True, slots=True)
class PublicSet:
    """One of the sets: how it is replayed, and which errors it should stay below."""

    title: str
    file: str
    step_s: float
    plan: BacktestPlan
    gates: tuple[Gate, ...]
    exclude: tuple[str, ...] = ()


MODELS = (AUTO, "boosting", "arima")
SECONDS = (1, 3, 6, 15, 30)
META_WINDOWS = (("5", 0.1210), ("15", 0.0747), ("30", 0.0566))
SETS = (
    PublicSet(
        "Meta DB",
        "meta_pod_db_1s.csv.gz",
        1,
        BacktestPlan(SECONDS, (5, 15, 30), models=MODELS),
        (*(("horizons", str(at), 0.2467) for at in SECONDS), *(("windows", at, most) for at, most in META_WINDOWS)),
        ("oracle_mlu",),
    ),
    PublicSet(
        "GEANT",
        "geant_15min_7d.csv.gz",
        900,
        BacktestPlan(models=MODELS),
        (("horizons", "1", 0.097), ("horizons", "6", 0.1656)),
        ("oracle_mlu",),
    ),
    PublicSet(
        "Azure VM",
        "azure_v1_vmcpu_5min_a.csv.gz",
        300,
        BacktestPlan(models=MODELS, series=("*_avg",)),
        (("horizons", "1", 0.120), ("horizons", "3", 0.140), ("horizons", "6", 0.150)),
    ),
    PublicSet(
        "Azure LLM",
        "azure_llm2023_1s.csv.gz",
        1,
        BacktestPlan(SECONDS, (5, 15, 30), models=MODELS),
        (("horizons", "1", 0.55), ("horizons", "30", 0.70)),
    ),
)
COVERED = (0.87, 0.93)
NO_WORSE = 1.01


def main(words: list[str]) -> int:
    """Replays the sets one after the other (or takes reports that are there already) and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.forecast_page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the public sets")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    parser.add_argument("--reports", type=Path, default=Path(".run/bench-forecast"), help="where JSON reports are kept")
    parser.add_argument("--only", default="", help="replay this file only; the other reports are there already")
    options = parser.parse_args(words)
    options.reports.mkdir(parents=True, exist_ok=True)
    for one in SETS:
        if one.file.startswith(options.only) and not (options.data / one.file).is_file():
            parser.error(f"{options.data / one.file}: no such file; give the folder of the public sets")
    found = {}
    for one in SETS:
        kept = options.reports / f"{one.file.split('.')[0]}.json"
        if one.file.startswith(options.only):
            kept.write_text(json.dumps(_replayed(one, options.data, _say), indent=1), encoding="utf-8")
        if kept.is_file():
            found[one] = json.loads(kept.read_text(encoding="utf-8"))
    options.page.write_text(sheet(found), encoding="utf-8")
    return 0


def _say(doing: str, done: int, of: int) -> None:
    sys.stderr.write(f"\r  {doing} {done}/{of}   ")


def _replayed(one: PublicSet, data: Path, say: Callable[[str, int, int], None]) -> dict[str, Any]:
    sys.stderr.write(f"\n{one.title}\n")
    begin, cpu = time.monotonic(), time.process_time()
    report = backtest(read(data / one.file, one.step_s, one.exclude), one.plan, say).report
    return report | {"wall_seconds": time.monotonic() - begin, "cpu_seconds": time.process_time() - cpu}


def sheet(found: Mapping[PublicSet, Mapping[str, Any]]) -> str:
    """The page: gates first, then a table of every method for each set."""
    parts = [HEAD.format(cores=os.cpu_count(), python=platform.python_version()), "## Gates\n"]
    parts.append("| set | what | gate | auto | | best simple |\n|---|---|---|---|---|---|")
    parts += [row for one, report in found.items() for row in _gates(one, report)]
    parts.append(NOTES)
    for one, report in found.items():
        parts += [f"\n## {one.title}\n", _facts(report), *_tables(report)]
    return "\n".join(parts) + "\n"


def _gates(one: PublicSet, report: Mapping[str, Any]) -> list[str]:
    auto, rows = report["models"][AUTO], []
    for kind, at, most in one.gates:
        wape, best = auto[kind][at]["wape"], report["best_simple"][kind][at]
        what = f"WAPE {at} ahead" if kind == "horizons" else f"WAPE mean of {at}"
        verdict = "met" if wape <= most else f"missed by {wape / most - 1:.1%}"
        rows.append(
            f"| {one.title} | {what} | {most} | {wape:.4f} | {verdict} | {best['wape']:.4f} ({best['model']}) |"
        )
    covers = [figures["coverage_q90"] for figures in auto["horizons"].values()]
    good = min(covers) >= COVERED[0] and max(covers) <= COVERED[1]
    spread = f"{min(covers):.3f} to {max(covers):.3f}"
    rows.append(f"| {one.title} | q90 coverage | .87 to .93 | {spread} | {'met' if good else 'missed'} | |")
    worst = max(
        auto[kind][at]["wape"] / best["wape"]
        for kind, bests in report["best_simple"].items()
        for at, best in bests.items()
    )
    verdict = "met" if worst <= NO_WORSE else "missed"
    rows.append(f"| {one.title} | at worst, of the best simple | 1.01 | {worst:.3f} | {verdict} | |")
    return rows


def _facts(report: Mapping[str, Any]) -> str:
    return (
        f"{report['series_scored']} series, {report['train_rows']} rows to learn from, "
        f"{report['test_rows']} to judge by. "
        f"The whole backtest took {report['cpu_seconds']:.0f} CPU s.\n"
    )


def _tables(report: Mapping[str, Any]) -> list[str]:
    parts = []
    for kind, label, simple in (("horizons", "+{}", BASELINES), ("windows", "mean of {}", WINDOW_BASELINES)):
        steps = list(report["best_simple"][kind])
        if not steps:
            continue
        head = " | ".join(label.format(at) for at in steps)
        parts.append(f"{CELLS[kind]}\n\n| model | {head} | fit s | predict s |\n|---{'|---' * (len(steps) + 2)}|")
        parts += [_line(name, one, kind, steps) for name, one in report["models"].items() if _belongs(name, simple)]
        parts.append("")
    if report["activity"]:
        parts.append(_activity(report["activity"]))
    return parts


def _belongs(name: str, simple: Mapping[str, object]) -> bool:
    return name not in WINDOW_BASELINES or name in simple


def _line(name: str, one: Mapping[str, Any], kind: str, steps: list[str]) -> str:
    cells = []
    for at in steps:
        figures = one[kind][at]
        extra = ("mase", "rmsse") if kind == "horizons" else ()
        parts = [figures[key] for key in ("wape", *extra, "wql", "coverage_q90")]
        cells.append(" / ".join(f"{value:.3f}" if number else f"{value:.4f}" for number, value in enumerate(parts)))
    label = f"**{name}**" if name == AUTO else name
    return f"| {label} | {' | '.join(cells)} | {one['fit_seconds']:.1f} | {one['predict_seconds']:.1f} |"


def _activity(found: Mapping[str, Any]) -> str:
    keys = ("base_rate", "average_precision", "average_precision_ewma", "silent_average_precision")
    rows = [
        f"| +{at} | " + " | ".join(f"{one[key]:.3f}" for key in keys) + " |" for at, one in found["horizons"].items()
    ]
    head = "| next rows | base rate | AP | AP of EWMA .2 of activity | AP of the silent class |\n|---|---|---|---|---|"
    return f"Will it talk? {found['series']} series that are neither always nor never active:\n\n{head}\n" + "\n".join(
        rows
    )


CELLS = {
    "horizons": "Single rows: WAPE / MASE / RMSSE / wQL / q90 coverage.",
    "windows": "Means of the next rows: WAPE / wQL / q90 coverage.",
}
HEAD = """# What forecasts are worth

Written by `make bench-forecast DATA=DIR` on {cores} cores, Python {python}. Rolling origin: every test row is forecast
from earlier rows only; the first three quarters of the rows are for learning and for every choice, the last quarter is
for judging. One setting for all sets, that of the [backtest](../backtest.md) by default; one run, seed 1. `auto` is
what the live system would say; simple methods are those of the textbooks.
"""

NOTES = """
## Where it falls short, and why

* **One step ahead on Azure LLM.** Requests arrive in bursts that nothing announces, and from train to test the load of
  `code` halves. Averages that adapt and trees that learnt the busier hours err on different sides; the blend is better
  than both, not good enough for the gate. On the end of train fits on the way did not make it any better.
* **One step ahead on GEANT.** The last value is nearly all that can be known 15 minutes ahead; on the end of train a
  single pair makes 15 % of the error. The skill there is 5 %; six steps ahead it is 13 %.
* **Second-scale traffic (Meta DB)** has no memory: nobody beats the mean of the past row by row, and `auto` does not
  pretend to. Over windows of 5 to 30 rows it does win, because there the slowly moving level shows.
* **Neural networks** are not in the default list. Named beside the others (`--models auto,lstm,transformer`; fits of
  20 CPU s on GEANT and 15 on Azure LLM) they hold about half of the blend on GEANT at every horizon (`lstm` .25,
  `transformer` .27 one step ahead), and `auto` comes to .0969 / .1327 / .1572 at 1, 3 and 6 steps, below its gate. On
  Azure LLM they hold .42 one second ahead, .49 at 6 and .29 at 30, and `auto` is none the better for it: .5581, .6705
  and .6679 at 1, 6 and 30.
* Whether `code` of Azure LLM talks within 30 s is foreseen no better than by a running mean of its activity.
* Three defaults were run on these rows, this is the last; each change was chosen on the end of the train rows. From one
  to the next the errors of `auto` here moved by up to 3.5 % on Azure VM and by about 1 % or less elsewhere.
"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
