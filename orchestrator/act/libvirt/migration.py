"""Carries one move out between two connected hosts and says how it ended, with the machine's true place."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from cpdb import MIB, BytesPerS, DriverError, Seconds
from orchestrator.act.libvirt.connections import Connections
from orchestrator.act.libvirt.domain import Domain, reported, until
from orchestrator.actions import MigrateVm
from orchestrator.declared import VmSpec

# libvirt's own code for "no limit" would be 0; a copy must leave something of any link, so it is never less than this.
LEAST_MIB_PER_S = 1
LOOK_EVERY_S = 0.1
# Rounds shrink by their ratio of writing to copying. One that is hardly smaller than the smallest before got nowhere.
STALLED_SHARE, STALLED_ROUNDS = 0.8, 2
# An estimate may be wrong by this factor before the copy is broken off; short ones have a minimum.
OVERRUN_FACTOR, OVERRUN_LEAST_S, UNESTIMATED_S = 3.0, 15.0, 30.0
# A hypervisor that lost its daemon for a moment is asked again for this long where the machine is.
FIND_S = 15.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How a machine may be copied: the share of the network, the time, and what else is allowed to make it end."""

    bytes_per_s: BytesPerS | None = None
    limit_s: Seconds = 30.0
    auto_converge: bool = False
    post_copy: bool = False


def overrun_s(limit_s: Seconds | None, expected_s: Seconds | None) -> Seconds:
    """When a copy is broken off: well after it should have ended, and never later than is allowed at all."""
    usual_s = UNESTIMATED_S if expected_s is None else max(OVERRUN_LEAST_S, OVERRUN_FACTOR * expected_s)
    return usual_s if limit_s is None else min(limit_s, usual_s)


@dataclass(frozen=True, slots=True)
class JobFigures:
    """A job's figures at one moment; `dirty_bytes_per_s` is known once a second round found anything."""

    rounds: int = 0
    remaining_bytes: int = 0
    sent_bytes: int = 0
    bytes_per_s: float = 0.0
    dirty_bytes_per_s: float | None = None
    downtime_s: Seconds | None = None

    @staticmethod
    def of(stats: Mapping[str, Any]) -> "JobFigures":
        """From `virDomainGetJobStats`."""
        pages, page = int(stats.get("memory_dirty_rate", 0)), int(stats.get("memory_page_size", 4096))
        rounds = int(stats.get("memory_iteration", 0))
        return JobFigures(
            rounds,
            int(stats.get("memory_remaining", 0)),
            int(stats.get("memory_processed", 0)),
            float(stats.get("memory_bps", 0)),
            float(pages * page) if rounds > 1 and pages else None,
            stats["downtime"] / 1000 if "downtime" in stats else None,
        )


class Order(Enum):
    """What is done about a copy under way."""

    GO_ON = "go on"
    SWITCH = "switch to post-copy"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class RoundHistory:
    """How the rounds went so far: what the present one began with, the least one began with, and how many stalled."""

    rounds: int = 0
    began_with: int = 0
    least: float = float("inf")
    stalled: int = 0
    switched: bool = False

    def seen(self, look: JobFigures) -> "RoundHistory":
        """After one more look. The first round copies everything and says nothing yet."""
        if look.rounds <= self.rounds:
            return replace(self, began_with=max(self.began_with, look.remaining_bytes))
        if self.rounds < 2:
            return replace(self, rounds=look.rounds, began_with=look.remaining_bytes)
        stalled = self.stalled + 1 if self.began_with > STALLED_SHARE * self.least else 0
        least = min(self.least, self.began_with)
        return RoundHistory(look.rounds, look.remaining_bytes, least, stalled, self.switched)


def ordered(course: RoundHistory, look: JobFigures, elapsed_s: Seconds, terms: Terms) -> tuple[Order, str]:
    """What to do now and why. After the switch to post-copy nothing can be taken back, so nothing is ordered."""
    if course.switched:
        return Order.GO_ON, ""
    if elapsed_s >= terms.limit_s:
        why = f"it took longer than {terms.limit_s:.0f} s ({look.remaining_bytes >> 20} MiB were left)"
    elif course.stalled >= STALLED_ROUNDS:
        why = _stalled(look)
        if terms.auto_converge and not terms.post_copy:
            return Order.GO_ON, ""  # the hypervisor slows the guest down, which takes many rounds
    else:
        return Order.GO_ON, ""
    return (Order.SWITCH if terms.post_copy else Order.ABORT), why


def _stalled(look: JobFigures) -> str:
    written, copied = (look.dirty_bytes_per_s or 0.0) / MIB, look.bytes_per_s / MIB
    left = f"{look.remaining_bytes >> 20} MiB are left in round {look.rounds}"
    return f"it does not converge: {left}, {written:.0f} MiB/s are written and {copied:.0f} MiB/s copied"


@dataclass(slots=True)
class Copying:
    """One migration under way. `run` and `follow` block until it has ended one way or the other."""

    domain: Domain
    terms: Terms
    clock: Callable[[], float] = time.monotonic
    last: JobFigures = field(default_factory=JobFigures)
    reason: str = ""
    switched_why: str = ""
    _course: RoundHistory = field(default_factory=RoundHistory)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, migration_uri: str) -> None:
        """Raises DriverError when it failed or was broken off; where the machine is then must be looked at."""
        watcher = threading.Thread(target=self._watch, name="migration-watch", daemon=True)
        watcher.start()
        try:
            with reported(f"{self.domain.name}: migration to {migration_uri}"):
                self.domain.raw.migrateToURI3(migration_uri, self._parameters(), self._flags())
        except DriverError as error:
            raise DriverError(f"broken off: {self.reason}" if self.reason else str(error)) from error
        finally:
            self._ended.set()
            watcher.join(5.0)

    def follow(self) -> None:
        """The same for a copy that another process began. Raises DriverError when it was broken off."""
        while stats := self._job():
            self._looked(stats, stats.get("time_elapsed", 0) / 1000)
            time.sleep(LOOK_EVERY_S)
        if self.reason:
            raise DriverError(f"broken off: {self.reason}")

    def _flags(self) -> int:
        import libvirt

        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE if self.terms.auto_converge else 0
        flags |= libvirt.VIR_MIGRATE_POSTCOPY if self.terms.post_copy else 0
        return int(flags)

    def _parameters(self) -> dict[str, Any]:
        import libvirt

        if self.terms.bytes_per_s is None:
            return {}
        return {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: max(LEAST_MIB_PER_S, int(self.terms.bytes_per_s / MIB))}

    def _watch(self) -> None:
        began = self.clock()
        while not self._ended.wait(LOOK_EVERY_S):
            self._looked(self._job(), self.clock() - began)

    def _job(self) -> Mapping[str, Any]:
        """The job's figures; empty when there is none, or its host does not answer: the time still counts."""
        import libvirt

        try:
            stats: dict[str, Any] = self.domain.raw.jobStats(0)
        except libvirt.libvirtError:
            return {}
        return stats if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE else {}

    def _looked(self, stats: Mapping[str, Any], elapsed_s: Seconds) -> None:
        if stats.get("memory_total"):
            self.last = JobFigures.of(stats)
            self._course = self._course.seen(self.last)
        order, why = ordered(self._course, self.last, elapsed_s, self.terms)
        if order is not Order.GO_ON and not self._ended.is_set():
            self._obey(order, why)

    def _obey(self, order: Order, why: str) -> None:
        """An order that cannot be carried out is given again at the next look."""
        with contextlib.suppress(DriverError):
            if order is Order.SWITCH:
                with reported(f"{self.domain.name}: switching to post-copy"):
                    self.domain.raw.migrateStartPostCopy(0)
                self.switched_why, self._course = why, replace(self._course, switched=True)
                return
            self.reason = why
            with reported(f"{self.domain.name}: aborting its migration"):
                self.domain.raw.abortJob()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What both hosts say about a machine after a migration; None: that host does not answer."""

    runs_there: bool | None
    runs_here: bool | None
    lost: bool = False


def whereabouts(here: Callable[[], Any], there: Callable[[], Any]) -> Whereabouts:
    """Asks both for their domain (each raises DriverError when its host does not answer, None: it has none)."""
    states: list[str | None] = []
    for ask in (there, here):
        try:
            states.append(_state(ask()))
        except DriverError:
            states.append(None)
    runs = [None if one is None else one == "running" for one in states]
    return Whereabouts(runs[0], runs[1], lost="lost" in states)


def _state(raw: Any) -> str:
    import libvirt

    if raw is None:
        return "absent"
    with reported("state after a migration"):
        state, reason = raw.state(0)[:2]
    if state == libvirt.VIR_DOMAIN_RUNNING:
        return "running"
    failed = state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED
    return "lost" if failed else "not running"


def settled(look: Callable[[], Whereabouts], limit_s: Seconds = FIND_S) -> Whereabouts:
    """Where it is, as soon as one of the hosts says that it runs there, or that it is lost."""
    found = [look()]

    def clear() -> bool:
        found[:] = [look()] if found[0].runs_there is not True and found[0].runs_here is not True else found
        return found[0].lost or found[0].runs_there is True or found[0].runs_here is True

    until(clear, limit_s, every_s=0.5)
    return found[0]


def figures(done: JobFigures, took_s: Seconds) -> str:
    """The outcome in numbers, for people."""
    stopped = "" if done.downtime_s is None else f", stopped for {1000 * done.downtime_s:.0f} ms"
    rounds = f"{done.rounds} round{'s' if done.rounds != 1 else ''}"
    return f"{took_s:.1f} s, {done.sent_bytes / 1e6:.0f} MB in {rounds}{stopped}"


LIMIT_TOLERANCE_CORES = 0.005


@dataclass(frozen=True, slots=True)
class Moved:
    """How a move ended. `dirty_bytes_per_s` is what the copy saw of the guest's writing, None when it was too short."""

    sentence: str
    dirty_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves machines by the settings: what each may be subjected to, and how long a copy may take at most."""

    connections: Connections
    limit_s: Seconds | None
    spec: Callable[[str], VmSpec | None]

    def move(self, action: MigrateVm) -> Moved:
        """Returns when the machine runs on its new host alone. Raises DriverError that says where it is otherwise."""
        destination = self.connections.hosts.get(action.after)
        if destination is None:
            raise DriverError(f"{action.after}: no such host in the settings")
        domain = self.connections.domain(action.before, action.vm)
        vcpus = domain.vcpus()
        limit = domain.limit_cores(vcpus)
        copying, began = Copying(domain, self._terms(action)), time.monotonic()
        problem = _problem(lambda: copying.run(destination.migration_uri))
        moved = self._ended(action, copying, problem, began)
        return replace(moved, sentence="; ".join([moved.sentence, *self._kept(action, limit, vcpus)]))

    def follow(self, action: MigrateVm) -> Moved:
        """Takes over a move that another process began and left: it ends by the same limits, and nothing is begun anew.

        Raises DriverError like `move`.
        """
        began, copying, problem = time.monotonic(), None, ""
        try:
            copying = Copying(self.connections.domain(action.before, action.vm), self._terms(action))
            problem = _problem(copying.follow)
        except DriverError as error:
            problem = str(error)  # it has left already, or its host does not answer
        moved = self._ended(action, copying, problem or "its copy ended unseen", began)
        return replace(moved, sentence=f"{moved.sentence}; followed after a restart of the orchestrator")

    def _ended(self, action: MigrateVm, copying: Copying | None, problem: str, began: float) -> Moved:
        place = settled(lambda: self._place(action))
        if place.runs_there is not True:
            raise DriverError(_failed(action, problem, place))
        seen = copying.last if copying else JobFigures()
        notes = [f"done: {action.describe()}; {figures(self._completed(action, seen), time.monotonic() - began)}"]
        if copying is not None and copying.switched_why:
            notes.append(f"switched to post-copy because {copying.switched_why}")
        return Moved("; ".join([*notes, *self._only_there(action)]), seen.dirty_bytes_per_s)

    def _terms(self, action: MigrateVm) -> Terms:
        spec = self.spec(action.vm)
        limit_s = overrun_s(self.limit_s, action.expected_s)
        if spec is None:
            return Terms(action.bytes_per_s, limit_s)
        return Terms(action.bytes_per_s, limit_s, spec.migration_auto_converge, spec.migration_post_copy)

    def _place(self, action: MigrateVm) -> Whereabouts:
        return whereabouts(
            lambda: self._lookup(action.before, action.vm), lambda: self._lookup(action.after, action.vm)
        )

    def _lookup(self, host: str, vm: str) -> Any:
        """The domain there, None when it has none. Raises DriverError when the host does not answer."""
        import libvirt

        connection = self.connections.of(host)
        with reported(f"{host}: looking for {vm}"):
            try:
                return connection.lookupByName(vm)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

    def _completed(self, action: MigrateVm, last: JobFigures) -> JobFigures:
        """The whole job's figures, which the new host keeps; what was seen last where it does not."""
        import libvirt

        try:
            domain = self.connections.domain(action.after, action.vm)
            with reported(f"{action.vm}: figures of its migration"):
                stats = domain.raw.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        except DriverError:
            return last
        return JobFigures.of(stats) if stats.get("memory_total") else last

    def _kept(self, action: MigrateVm, limit: float, vcpus: int) -> list[str]:
        """The CPU limit goes along; if it does not, it is set again."""
        try:
            keep_limit(self.connections.domain(action.after, action.vm), limit, vcpus)
        except DriverError as error:  # it has moved all the same
            return [f"its CPU limit could not be checked there: {error}"]
        return []

    def _only_there(self, action: MigrateVm) -> list[str]:
        """Defined once: a definition left behind could be started a second time."""
        try:
            left = self._lookup(action.before, action.vm)
            if left is None:
                return []
            with reported(f"{action.before}: removing what is left of {action.vm}"):
                if left.isActive():
                    return [f"{action.before} still shows it as well"]
                left.undefine()
        except DriverError as error:
            return [f"whether {action.before} forgot it is not known: {error}"]
        return [f"its definition left on {action.before} was removed"]


def _problem(copy: Callable[[], None]) -> str:
    try:
        copy()
    except DriverError as error:
        return str(error)
    return ""


def keep_limit(arrived: Domain, limit: float, vcpus: int) -> None:
    """Sets the limit in cores again where it got lost. Raises DriverError."""
    if limit < vcpus and abs(arrived.limit_cores(vcpus) - limit) > LIMIT_TOLERANCE_CORES:
        arrived.set_limit_cores(limit, vcpus)


def _failed(action: MigrateVm, problem: str, place: Whereabouts) -> str:
    why = problem or "the copy ended, but it does not run there"
    if place.lost:
        return f"{why}; {action.vm} is LOST: it stopped half-way in post-copy and cannot go on on either host"
    if place.runs_here:
        return f"{why}; {action.vm} still runs on {action.before}"
    here = "does not answer" if place.runs_here is None else "does not run it"
    there = "does not answer" if place.runs_there is None else "does not run it"
    return f"{why}; where {action.vm} runs is not clear: {action.before} {here}, {action.after} {there}"
