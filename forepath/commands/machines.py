"""`forepath backtest machines`: alarms and limits for recorded machines, forepath's next to simple rules."""

from pathlib import Path
from typing import Annotated, Any

import typer

from forepath.commands.backtest import _list, _progress
from forepath.output import JsonOption, console, emit, table


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
        _print(report)


def _print(report: dict[str, Any]) -> None:
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
