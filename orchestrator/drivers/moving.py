"""Carries one move out between two connected hosts and says how it ended, with the machine's true place."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cpdb import DriverError, Seconds
from orchestrator.actions import MigrateVm
from orchestrator.config import VmSpec
from orchestrator.drivers.connections import Connections
from orchestrator.drivers.domain import Domain, reported
from orchestrator.drivers.migration import Copying, Look, Terms, Whereabouts, figures, overrun_s, settled, whereabouts

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
    limit_s: Seconds
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
        seen = copying.last if copying else Look()
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

    def _completed(self, action: MigrateVm, last: Look) -> Look:
        """The whole job's figures, which the new host keeps; what was seen last where it does not."""
        import libvirt

        try:
            domain = self.connections.domain(action.after, action.vm)
            with reported(f"{action.vm}: figures of its migration"):
                stats = domain.raw.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        except DriverError:
            return last
        return Look.of(stats) if stats.get("memory_total") else last

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
