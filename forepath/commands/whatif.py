"""`forepath whatif`: would it have helped here, what would it have cost, and may I let it act?"""

import csv
import gzip
import logging
import os
from collections.abc import Callable, Iterator, Sequence
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
OUT_HELP = "Every figure by second, as CSV"
FromOption = Annotated[float | None, typer.Option("--from", metavar="T", help=FROM_HELP)]
ToOption = Annotated[float | None, typer.Option("--to", metavar="T", help="End, not included; as --from")]
PoliciesOption = Annotated[str, typer.Option("--policies", help="Which, comma-separated")]
WarmUpOption = Annotated[float, typer.Option("--warm-up", min=0, help="Share that is not judged; from 1: seconds")]
ScenarioOption = Annotated[str | None, typer.Option("--scenario", metavar="NAME", help="Instead of a recording")]
ListOption = Annotated[bool, typer.Option("--list", help="Name the scenarios and end")]
OutOption = Annotated[str | None, typer.Option("--timeline", metavar="OUT.csv.gz", help=OUT_HELP, callback=writable)]
HtmlOption = Annotated[str | None, typer.Option("--html", metavar="OUT", help="A page", callback=writable)]


def whatif(
    recording: Annotated[str | None, typer.Argument(help="CSV, SQLite file or database URL")] = None,
    settings: SettingsOption = None,
    since: FromOption = None,
    until: ToOption = None,
    policies: PoliciesOption = ",".join(POLICIES),
    warm_up: WarmUpOption = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Of whatever is random")] = 1,
    scenario: ScenarioOption = None,
    list_scenarios: ListOption = False,
    json: JsonOption = None,
    timeline: OutOption = None,
    html: HtmlOption = None,
) -> None:
    """Replay a recording under several policies: would forepath have helped, and what would it have cost?

    Predictor, planner and guards are the live ones, all else is simulated. A CSV has t, SOURCE>VIP (bytes/s), and
    may have SOURCE>VIP:connections (1/s) and vm:NAME:cores. Exit codes: 1 the recording cannot be read or judged;
    2 wrong arguments; 3 wrong settings, or something that is needed is not declared; 4 the database is out of reach.

    Examples:
        forepath whatif load.csv --settings site.toml
        forepath whatif cpdb.db --from -3600 --html page.html --timeline seconds.csv.gz
        forepath whatif --scenario flash_crowd --seed 2 --json -
    """
    chosen = _policies(policies)
    if list_scenarios:
        _print_scenarios(json)
        return
    if (recording is None) == (scenario is None):
        raise typer.BadParameter("name a recording or --scenario NAME (see --list), one of them")
    with _progress() as step:
        task = _invented(scenario, seed) if scenario else _recorded(str(recording), settings, _span(since, until), step)
        found = _replayed(_judged(task, warm_up, seed), chosen, step)
        if timeline is not None:
            _write_timeline(timeline, found, step)
    if html is not None:
        _write_page(html, found)
    if not emit(found.document(), json):
        _print(found)


def _span(since: float | None, until: float | None) -> "TimeSpan":
    from backtest.whatif import TimeSpan

    return TimeSpan(since, until)


def _replayed(task: "ReplayTask", policies: "Sequence[ReplayPolicy]", step: Step) -> "Comparison":
    from backtest.whatif import compare_runs, replay

    # What the live planner says of each action is told by the actions themselves.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    runs = [replay(task.scene, task.load, policy, task.seed, partial(step, policy.value)) for policy in policies]
    return compare_runs(task, runs, lambda doing: step(doing, 0.0))


def _judged(task: "ReplayTask", warm_up: float, seed: int) -> "ReplayTask":
    from backtest.whatif import warm_up_seconds

    return replace(task, warm_up_s=warm_up_seconds(task.recording, task.load, warm_up), seed=seed)


def _policies(text: str) -> "tuple[ReplayPolicy, ...]":
    # A replay is one thread's work: others that wait by turning round in circles would only take cores from each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from backtest.whatif import ReplayPolicy

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= set(POLICIES):
        raise typer.BadParameter(f"{text!r}: write some of {','.join(POLICIES)}", param_hint="--policies")
    return tuple(ReplayPolicy(name) for name in POLICIES if name in names)


def _print_scenarios(json: str | None) -> None:
    from backtest.whatif import describe_scenarios

    scenarios = describe_scenarios()
    if not emit({"scenarios": dict(scenarios)}, json):
        for name, sentence in scenarios.items():
            console.print(f"{name}\n    {sentence}", soft_wrap=True, highlight=False, markup=False)


def _invented(name: str, seed: int) -> "ReplayTask":
    """A scenario of the library on its own scene."""
    from backtest.whatif import ReplayTask, describe_scenarios, make_scenario, scenario_scene

    if name not in describe_scenarios():
        raise typer.BadParameter(f"{name!r}: there is none of that name; see --list", param_hint="--scenario")
    return ReplayTask(f"scenario {name}, seed {seed}", "scenario", scenario_scene(), make_scenario(name, seed), 0)


def _recorded(recording: str, settings: Path | None, span: "TimeSpan", step: Step) -> "ReplayTask":
    """The load of a file or a database, on the scene of the settings file."""
    from backtest.whatif import ReplayTask, check_ways, read_load, recorded_durations, recorded_load

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
    check_ways(scene, load)
    return ReplayTask(shown, str(settings or DEFAULT_FILE), scene, load, 0)


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


def _write_page(target: str, found: "Comparison") -> None:
    from backtest.whatif import whatif_page

    try:
        Path(target).write_text(whatif_page(found), encoding="utf-8")
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
