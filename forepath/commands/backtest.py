"""`forepath backtest`: what forepath would have foreseen and done on a recording, judged as if each row were now."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cpdb import ForepathError
from forepath.output import EXIT_CODES, JsonOption, console, emit, errors, table, writable

app = typer.Typer(
    name="backtest",
    help="Replay a recording: what would forepath have foreseen, and how good was it?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
)
Say = Callable[[str, int, int], None]


@app.callback()
def group() -> None:
    """Replay a recording: what would forepath have foreseen, and how good was it?"""


def _rows(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        found = (0,)
    if any(one < 1 for one in found):
        raise typer.BadParameter(f"{text!r}: write whole numbers of rows from 1 on, for instance 1,3,6")
    return found


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@app.command()
def forecast(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".csv or .csv.gz: column t (seconds), then series")],
    step: Annotated[float, typer.Option("--step", metavar="SECONDS", help="Seconds from row to row")],
    horizons: Annotated[str, typer.Option("--horizons", help="Rows ahead, comma-separated")] = "1,3,6",
    train_fraction: Annotated[float, typer.Option("--train-fraction", help="Share of rows to learn from")] = 0.75,
    models: Annotated[str, typer.Option("--models", help="auto is what the live system would say")] = "auto",
    windows: Annotated[str, typer.Option("--windows", help="Means of so many next rows as well")] = "",
    exclude: Annotated[str, typer.Option("--exclude", help="Columns that are no series, e.g. oracle_mlu")] = "",
    series: Annotated[str, typer.Option("--series", help="Score these only, e.g. '*_avg'; others are inputs")] = "",
    season: Annotated[int | None, typer.Option("--season", help="Rows of a season [default: a day, or 60]")] = None,
    fit_budget: Annotated[float, typer.Option("--fit-budget", metavar="SECONDS", help="CPU time of one fit")] = 40.0,
    refit_every: Annotated[int, typer.Option("--refit-every", metavar="ROWS", help="Fit again; 0 = never")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Moves whatever is random in the models")] = 1,
    json: JsonOption = None,
    html: Annotated[str | None, typer.Option("--html", metavar="PATH", help="A page", callback=writable)] = None,
) -> None:
    """Forecast every test row from earlier rows only, and score it; blank cells are missing, never zero.

    Models: auto, naive, ewma, ewma_05, train_mean, seasonal_naive, arima, boosting, lstm, transformer.

    Examples:
        forepath backtest forecast traffic.csv --step 1
        forepath backtest forecast traffic.csv.gz --step 900 --horizons 1,3,6 --exclude oracle_mlu --json out.json
        forepath backtest forecast vms.csv.gz --step 300 --series '*_avg' --models auto,naive,boosting --html out.html
    """
    # Threads that wait by turning round in circles take the cores from each other as soon as others work here too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from backtest import BacktestPlan, backtest, forecast_page, read

    plan = BacktestPlan(
        _rows(horizons) or (1,), _rows(windows), train_fraction, _list(models), _list(series),
        season, fit_budget, refit_every, seed,
    )  # fmt: skip
    with _progress() as say:
        recording = read(file, step, _list(exclude), lambda rows: say("reading", rows, 0))
        outcome = backtest(recording, plan, say)
    if html is not None:
        _write(html, forecast_page(outcome.question, outcome.report, outcome.answers))
    if not emit(outcome.report, json):
        _print(outcome.report)


@app.command()
def route(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".csv or .csv.gz: column t, then one a>b per pair")],
    topology: Annotated[Path, typer.Option("--topology", metavar="JSON", help="Links, capacities, paths of each pair")],
    train_fraction: Annotated[float, typer.Option("--train-fraction", help="Share of rows to learn from")] = 0.75,
    json: JsonOption = None,
    html: Annotated[str | None, typer.Option("--html", metavar="PATH", help="A page", callback=writable)] = None,
    splits: Annotated[
        str | None,
        typer.Option("--splits", metavar="PATH", help="What auto chose on each row, as JSON", callback=writable),
    ] = None,
) -> None:
    """Split the traffic of every test row from earlier rows only; compare with the best that was possible.

    JSON holds edges [[from, to, capacity], ...] and tunnels {"a-b": [[nodes], ...]} (null: the 4 shortest paths).
    Rows with a blank cell are neither learnt from nor scored.

    Examples:
        forepath backtest route matrices.csv.gz --topology net.json
        forepath backtest route matrices.csv --topology net.json --json out.json --splits splits.json --html out.html
    """
    from backtest import read_matrices, route_page, splits_document
    from backtest import route as replay

    with _progress() as say:
        given = read_matrices(file, topology)
        outcome = replay(given, train_fraction, say)
    report = dict(outcome.report)
    if splits is not None:
        emit(splits_document(given, outcome), splits)
        report["splits_file"] = splits
    if html is not None:
        _write(html, route_page(outcome))
    if not emit(report, json):
        _print_routes(report)


def _print_routes(report: dict[str, Any]) -> None:
    keys = ("mean", "p50", "p95", "p99", "share_above_2", "churn", "seconds_per_decision")
    rows = [(name, *(_cell(one[key]) for key in keys)) for name, one in report["strategies"].items()]
    heading = f"maximum link utilisation over the best possible, {report['snapshots']} rows"
    columns = ["strategy", "mean", "p50", "p95", "p99", "above 2", "churn", "CPU s a decision"]
    console.print(table(heading, columns, rows))


@contextmanager
def _progress() -> Iterator[Say]:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def say(doing: str, done: int, of: int) -> None:
            bar.update(task, description=doing, completed=done, total=of or None)

        yield say


def _write(target: str, text: str) -> None:
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ForepathError(f"--html {target}: {error.strerror}; name a file that can be written") from error


def _print(report: dict[str, Any]) -> None:
    for kind, title in (("horizons", "{} rows ahead"), ("windows", "mean of the next {} rows")):
        for at, best in report["best_simple"][kind].items():
            rows = [
                (name, *(_cell(one[kind][at].get(key)) for key in ("wape", "skill", "wql", "coverage_q90")))
                for name, one in report["models"].items()
            ]
            heading = f"{title.format(at)}; best simple method: {best['model']}"
            console.print(table(heading, ["model", "WAPE", "skill", "wQL", "q90 coverage"], rows))


def _cell(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


@app.command()
def machines(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".csv or .csv.gz: column t (seconds), then usage")],
    step: Annotated[float, typer.Option("--step", metavar="SECONDS", help="Seconds from row to row")],
    threshold: Annotated[float, typer.Option("--threshold", help="Usage that counts as overload")] = 80.0,
    most: Annotated[float, typer.Option("--most", help="Usage of a machine that is full")] = 100.0,
    ahead: Annotated[int, typer.Option("--ahead", metavar="ROWS", min=1, help="Rows to look ahead")] = 6,
    train_fraction: Annotated[
        float, typer.Option("--train-fraction", min=0.1, max=0.95, help="Share to learn from")
    ] = 0.75,
    series: Annotated[str, typer.Option("--series", help="Only these columns, e.g. '*_max'")] = "",
    models: Annotated[str, typer.Option("--models", help="Forecasters to blend [default: the live system's]")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Moves whatever is random in the models")] = 1,
    json: JsonOption = None,
) -> None:
    """Warn of overload and set limits, from earlier rows only: how right, how early, how much idle or throttled.

    Alarm levels are set on train rows for equal rates of false alarms; what the test rows made of them is shown.

    Examples:
        forepath backtest machines vms.csv.gz --step 300 --series '*_max'
        forepath backtest machines hosts.csv --step 60 --threshold 28 --most 32 --ahead 10 --json out.json
    """
    from backtest import MachinePlan, read, replay_machines

    plan = MachinePlan(threshold, most, ahead, train_fraction, _list(series), seed=seed)
    if models:
        plan = MachinePlan(threshold, most, ahead, train_fraction, _list(series), _list(models), seed)
    with _progress() as say:
        recording = read(file, step, say=lambda rows: say("reading", rows, 0))
        report = replay_machines(recording, plan, say)
    if not emit(report, json):
        _print_machines(report)


def _print_machines(report: dict[str, Any]) -> None:
    rates = list(next(iter(report["alarms"].values())))
    for rate in rates:
        rows = [
            (
                name,
                f"{one[rate]['true_positive_rate']:.3f}",
                f"{one[rate]['false_positive_rate']:.3f}",
                f"{one[rate]['precision']:.3f}",
                f"{one[rate]['early_share']:.1%}",
                f"{one[rate]['median_lead_rows']:.0f}",
            )
            for name, one in report["alarms"].items()
        ]
        heading = f"alarms at a level that gave {float(rate):.0%} false alarms on train rows"
        columns = ["rule", "true positive", "false positive", "precision", "onsets warned of", "rows ahead"]
        console.print(table(heading, columns, rows), "")
    limits = [(name, f"{one['slack']:.3f}", f"{one['throttle_rate']:.4f}") for name, one in report["limits"].items()]
    console.print(table("limits", ["rule", "slack", "throttle rate"], limits))
