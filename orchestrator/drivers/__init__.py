"""The hypervisors as the orchestrator sees them: one protocol, a real driver and a fake that behaves."""

from dataclasses import dataclass
from typing import Protocol

from cpdb import HostLoad, Seconds, VmLoad
from orchestrator.actions import VmAction


@dataclass(frozen=True, slots=True)
class Finished:
    """How an action ended: the number it was started with, one sentence, and since when it holds."""

    number: int
    ok: bool
    sentence: str
    ready_at: Seconds


class Hypervisors(Protocol):
    """Measures machines and changes them. Nothing here decides anything."""

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """Use since the last call, for hosts and machines that could be asked; never raises for a host that is away."""

    def start(self, number: int, action: VmAction, now: Seconds) -> None:
        """Begins an action and returns at once. Raises DriverError when it cannot even begin."""

    def finished(self, now: Seconds) -> list[Finished]:
        """Every action that ended since the last call, each exactly once."""

    def close(self) -> None:
        """Waits for what is under way (bounded) and leaves nothing running."""


__all__ = ["Finished", "Hypervisors"]
