"""Commands that run the processes: predict, orchestrate, and run for all of them."""

import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

import orchestrator as orchestrator_room
import predictor as predictor_room
from cpdb import open_store
from forepath import processes
from forepath.inventory import declare
from forepath.output import SettingsOption, console
from forepath.settings import load
from forepath.supervisor import Supervisor

ActOption = Annotated[bool, typer.Option("--act", help="Act. Without it: advice only, nothing is touched")]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="predictive or reactive [default: settings]")]
RUN_DIRECTORY = Path(".run")


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set, so that loops end in order."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def predict(settings: SettingsOption = None) -> None:
    """Forecast from the database, each second, until interrupted.

    Examples:
        forepath predict
        forepath predict --settings lab.toml
    """
    effective = load(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    predictor_room.run(store, processes.predictor_config(effective), effective.predictor.cycle_s, stop_on_signals())
    store.close()


def orchestrate(settings: SettingsOption = None, act: ActOption = False, policy: PolicyOption = None) -> None:
    """Decide what should be prepared, each second, until interrupted; with --act, do it.

    Examples:
        forepath orchestrate
        forepath orchestrate --act --settings lab.toml
        forepath orchestrate --act --policy reactive
    """
    if policy not in (None, "predictive", "reactive"):
        raise typer.BadParameter("write predictive or reactive", param_hint="--policy")
    effective = load(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    config = processes.orchestrator_config(effective, act, policy)
    decider = processes.make_orchestrator(config, store, time.time)
    orchestrator_room.run(decider, effective.orchestrator.cycle_s, stop_on_signals())
    store.close()


def run(settings: SettingsOption = None, act: ActOption = False) -> None:
    """Run controller, predictor and orchestrator on this machine, and restart what falls.

    Logs go to .run/. Examples:
        forepath run
        forepath run --act --settings lab.toml
    """
    effective = load(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    store.close()
    started = processes.programs(effective, settings, RUN_DIRECTORY, act)
    mode = "acting" if act else "advice only; --act to act"
    console.print(f"{', '.join(one.name for one in started)}: running ({mode}); logs in {RUN_DIRECTORY}/; Ctrl-C ends")
    Supervisor(started, RUN_DIRECTORY).run(stop_on_signals())
