"""`forepath whatif`: would it have helped here, what would it have cost, and may I let it act?"""

import csv
import gzip
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cpdb import ForepathError, open_store, without_password
from forepath.output import JsonOption, SettingsOption, console, emit, errors, table, writable
from forepath.processes import replay_scene
from forepath.settings import load_settings

if TYPE_CHECKING:
    from backtest.whatif import Comparison, ReplayPolicy, ReplayTask, TimeSpan

POLICIES = ("static", "reactive", "predictive", "oracle")
DEFAULT_FILE = "forepath.toml"
# Every SQLite file begins so.
SQLITE = b"SQLite format 3\0"
Step = Callable[[str, float], None]
FROM_HELP = "First second, in the recording's own time; below 0: before its end"


def whatif(
    recording: Annotated[
        str | None, typer.Argument(metavar="[RECORDING]", help="CSV, SQLite file or database URL")
    ] = None,
    settings: SettingsOption = None,
    since: Annotated[float | None, typer.Option("--from", metavar="T", help=FROM_HELP)] = None,
    until: Annotated[float | None, typer.Option("--to", metavar="T", help="End, not included; as --from")] = None,
    policies: Annotated[str, typer.Option("--policies", help="Which, comma-separated")] = ",".join(POLICIES),
    warm_up: Annotated[float, typer.Option("--warm-up", min=0, help="Share that is not judged; from 1: seconds")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Of whatever is random")] = 1,
    scenario: Annotated[str | None, typer.Option("--scenario", metavar="NAME", help="Instead of a recording")] = None,
    list_scenarios: Annotated[bool, typer.Option("--list", help="Name the scenarios and end")] = False,
    json: JsonOption = None,
    timeline: Annotated[
        str | None, typer.Option("--timeline", metavar="OUT.csv.gz", help="Every figure by second", callback=writable)
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="OUT", help="A page", callback=writable)] = None,
) -> None:
    """Replay a recording under several policies: would forepath have helped, and what would it have cost?

    Predictor, planner and guards are the live ones; switches and machines are simulated, and nothing is touched.
    A CSV has t (seconds), a column SOURCE>VIP (bytes/s) for each pair, and may have SOURCE>VIP:connections (new
    ones/s) and vm:NAME:cores (CPU beside requests), with the names of the settings file.

    Exit codes: 1 the recording cannot be read or judged; 2 wrong arguments; 3 wrong settings, or something that
    the replay needs is not declared there; 4 the database is unreachable or outdated.

    Examples:
        forepath whatif load.csv --settings site.toml
        forepath whatif cpdb.db --from -3600 --html page.html --timeline seconds.csv.gz
        forepath whatif --scenario flash_crowd --seed 2 --json -
        forepath whatif --list
    """
    # A replay is one thread's work: others that wait by turning round in circles would only take cores from each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = _policies(policies)
    from backtest.whatif import TimeSpan, compare_runs, describe_scenarios, replay, whatif_page

    if list_scenarios:
        _print_scenarios(describe_scenarios(), json)
        return
    if (recording is None) == (scenario is None):
        raise typer.BadParameter("name a recording or --scenario NAME (see --list), one of them")
    # What the live planner says of each action is told by the actions themselves.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with _progress() as step:
        if scenario is not None:
            task = _invented(scenario, seed, warm_up)
        else:
            task = _recorded(str(recording), settings, TimeSpan(since, until), warm_up, step)
            task = replace(task, seed=seed)
        runs = []
        for policy in chosen:
            runs.append(replay(task.scene, task.load, policy, seed, partial(step, policy.value)))
        found = compare_runs(task, runs, lambda doing: step(doing, 0.0))
        if timeline is not None:
            _write_timeline(timeline, found, step)
    if html is not None:
        _write(html, whatif_page(found))
    if not emit(found.document(), json):
        _print(found)


def _policies(text: str) -> "tuple[ReplayPolicy, ...]":
    from backtest.whatif import ReplayPolicy

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= set(POLICIES):
        raise typer.BadParameter(f"{text!r}: write some of {','.join(POLICIES)}", param_hint="--policies")
    return tuple(ReplayPolicy(name) for name in POLICIES if name in names)


def _print_scenarios(scenarios: Mapping[str, str], json: str | None) -> None:
    if not emit({"scenarios": dict(scenarios)}, json):
        for name, sentence in scenarios.items():
            console.print(f"{name}\n    {sentence}", soft_wrap=True, highlight=False, markup=False)


def _invented(name: str, seed: int, warm_up: float) -> "ReplayTask":
    """A scenario of the library on its own scene."""
    from backtest.whatif import ReplayTask, make_scenario, scenario_scene, warm_up_seconds

    load = make_scenario(name, seed)
    shown = f"scenario {name}, seed {seed}"
    return ReplayTask(shown, "scenario", scenario_scene(), load, warm_up_seconds(shown, load, warm_up), seed)


def _recorded(recording: str, settings: Path | None, span: "TimeSpan", warm_up: float, step: Step) -> "ReplayTask":
    """The load of a file or a database, on the scene of the settings file."""
    from backtest.whatif import ReplayTask, check_ways, read_load, recorded_durations, recorded_load, warm_up_seconds

    scene = replay_scene(load_settings(settings))
    told = partial(_told_rows, step)
    if (url := _database(recording)) is None:
        load = read_load(Path(recording), scene, span, told)
    else:
        store = open_store(url, create=False)
        try:
            load = recorded_load(store, scene, span, told)
            scene = replace(scene, durations_s=recorded_durations(store))
        finally:
            store.close()
    shown = without_password(recording) if "://" in recording else recording
    warm_up_s = warm_up_seconds(shown, load, warm_up)
    check_ways(scene, load)
    return ReplayTask(shown, str(settings or DEFAULT_FILE), scene, load, warm_up_s)


def _told_rows(step: Step, rows: int) -> None:
    step(f"reading {rows} rows", 0.0)


def _database(recording: str) -> str | None:
    """The URL of a database, given as such or as an SQLite file; None for anything else."""
    if "://" in recording:
        return recording
    path = Path(recording)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return f"sqlite:///{path}" if file.read(len(SQLITE)) == SQLITE else None


@contextmanager
def _progress() -> Iterator[Step]:
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)


def _write_timeline(target: str, found: "Comparison", step: Step) -> None:
    from backtest.whatif import TIMELINE_COLUMNS, timeline_rows

    step("writing the timeline", 0.0)
    opened = gzip.open if target.endswith(".gz") else open
    try:
        with opened(target, "wt", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(TIMELINE_COLUMNS)
            writer.writerows(timeline_rows(found))
    except OSError as error:
        raise ForepathError(f"--timeline {target}: {error.strerror}; name a file that can be written") from error


def _write(target: str, text: str) -> None:
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ForepathError(f"--html {target}: {error.strerror}; name a file that can be written") from error


def _print(found: "Comparison") -> None:
    """At most 80 columns: costs and shortages of each policy, then what follows from them."""
    document = found.document()
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{row['cost']:.5g}",
            f"{row['short_core_s']:.4g}",
            f"{row['idle_core_s']:.4g}",
            f"{row['short_link_s']:.4g}",
            f"{row['short_cpu_s']}/{row['short_bandwidth_s']}",
            f"{row['p95_latency_s']:.2f}",
            str(sum(kind["done"] for kind in row["actions"].values())),
        )
        for name, row in document["policies"].items()
    ]
    rows.append(("bound", f"{document['bound']['cost']:.5g}", "", "", "", "", "", ""))
    columns = ("policy", "cost", "cores short", "idle", "links short", "s CPU/link", "p95 s", "done")
    title = f"{Path(document['recording']).name}: {document['seconds']} s judged after {document['warm_up_s']} s"
    console.print(table(title, columns, rows))
    over = document["oracle_over_bound"]
    lines = [document["verdict"], *([f"The oracle costs {over:.3g} times the bound."] if over is not None else [])]
    if document["lower_bound"]:
        lines.append("What was recorded was held back in part: more may have been wanted, so this is a lower bound.")
    for line in [*lines, *(f"Recording: {note}." for note in document["left_out"])]:
        console.print(line, width=80, highlight=False, markup=False)
