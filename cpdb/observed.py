"""What one process has seen, in the form in which the others read it: one small record a kind, its key, and its row."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

from cpdb.model import DestinationHealth, HealthStatus, Json, Seconds
from cpdb.observed_record import ObservedKind, ObservedRecord, ObservedRow

CONTROLLER, ORCHESTRATOR, PREDICTOR, REHEARSAL = "controller", "orchestrator", "predictor", "rehearsal"


class InstallStatus(StrEnum):
    """What became of something wanted; waiting: on its way, removed: no longer wanted."""

    INSTALLED = "installed"
    REFUSED = "refused"
    WAITING = "waiting"
    REMOVED = "removed"


def destination_key(virtual_ip: str, destination: str) -> str:
    """Key of what is observed of one destination of a virtual IP."""
    return f"{virtual_ip}/{destination}"


def split_key(from_switch: str, to_switch: str) -> str:
    """Key of what is observed of the paths from one switch to another."""
    return f"{from_switch}>{to_switch}"


@dataclass(frozen=True, slots=True)
class HealthReport(ObservedRecord):
    """How the controller finds a destination."""

    kind: ClassVar = ObservedKind.HEALTH
    virtual_ip: str
    destination: str
    health: DestinationHealth
    detail: str
    observed_at: Seconds = field(compare=False)

    @property
    def status(self) -> HealthStatus:
        """Up, down, frozen or unknown."""
        return self.health.status

    @property
    def key(self) -> str:
        """Virtual IP and destination."""
        return destination_key(self.virtual_ip, self.destination)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        body = {"answered": self.health.answered}
        return ObservedRow(self.kind, self.key, CONTROLLER, 0, self.status, self.detail, self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        virtual_ip, _, name = row.key.partition("/")
        health = DestinationHealth(HealthStatus(row.status), bool(row.body["answered"]))
        return cls(virtual_ip, name, health, row.detail, row.observed_at)


@dataclass(frozen=True, slots=True)
class SwitchReport(ObservedRecord):
    """What a switch calls itself and its ports, as it told when it connected; nobody vouches for either."""

    kind: ClassVar = ObservedKind.SWITCH
    dpid: int
    name: str
    ports: Mapping[int, str]
    observed_at: Seconds = field(compare=False)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        body = {"ports": {str(number): name for number, name in self.ports.items()}}
        return ObservedRow(self.kind, f"{self.dpid:#x}", CONTROLLER, 0, "connected", self.name, self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        ports = {int(number): str(name) for number, name in row.body["ports"].items()}
        return cls(int(row.key, 16), row.detail, ports, row.observed_at)


@dataclass(frozen=True, slots=True)
class LiveCount(ObservedRecord):
    """Connections, or sources with affinity "source", that a draining destination still has."""

    kind: ClassVar = ObservedKind.LIVE
    virtual_ip: str
    destination: str
    count: int
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """Virtual IP and destination."""
        return destination_key(self.virtual_ip, self.destination)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        detail = "connections or sources that it still has"
        return ObservedRow(
            self.kind, self.key, CONTROLLER, 0, "counted", detail, self.observed_at, {"count": self.count}
        )

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        virtual_ip, _, name = row.key.partition("/")
        return cls(virtual_ip, name, int(row.body["count"]), row.observed_at)


@dataclass(frozen=True, slots=True)
class MachineReport(ObservedRecord):
    """The state of a machine of a pool; `trouble` says why others come first for a while, "" when nothing does."""

    kind: ClassVar = ObservedKind.MACHINE
    vm: str
    host: str
    state: str
    trouble: str
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The machine."""
        return self.vm

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        return ObservedRow(self.kind, self.vm, self.host, 0, self.state, self.trouble, self.observed_at)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(row.key, row.node, row.status, row.detail, row.observed_at)


@dataclass(frozen=True, slots=True)
class RefreshReport(ObservedRecord):
    """How often a switch renews its counters."""

    kind: ClassVar = ObservedKind.REFRESH
    switch: str
    refresh_s: Seconds
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The switch."""
        return self.switch

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        detail, body = f"{self.refresh_s:.2f} s", {"refresh_s": self.refresh_s}
        return ObservedRow(self.kind, self.switch, self.switch, 0, "measured", detail, self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(row.key, float(row.body["refresh_s"]), row.observed_at)


@dataclass(frozen=True, slots=True)
class BlendReport(ObservedRecord):
    """How much say each model has in the forecasts of a tier: a mean over subjects and windows, 1 in all."""

    kind: ClassVar = ObservedKind.BLEND
    tier: str
    shares: dict[str, float]
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The tier."""
        return self.tier

    def describe(self) -> str:
        """Who has most say first; who has less than a hundredth is left out."""
        heard = sorted(((share, name) for name, share in self.shares.items() if share >= 0.01), reverse=True)
        return ", ".join(f"{name} {share:.0%}" for share, name in heard)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        body: Json = {"shares": self.shares}
        return ObservedRow(self.kind, self.tier, PREDICTOR, 0, "measured", self.describe(), self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(row.key, {name: float(share) for name, share in row.body["shares"].items()}, row.observed_at)


@dataclass(frozen=True, slots=True)
class ReplayedMinute:
    """A minute replayed without and with one kind of action: seconds short, cost, and core-seconds allotted."""

    at: Seconds
    short_s: Seconds
    spared_s: Seconds
    gain: float
    cores_s: float
    more_cores_s: float


@dataclass(frozen=True, slots=True)
class EvidenceReport(ObservedRecord):
    """What replays of recorded minutes say of one kind of action, the oldest minute first."""

    kind: ClassVar = ObservedKind.EVIDENCE
    action: str
    minutes: tuple[ReplayedMinute, ...]
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The kind of action."""
        return self.action

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        detail, body = f"{len(self.minutes)} minutes", {"minutes": [list(astuple(one)) for one in self.minutes]}
        return ObservedRow(self.kind, self.action, REHEARSAL, 0, "replayed", detail, self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        minutes = (ReplayedMinute(*map(float, one)) for one in row.body["minutes"])
        return cls(row.key, tuple(minutes), row.observed_at)


@dataclass(frozen=True, slots=True)
class OnsetReport(ObservedRecord):
    """A link whose foreseen shortage did not come in time; since then `in_time` of them in a row have."""

    kind: ClassVar = ObservedKind.ONSET
    link: str
    in_time: int
    observed_at: Seconds = field(compare=False)

    @property
    def key(self) -> str:
        """The link, in its direction."""
        return self.link

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        detail, body = f"{self.in_time} in time since", {"in_time": self.in_time}
        return ObservedRow(self.kind, self.link, ORCHESTRATOR, 0, "untimely", detail, self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(row.key, int(row.body["in_time"]), row.observed_at)


@dataclass(frozen=True, slots=True)
class InstallReport(ObservedRecord):
    """What a switch (or the controller, for weights) made of something wanted, by the generation that it knows."""

    kind: ClassVar[ObservedKind]
    key: str
    node: str
    generation: int
    status: InstallStatus
    detail: str
    observed_at: Seconds = field(compare=False)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        return ObservedRow(self.kind, self.key, self.node, self.generation, self.status, self.detail, self.observed_at)

    def removed(self, detail: str, now: Seconds) -> Self:
        """The last word, once nobody wants it any more."""
        return replace(self, status=InstallStatus.REMOVED, detail=detail, observed_at=now)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        status = InstallStatus(row.status)
        return cls(row.key, row.node, row.generation, status, row.detail, row.observed_at)


class ReservationReport(InstallReport):
    """What a switch made of a reservation; `key` is the reservation's."""

    __slots__ = ()
    kind: ClassVar = ObservedKind.RESERVATION


class SplitReport(InstallReport):
    """What became of a wanted split; `key` is that of `split_key`."""

    __slots__ = ()
    kind: ClassVar = ObservedKind.SPLIT


class WeightsReport(InstallReport):
    """Whether new connections follow the weights wanted for a virtual IP, which is the `key`."""

    __slots__ = ()
    kind: ClassVar = ObservedKind.WEIGHTS


@dataclass(frozen=True, slots=True)
class EventCount(ObservedRecord):
    """How often something went wrong since the controller started, by kind and reason."""

    kind: ObservedKind
    key: str
    count: int
    observed_at: Seconds = field(compare=False)

    def to_row(self) -> ObservedRow:
        """As it is stored."""
        body = {"count": self.count}
        return ObservedRow(self.kind, self.key, CONTROLLER, 0, "counted", str(self.count), self.observed_at, body)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(ObservedKind(row.kind), row.key, int(row.body["count"]), row.observed_at)


@dataclass(frozen=True, slots=True)
class Withdrawal(ObservedRecord):
    """Takes back what was observed of something that is gone."""

    kind: ObservedKind
    key: str
    node: str
    observed_at: Seconds = field(compare=False)

    def to_row(self) -> ObservedRow:
        """The row whose place becomes free."""
        return ObservedRow(self.kind, self.key, self.node, 0, "withdrawn", "", self.observed_at)

    @classmethod
    def from_row(cls, row: ObservedRow) -> Self:
        """The inverse of `to_row`."""
        return cls(ObservedKind(row.kind), row.key, row.node, row.observed_at)


_RECORDS: Mapping[str, type[ObservedRecord]] = {
    record.kind: record
    for record in (
        BlendReport,
        EvidenceReport,
        HealthReport,
        LiveCount,
        MachineReport,
        OnsetReport,
        RefreshReport,
        ReservationReport,
        SplitReport,
        SwitchReport,
        WeightsReport,
    )
}


def read_row(row: ObservedRow) -> ObservedRecord:
    """The record of a row of a known kind."""
    return _RECORDS.get(row.kind, EventCount).from_row(row)


def kinds_of(record: type[ObservedRecord]) -> tuple[str, ...]:
    """The kinds under which records of a type are stored."""
    own = tuple(kind for kind, known in _RECORDS.items() if issubclass(known, record))
    return own or tuple(kind for kind in ObservedKind if kind not in _RECORDS)


def show_record(record: ObservedRecord) -> dict[str, Any]:
    """A record as people read it: its row."""
    return asdict(record.to_row())


def read_health(records: Iterable[ObservedRecord]) -> dict[str, dict[str, DestinationHealth]]:
    """Virtual IP -> destination -> what the controller knows of it; nothing of those of which it has not told."""
    health: dict[str, dict[str, DestinationHealth]] = {}
    for record in records:
        if isinstance(record, HealthReport):
            health.setdefault(record.virtual_ip, {})[record.destination] = record.health
    return health
