"""Hypervisors and pools of machines as the orchestrator sees them: protocols that a real driver and a fake fulfil."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cpdb import DriverError, HostLoad, OutcomeKind, Seconds, VmLoad
from orchestrator.actions import MachineAction, ScaleIn, ScaleOut, VmAction
from orchestrator.declared import How, PoolMember, PoolSpec


@dataclass(frozen=True, slots=True)
class Finished:
    """How an action ended: the number it was started with, one sentence, and since when it holds.

    `outcome` says it more exactly where done or failed is not the whole truth.
    """

    number: int
    ok: bool
    sentence: str
    ready_at: Seconds
    outcome: OutcomeKind | None = None


def change_of_one(action: MachineAction) -> VmAction:
    """The action, where it changes one running machine. Raises DriverError for what needs a pool."""
    if isinstance(action, ScaleOut | ScaleIn):
        raise DriverError(f"{action.describe()}: no pool is declared for {action.virtual_ip}; add it as [[pool]]")
    return action


class Hypervisors(Protocol):
    """Measures machines and changes them. Nothing here decides anything."""

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """Use since the last call, for hosts and machines that could be asked; never raises for a host that is away."""

    def start(self, number: int, action: MachineAction, now: Seconds) -> None:
        """Begins an action and returns at once. Raises DriverError when it cannot even begin."""

    def follow(self, number: int, action: MachineAction, now: Seconds) -> bool:
        """Takes over an action that a dead process began; never begins it anew.

        True: its end will be among the finished. False: nobody can follow it, the world will show what became of it.
        """

    def finished(self, now: Seconds) -> list[Finished]:
        """Every action that ended since the last call, each exactly once."""

    def close(self) -> None:
        """Waits for what is under way (bounded) and leaves nothing running."""


@dataclass(frozen=True, slots=True)
class SeenMachine:
    """Where a machine of a pool is, and whether it is running, paused, saved, off, or absent."""

    vm: str
    host: str
    state: str


class PoolMachines(Protocol):
    """Looks at machines of pools, wakes them and lays them to rest. Each call may be repeated at any time."""

    def seen(self, members: Iterable[PoolMember], now: Seconds) -> list[SeenMachine]:
        """The state of each member; those whose host cannot be asked are left out. Never raises for a host."""

    def wake(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> None:
        """Makes it run, from whatever state it is in; nothing when it runs. Raises DriverError."""

    def rest(self, pool: PoolSpec, member: PoolMember, how: How, now: Seconds) -> None:
        """Lays a running machine to rest; takes its leavings away when `how` is "image". Raises DriverError."""

    def answers(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> bool:
        """Whether the running machine answers the pool's probe; never raises."""

    def close(self) -> None:
        """Leaves nothing open."""
