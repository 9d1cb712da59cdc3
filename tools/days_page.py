"""`python -m tools.days_page DATA PAGE`: what hours and days of memory gain, 1 to 24 steps ahead, on sets with days."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest import metrics
from backtest.live_models import AUTO, ask_of, forecast_live
from backtest.protocol import BacktestTask, MethodForecast
from backtest.reading import Recording, read
from backtest.run import BacktestPlan, question_of
from predictor import LONG_MODELS, ForecasterOptions, build_models, use_one_thread

STEPS = (1, 3, 6, 12, 24)
RECENT = "recent rows"
# What each memory is made of: recent rows alone, and what the long tier has by default.
MEMORIES: Mapping[str, tuple[str, ...]] = {
    RECENT: ("naive", "ewma", "ewma_slow", "arima"),
    "days": LONG_MODELS,
}
# Title -> file, step in seconds, which columns count, which are no series.
SETS: Mapping[str, tuple[str, float, tuple[str, ...], tuple[str, ...]]] = {
    "Azure VM": ("azure_v1_vmcpu_5min_a.csv.gz", 300.0, ("*_avg",), ()),
    "GEANT": ("geant_15min_7d.csv.gz", 900.0, (), ("oracle_mlu",)),
}
HEAD = """# What a memory of days is worth

Written by `python -m tools.days_page DATA docs/results/days.md`. Single rows so many steps ahead (5 minutes on
Azure VM, 15 on GEANT), rolling origin: the first three quarters of the rows are for learning, the last is for judging.
All are blends of the live predictor, with what they may remember: recent rows alone ({recent}), as the
fast tier does, which holds minutes; or every row before, in the models of the long tier
({days}). Trees and networks, which `[predictor.long] models` may name, are not in it.
Gain: how much smaller WAPE is than from recent rows.

| set | steps ahead | memory | WAPE | gain | wQL | q90 coverage |
|---|---|---|---|---|---|---|
"""


NOTES = """
On both sets days gain at every step. ARIMA was taken into the long tier for the nearer steps, by the first three
quarters of the rows: without it GEANT lost up to 1.1 % at 1 to 6 steps, where ARIMA knows more than the day before.
"""


def main(words: list[str]) -> int:
    """Replays both sets with each memory and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.days_page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the public sets")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    options = parser.parse_args(words)
    if missing := [one for one, *_ in SETS.values() if not (options.data / one).is_file()]:
        parser.error(f"{options.data / missing[0]}: no such file; give the folder of the public sets")
    use_one_thread()
    rows: list[str] = []
    for title, (file, step_s, series, exclude) in SETS.items():
        rows += _rows(title, read(options.data / file, step_s, exclude), series)
    recent, days = (f"`{', '.join(names)}`" for names in MEMORIES.values())
    head = HEAD.format(recent=recent, days=days)
    options.page.write_text(head + "\n".join(rows) + "\n" + NOTES, encoding="utf-8")
    return 0


def _rows(title: str, recording: Recording, series: tuple[str, ...]) -> Iterator[str]:
    question = question_of(recording, BacktestPlan(STEPS, series=series))
    said = {memory: _answer(question, title, memory) for memory in MEMORIES}
    for number, window in enumerate(question.asked):
        truth = question.truth(window)
        found = {memory: _figures(question, answer, number, truth) for memory, answer in said.items()}
        for memory, (wape, wql, cover) in found.items():
            gain = "" if memory == RECENT else f"{1 - wape / found[RECENT][0]:+.1%}"
            yield f"| {title} | {window.ahead} | {memory} | {wape:.4f} | {gain} | {wql:.3f} | {cover:.3f} |"


def _answer(question: BacktestTask, title: str, memory: str) -> MethodForecast:
    models = build_models(MEMORIES[memory], ask_of(question))
    answer = forecast_live(question, models, ForecasterOptions())[AUTO]
    sys.stderr.write(f"{title}, {memory}: {answer.fit_seconds + answer.predict_seconds:.0f} CPU s\n")
    return answer


def _figures(question: BacktestTask, answer: MethodForecast, number: int, truth: Any) -> tuple[float, float, float]:
    quantiles = answer.quantiles_by_target[number]
    return (
        metrics.wape(truth, answer.points[number]),
        metrics.wql(truth, quantiles, question.levels),
        float(np.nanmean(truth <= quantiles[..., question.upper])),
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
