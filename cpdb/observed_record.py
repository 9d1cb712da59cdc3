"""What any observed record is: its kind, and the row as which it is stored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Self

from cpdb.model import Json, Seconds


class ObservedKind(StrEnum):
    """Kinds of observed state; those from ALARM on count what went wrong."""

    BLEND = "blend"
    EVIDENCE = "evidence"
    HEALTH = "health"
    LIVE = "live"
    MACHINE = "machine"
    REFRESH = "refresh"
    RESERVATION = "reservation"
    RULE = "rule"
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


@dataclass(frozen=True, slots=True)
class RuleReport(ObservedRecord):
    """A machine whose limit follows what is measured, and by how many core-seconds its forecasts were cheaper."""

    kind: ClassVar = ObservedKind.RULE
    vm: str
    lead_core_s: float
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The machine."""
        return self.vm

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        body: Json = {"lead_core_s": self.lead_core_s}
        return ObservedRow(self.kind, self.vm, "orchestrator", 0, "measured", "", self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(row.key, float(row.body["lead_core_s"]), row.observed_at)
