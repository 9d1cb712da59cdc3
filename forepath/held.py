"""Sets what is wanted beside what the switches say they hold: the exact state of each reservation."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cpdb import Observed, Reservation

KIND = "reservation"


class State(StrEnum):
    """What a switch has made of a reservation, or all of them together."""

    INSTALLED = "installed"
    REFUSED = "refused"
    WAITING = "not yet"


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation and the newest word of each switch that it concerns, by name."""

    reservation: Reservation
    switches: tuple[tuple[State, Observed], ...]

    @property
    def state(self) -> State:
        """Refused where any refused, installed where all hold the wanted generation."""
        states = {state for state, _ in self.switches}
        if State.REFUSED in states:
            return State.REFUSED
        return State.INSTALLED if states == {State.INSTALLED} else State.WAITING


def held(wanted: Iterable[Reservation], observed: Iterable[Observed]) -> list[Held]:
    """Each reservation, those that end first at the top, with its switches."""
    # What a switch no longer holds says nothing about the switches that the pair goes through now.
    rows = [one for one in observed if one.kind == KIND and one.status != "removed"]
    return [
        Held(item, tuple((_state(item, row), row) for row in rows if row.key == item.key))
        for item in sorted(wanted, key=lambda one: (one.expires_at, one.key))
    ]


def _state(item: Reservation, row: Observed) -> State:
    if row.generation < item.generation:
        return State.WAITING
    return State.INSTALLED if row.status == "installed" else State.REFUSED
