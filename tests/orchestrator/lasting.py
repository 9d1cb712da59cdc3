"""Fake hypervisors and pool machines that live in files, as real ones live on when an orchestrator is killed."""

import os
import pickle
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from desires import HOSTS, MIB, WEB2, at_first

from cpdb import HostLoad, Seconds, VmLoad
from orchestrator import KINDS, FakeHypervisors, FakePool, FakeVm, Finished, PoolMember, PoolSpec
from orchestrator.actions import MachineAction

KEPT_ELSEWHERE = ("hosts", "work", "latencies_s", "hypervisors", "_ended")


@dataclass(slots=True)
class Killer:
    """Counts the places where a process may be killed, and kills it at the one that was asked for."""

    at: int
    into: Path
    count: int = 0
    armed: bool = False

    def pass_by(self, place: str) -> None:
        if not self.armed:
            return
        self.count += 1
        with self.into.open("a") as log:
            log.write(f"{place}\n")
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def read(into: Any, path: Path) -> None:
    if path.exists():
        for name, value in pickle.loads(path.read_bytes()).items():
            setattr(into, name, value)


def write(what: Any, kind: type, path: Path) -> None:
    kept: Mapping[str, Any] = {
        one.name: getattr(what, one.name) for one in fields(kind) if one.name not in KEPT_ELSEWHERE
    }
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(kept))
    new.replace(path)


class LastingHypervisors(FakeHypervisors):
    """What one process began goes on without it, but only that process hears the end."""

    def __init__(self, path: Path, killer: Killer, kind: str = "") -> None:
        machines = {"vm1": FakeVm("vm1", "hA", 0.5, 1, 2, 256 * MIB)}
        if at_first(kind) == "running":
            machines["web2"] = FakeVm("web2", WEB2.host, 1.0, 1, 1, 128 * MIB)
        super().__init__({one.name: one for one in HOSTS}, machines, _idle)
        self.latencies_s = dict.fromkeys(KINDS, 0.6)
        self.path = path
        self.killer = killer
        self.own: set[int] = set()
        self.own_ended: list[Finished] = []
        read(self, path)

    def save(self) -> None:
        write(self, FakeHypervisors, self.path)

    def start(self, number: int, action: MachineAction, now: Seconds) -> None:
        read(self, self.path)
        if any(waiting[2].kind == action.kind for waiting in self._waiting):
            raise AssertionError(f"{action.describe()}: begun while the same is under way")
        self.killer.pass_by(f"before {action.kind} begins")
        super().start(number, action, now)
        self.save()
        self.own.add(number)
        self.killer.pass_by(f"after {action.kind} has begun")

    def follow(self, number: int, action: MachineAction, now: Seconds) -> bool:
        self._settle(now)
        self.own.add(number)
        return super().follow(number, action, now)

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        self._settle(now)
        return super().loads(now)

    def finished(self, now: Seconds) -> list[Finished]:
        self._settle(now)
        found, self.own_ended = self.own_ended, []
        for one in found:
            self.killer.pass_by(f"{one.number} ended, and nobody was told")
        return found

    def _settle(self, now: Seconds) -> None:
        read(self, self.path)
        self.own_ended += [one for one in super().finished(now) if one.number in self.own]
        self.save()


class LastingPool(FakePool):
    """The pool's machine web2; waking it and laying it to rest are places."""

    def __init__(self, path: Path, hypervisors: LastingHypervisors, kind: str) -> None:
        super().__init__(hypervisors, {"web2": at_first(kind)})
        self.lasting = hypervisors
        self.path = path
        read(self, path)

    def wake(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> None:
        self._around("wake", lambda: super(LastingPool, self).wake(pool, member, now))

    def rest(self, pool: PoolSpec, member: PoolMember, how: Any, now: Seconds) -> None:
        self._around("rest", lambda: super(LastingPool, self).rest(pool, member, how, now))

    def _around(self, name: str, call: Any) -> None:
        read(self.lasting, self.lasting.path)
        self.lasting.killer.pass_by(f"before {name}")
        call()
        write(self, FakePool, self.path)
        self.lasting.save()
        self.lasting.killer.pass_by(f"after {name}")


def _idle(_vm: str, _now: Seconds) -> float:
    return 0.1


__all__ = ["Killer", "LastingHypervisors", "LastingPool", "Sequence"]
