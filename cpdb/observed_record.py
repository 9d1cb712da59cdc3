"""What any observed record is: its kind, and the row as which it is stored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from cpdb.model import Json, Seconds


class ObservedKind(StrEnum):
    """Kinds of observed state; those from ALARM on count what went wrong."""

    BLEND = "blend"
    EVIDENCE = "evidence"
    HEALTH = "health"
    LIVE = "live"
    MACHINE = "machine"
    ONSET = "onset"
    REFRESH = "refresh"
    RESERVATION = "reservation"
    SPLIT = "split"
    SWITCH = "switch"
    WEIGHTS = "weights"
    ALARM = "alarm"
    FAILED = "failed"
    IMPLAUSIBLE = "implausible"
    LOST = "lost"
    REFUSED = "refused"
    SWITCH_ERROR = "switch error"


@dataclass(frozen=True, slots=True)
class ObservedRow:
    """A record as it is stored: one row for each (kind, key, node); `body` has what a word cannot say."""

    kind: str
    key: str
    node: str
    generation: int
    status: str
    detail: str
    observed_at: Seconds
    body: Json = field(default_factory=dict)


class ObservedRecord(ABC):
    """Something observed. Two records are equal when they say the same, whenever they said it."""

    __slots__ = ()

    @abstractmethod
    def to_row(self) -> ObservedRow:
        """As it is stored."""

    @classmethod
    @abstractmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`. Raises KeyError or ValueError for a row that it has not made."""
