"""Commands that run the processes: predict, orchestrate, and run for all of them."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog
import typer

import orchestrator as orchestrator_room
import predictor as predictor_room
from cpdb import (
    ALIVE,
    READY,
    Figures,
    ForepathError,
    RetentionPolicy,
    SettingsError,
    Store,
    StoreForbidden,
    notify_systemd,
    open_store,
    serving_metrics,
)
from forepath import processes
from forepath.commands.pause import pause_warnings, stop_file
from forepath.listening import address_problem, open_doors, page_files, page_url
from forepath.metrics.loops import LOADED, RESTARTS, RUNNING, OrchestratorTally, PredictorTally
from forepath.metrics.stored import StoredFigures
from forepath.output import JsonOption, SettingsOption, console, emit
from forepath.settings import Settings, declare, load_settings
from forepath.supervisor import Supervisor, reload_on_hangup, stop_on_signals
from ryu_apps import listen_problem

ActOption = Annotated[
    bool, typer.Option("--act", help="Act. Without it: as [orchestrator] act says, which is advice by default")
]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="predictive or reactive [default: settings]")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes of this machine that share the pairs [settings: 1]")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Dask scheduler whose workers share the pairs, e.g. tcp://HOST:8786")
]
MODES = {True: "acting", False: "advice only; --act to act", "earned": "acting where that is measured to pay"}
RUN_DIRECTORY = Path(".run")
RETAIN_EVERY_S = 5.0
RETAIN_BUDGET_S = 2.0

log = structlog.get_logger(__name__)


def predict(
    settings: SettingsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    json: JsonOption = None,
) -> None:
    """Forecast from the database, each second, until interrupted; --json sums the run up at its end.

    With --workers or --scheduler pairs are shared out to workers of Dask Distributed, which forepath[scale] brings.
    Examples:
        forepath predict
        forepath predict --settings lab.toml --json summary.json
        forepath predict --workers 4
        forepath predict --scheduler tls://10.0.0.5:8786
    """  # fmt: skip
    stop, began_at = stop_on_signals(), time.time()
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    with contextlib.suppress(StoreForbidden):
        # Whose role only learns and forecasts leaves that to the others.
        declare(effective, store)
    config = processes.predictor_config(effective, workers, scheduler)
    tally = PredictorTally()
    notify_systemd(READY)

    def told(report: predictor_room.PredictorReport | None) -> None:
        notify_systemd(ALIVE)
        tally.add(report, time.time())

    with serving_metrics(effective.metrics, "predictor", tally.figures):
        failed = predictor_room.run(store, config, config.cycle_s, stop, told)
    store.close()
    emit({"command": "predict", "began_at": began_at, "ended_at": time.time(), "failed_cycles": failed}, json)


def orchestrate(
    settings: SettingsOption = None, act: ActOption = False, policy: PolicyOption = None, json: JsonOption = None
) -> None:
    """Decide what should be prepared, each second, until interrupted; with --act, do it. --json sums up at the end.

    Examples:
        forepath orchestrate
        forepath orchestrate --act --settings lab.toml
        forepath orchestrate --act --policy reactive
    """
    if policy not in (None, "predictive", "reactive"):
        raise typer.BadParameter("write predictive or reactive", param_hint="--policy")
    stop, began_at = stop_on_signals(), time.time()
    effective = load_settings(settings)
    store = open_store(effective.database.url)
    declare(effective, store)
    config = processes.orchestrator_config(effective, act or None, policy)
    decider = processes.make_orchestrator(config, store, time.time)
    decider.keep_time(store.leases.now)
    count: Counter[str] = Counter(cycles=0, issued=0, advised=0)
    tally = OrchestratorTally(config.act)

    def told(report: orchestrator_room.CycleReport | None) -> None:
        notify_systemd(ALIVE)
        tally.add(report, decider.standings, time.time())
        if report is not None:
            count.update(cycles=1, issued=len(report.issued), advised=len(report.advised))

    notify_systemd(READY)
    with serving_metrics(effective.metrics, "orchestrator", tally.figures):
        failed = orchestrator_room.run(decider, config.timing.cycle_s, stop, told=told)
    store.close()
    summary = {"command": "orchestrate", "policy": config.policy, "act": config.act, "began_at": began_at}
    emit({**summary, "ended_at": time.time(), "failed_cycles": failed, **count}, json)


def run(settings: SettingsOption = None, act: ActOption = False, json: JsonOption = None) -> None:
    """Run controller, predictor, orchestrator and the page on this machine, and restart what falls.

    Logs go to .run/; --json sums the run up at its end. SIGHUP reads the settings again and restarts what they
    change, but never the controller; where standard input is a terminal it ends the run. Examples:
        forepath run
        forepath run --act --settings lab.toml
    """
    stop, began_at, effective = stop_on_signals(), time.time(), load_settings(settings)
    if problem := listen_problem(effective.controller.listen, effective.controller.port):
        raise ForepathError(problem)
    if not effective.tls.insecure and (doors := list(open_doors(effective))):
        raise SettingsError("\n".join(doors))
    store = open_store(effective.database.url)
    declare(effective, store)
    pause = store.pauses.in_force(began_at)
    store.close()
    unheard = address_problem(effective.web.listen) if effective.web.enabled else None
    started = processes.programs(settings, act, effective.web.enabled and unheard is None)
    started += processes.rehearsals(effective, settings, act)
    names = [one.name for one in started]
    if json != "-":
        warnings = [*open_doors(effective), *([f"the page is not served: {unheard}"] if unheard else [])]
        _announce(names, effective, act, [*pause_warnings(pause, stop_file(effective), began_at), *warnings])
    supervisor, wanted = Supervisor(started, RUN_DIRECTORY), reload_on_hangup()
    reloading = Reloading(effective, settings, supervisor)

    def reload() -> None:
        if wanted is not None and wanted.is_set():
            wanted.clear()
            reloading.reload()

    with telling(reloading), retaining(effective, stop):
        restarts = supervisor.run(stop, reload)
    summary = {"command": "run", "programs": names, "act": act or effective.orchestrator.act, "began_at": began_at}
    emit({**summary, "ended_at": time.time(), "restarts": restarts}, json)


def _announce(names: list[str], settings: Settings, act: bool, warnings: list[str]) -> None:
    for line in warnings:
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    listen = settings.web.listen
    mode = MODES[True if act else settings.orchestrator.act]
    where = f"; the page: {page_url(listen, secure=page_files(settings, listen) is not None)}" if "web" in names else ""
    console.print(f"{', '.join(names)}: running ({mode}); logs in {RUN_DIRECTORY}/{where}; Ctrl-C ends")


@dataclass(slots=True)
class Reloading:
    """The settings in force; what is new in the file is applied by difference, a bad file changes nothing."""

    settings: Settings
    file: Path | None
    supervisor: Supervisor
    sound: bool = True

    def reload(self) -> None:
        """Reads the file again; says in the log what became of it."""
        try:
            new = load_settings(self.file)
            changed = processes.changed_programs(self.settings, new)
            if new.database != self.settings.database:
                raise SettingsError("database: another one is used only after the next start of forepath run")
            processes.orchestrator_config(new, act=False)
            store = open_store(new.database.url)
            declare(new, store)
            store.close()
        except ForepathError as error:
            self.sound = False
            log.error("settings not reloaded, the old stay in force", reason=str(error))
            return
        # Switches would lose their connection; they go on with what they hold, but nobody would change it.
        if changed.pop("controller", None):
            log.warning("[controller] is read at the next start of forepath run")
        self.settings, self.sound = new, True
        self.supervisor.renew(list(changed))
        log.info("settings reloaded", renewed=sorted(changed))


def run_figures(reloading: Reloading) -> Figures:
    """What `forepath run` knows of its programs: whether they run, and by which settings."""
    return {
        LOADED: {(): reloading.sound},
        RUNNING: {(name,): up for name, up in reloading.supervisor.running.items()},
        RESTARTS: {(name,): count for name, count in reloading.supervisor.restarts.items()},
    }


def metrics(settings: SettingsOption = None) -> None:
    """Serve Prometheus what the database knows, until interrupted; `forepath run` does it by itself.

    Controller, predictor and orchestrator each serve their own figures on the ports before. Examples:
        forepath metrics
        forepath metrics --settings lab.toml
    """
    stop, effective = stop_on_signals(), load_settings(settings)
    store = open_store(effective.database.url, create=False)
    stored = StoredFigures(store, effective.metrics.top)
    with serving_metrics(effective.metrics, "metrics", stored.figures) as served:
        if not served:
            raise SettingsError("no metrics are served; set [metrics] port to one of four free ports in a row")
        notify_systemd(READY)
        stop.wait()
    store.close()


@contextmanager
def telling(reloading: Reloading) -> Iterator[None]:
    """Serves what the database and the supervisor know, for as long as the block lasts."""
    RUN_DIRECTORY.mkdir(parents=True, exist_ok=True)
    store = open_store(reloading.settings.database.url)
    stored = StoredFigures(store, reloading.settings.metrics.top)
    with serving_metrics(reloading.settings.metrics, "metrics", lambda: {**stored.figures(), **run_figures(reloading)}):
        yield
    store.close()


@contextmanager
def retaining(settings: Settings, stop: threading.Event) -> Iterator[None]:
    """Rolls up and forgets every few seconds until the block ends, which sets `stop`.

    A thread beside the supervisor, which has little else to do.
    """
    store = open_store(settings.database.url)
    keeper = threading.Thread(target=_retain, args=(store, settings.database.retention_policy(), stop), name="keeper")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        store.close()


def _retain(store: Store, rules: RetentionPolicy, stop: threading.Event) -> None:
    pause_s, failed = RETAIN_EVERY_S, 0
    while not stop.wait(pause_s):
        try:
            done = store.retain(time.time(), rules, RETAIN_BUDGET_S)
            pause_s = 0.1 if done.left else RETAIN_EVERY_S
        except ForepathError as error:
            log.warning("roll-up put off", reason=str(error))
            pause_s = RETAIN_EVERY_S
        except Exception:
            failed += 1
            log.exception("roll-up failed", failed=failed)
            pause_s = RETAIN_EVERY_S
