"""Runs an orchestrator in a process of its own that can be killed anywhere: a program, and what tests need to drive it.

As a program it reads one job a line, forks a process for it (which may kill itself as `kill -9` would), and answers
with how that ended. Machines live in a file, as they live on when a real orchestrator dies.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import structlog
from desires import CONFIG, DESIRES, SHOP, VIP, Desire
from lasting import Killer, LastingHypervisors, LastingPool
from sqlalchemy import event
from weight_words import weight_words

from cpdb import (
    Communication,
    DestinationHealth,
    HealthReport,
    HealthStatus,
    InstallStatus,
    LiveCount,
    ObservedRecord,
    OutcomeKind,
    ReservationReport,
    Seconds,
    SplitReport,
    Standing,
    Store,
    open_store,
    split_key,
)
from orchestrator import Orchestrator, Scaling, Timing, decide
from orchestrator.plan import Plan
from orchestrator.proposal import Reason, Step
from orchestrator.world import World


@dataclass
class Job:
    """One life of an orchestrator: it wants `kind` at each of `times`, and dies at the `kill_at`th place (0: never)."""

    directory: Path
    kind: str
    times: list[Seconds]
    kill_at: int = 0

    def run(self) -> None:
        """Lives it; called in a process of its own."""
        store, beside = open_store(url(self.directory)), open_store(url(self.directory))
        killer = Killer(self.kill_at, self.directory / "places")
        inner = LastingHypervisors(self.directory / "machines", killer, self.kind)
        pool = LastingPool(self.directory / "pool", inner, self.kind)
        hypervisors = Scaling(inner, pool, store, CONFIG, Timing(background=False))
        _listen(store, killer)
        desire = DESIRES[self.kind]
        decide.plan = lambda context, _strategies: self._plan(desire, context.world, killer, beside)  # type: ignore[assignment]
        orchestrator = Orchestrator(CONFIG, store, hypervisors, lambda _from, _to: ())
        for now in self.times:
            the_rest_of_the_world(beside, now)
            orchestrator.observe(now)
            orchestrator.cycle(now)
        the_rest_of_the_world(beside, self.times[-1])
        if self._over(desire, orchestrator.world(self.times[-1]), beside):
            (self.directory / "reached").touch()

    def _over(self, desire: Desire, world: World, store: Store) -> bool:
        """The world shows it, or the journal where nothing measures it."""
        done = any(one.kind == self.kind and one.outcome is OutcomeKind.DONE for one in store.journal.actions())
        return desire.shown(world) or (self.kind == "set_network_rate" and done)

    def _plan(self, desire: Desire, world: World, killer: Killer, store: Store) -> Plan:
        over = self._over(desire, world, store)
        killer.armed = not (over and not world.in_flight)
        if over:
            return Plan()
        return Plan((Step(desire.action, "wanted", Reason(), world.now, 1.0),))


def _listen(store: Store, killer: Killer) -> None:
    """Every transaction that writes is a place: before it, its process leaves nothing of it behind."""
    written = [""]

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):
            written[0] = " ".join(statement.split()[:3])

    event.listen(store.engine, "before_cursor_execute", note)
    event.listen(store.engine, "commit", lambda _connection: killer.pass_by(f"before {written[0]} is committed"))


def the_rest_of_the_world(store: Store, now: Seconds) -> None:
    """Traffic goes on, and a controller installs what is wanted, and probes who joins."""
    store.facts.add_communications([Communication(SHOP.source, SHOP.virtual_ip, "vm1", now, 1.0, 1_000, 10, 1)])
    made = InstallStatus.INSTALLED, "", now
    rows: list[ObservedRecord] = [
        ReservationReport(one.key, "leaf1", one.generation, *made) for one in store.wanted.reservations(now)
    ]
    rows += [
        SplitReport(split_key(one.from_switch, one.to_switch), "leaf1", one.generation, *made)
        for one in store.wanted.splits()
    ]
    for one in store.inventory.changes():
        rows.append(HealthReport(VIP, one.name, DestinationHealth(HealthStatus.UP, True), "", now))
        if one.standing is Standing.DRAINING:
            rows.append(LiveCount(VIP, one.name, 0, now))
    store.wanted.observe(rows + weight_words(store, now))


def url(directory: Path) -> str:
    return f"sqlite:///{directory / 'forepath.db'}"


class Stage:
    """The program below, driven from a test."""

    def __enter__(self) -> "Stage":
        argv = [sys.executable, __file__]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(10)
        self.process.stdout.close()  # type: ignore[union-attr]

    def live(self, job: Job) -> int:
        """How the job's process ended: 0, or -9 when it was killed. AssertionError for anything else."""
        words = {one.name: getattr(job, one.name) for one in fields(job)} | {"directory": str(job.directory)}
        print(json.dumps(words), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        assert answer["status"] in (0, -9), answer["error"]
        return int(answer["status"])


def serve(lines: Iterator[str]) -> None:
    """Forks once for each line of input."""
    for line in lines:
        words = json.loads(line)
        job = Job(**(words | {"directory": Path(words["directory"])}))
        complaint = job.directory / "error"
        child = os.fork()
        if child == 0:
            try:
                job.run()
            except BaseException as error:
                complaint.write_text(repr(error))
                raise
            finally:
                os._exit(1 if complaint.exists() else 0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        error_text = complaint.read_text() if complaint.exists() else ""
        print(json.dumps({"status": status, "error": error_text}), flush=True)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    serve(iter(sys.stdin.readline, ""))

__all__ = ["Job", "Stage", "url"]
