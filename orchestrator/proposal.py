"""What strategies answer with: steps with their reasons, and what was considered and refused, each with a code."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from cpdb import ActionRecord, ActionTiming, Json, Seconds, show_mebibytes, show_rate
from orchestrator.actions import Action
from orchestrator.config import NOW
from orchestrator.lead_times import NOWHERE, Circumstances, circumstances
from orchestrator.promises import Promise, promise_from_json
from orchestrator.world import LinkState, World


class RefusalCode(StrEnum):
    """Why something was not done; programs follow the code, people read the sentence beside it."""

    UNDER_WAY = "under_way"
    MOVES_AT_ONCE = "moves_at_once"
    TOO_SHORT = "too_short"
    TOO_LATE = "too_late"
    TOO_EARLY = "too_early"
    NOT_TRUSTED = "not_trusted"
    NO_ROOM = "no_room"
    NO_CANDIDATE = "no_candidate"
    NO_GAIN = "no_gain"
    EQUAL_PRIORITY = "equal_priority"
    STILL_NEEDED = "still_needed"
    DEARER = "dearer"
    UNTIMELY = "untimely"
    CEILING = "ceiling"
    STALE = "stale"
    STOPPED = "stopped"
    BUDGET = "budget"
    COOLDOWN = "cooldown"
    OSCILLATION = "oscillation"
    FAILED_LATELY = "failed_lately"
    TOO_LARGE = "too_large"
    CLOSED = "closed"


# These only say 'wait a moment': the journal and who asked need not be told.
WAITING = frozenset({RefusalCode.UNDER_WAY, RefusalCode.MOVES_AT_ONCE, RefusalCode.TOO_EARLY})


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an action may not be done just now."""

    code: RefusalCode
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was considered and not done; `action` is None when there was not even a candidate.

    `about` is the machine, host, link or service that it concerns, `subject` what was considered, for people; `lead_s`
    how long it would have taken, where that is known.
    """

    code: RefusalCode
    about: str
    subject: str
    why_not: str
    action: Action | None = None
    lead_s: Seconds | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        lead = {} if self.lead_s is None else {"lead_s": self.lead_s}
        subject = self.action.describe() if self.action else self.subject
        return {"action": subject, "why_not": self.why_not, "code": self.code.value, "about": self.about, **lead}


def refusal_from_json(body: Json) -> Refusal:
    """What `to_json` wrote; the action itself is not kept, and rows of older versions have no code."""
    code = RefusalCode(body.get("code", RefusalCode.DEARER.value))
    return Refusal(code, str(body.get("about", "")), body["action"], body["why_not"], lead_s=body.get("lead_s"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The forecast behind a need: quantiles of one quantity of one pair, and the level whose `value` counts.

    `trusted_s` is how far ahead such forecasts have held, `trust` are the numbers for or against it.
    """

    pair: str
    quantity: str
    model: str
    horizon_s: int
    level: float
    q50: float
    q90: float
    value: float
    issued_at: Seconds | None = None
    q05: float | None = None
    trusted_s: int | None = None
    trust: str = ""

    @property
    def doubt(self) -> str | None:
        """Why the forecast may not be planned on, None when it may: it speaks farther ahead than it is trusted."""
        if self.trusted_s is None or self.horizon_s <= self.trusted_s:
            return None
        return f"not trusted{(self.trusted_s and f' beyond {self.trusted_s} s') or ''}: {self.trust}"

    def describe(self, decided_at: Seconds) -> str:
        """The forecast for people, as it was when the action was decided."""
        number = number_of(self.quantity)
        age = "" if self.issued_at is None else f", {decided_at - self.issued_at:.1f} s old"
        trusted = f"; trusted {self.trusted_s} s ahead: {self.trust}" if self.trust else ""
        low = "" if self.q05 is None else f"5 % below {number(self.q05)}, "
        return (
            f"forecast: {self.pair} {self.quantity} within {self.horizon_s} s by {self.model}{age}: "
            f"median {number(self.q50)}, {low}90 % below {number(self.q90)}, "
            f"used {number(self.value)} (level {self.level:g}){trusted}"
        )


def evidence_from_json(body: Json | None) -> Evidence | None:
    """What was written as plain data; rows of the first versions lack some quantiles."""
    if not body:
        return None
    return Evidence(**{name: body[name] for name in Evidence.__dataclass_fields__ if name in body})


def number_of(quantity: str) -> Any:
    """How numbers of a quantity are written for people."""
    if quantity == "bytes":
        return show_mebibytes
    if quantity.startswith("bytes"):
        return show_rate
    unit = "cores" if quantity == "cores" else "connections/s"
    return lambda value: f"{value:.2f} {unit}"


@dataclass(frozen=True, slots=True)
class Reason:
    """The numbers behind a step: what is needed, available and there at most, `where`, in `unit`.

    `forecast` is the evidence, None when the need is measured; `facts` are what one strategy alone knows.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    need: float | None = None
    available: float | None = None
    capacity: float | None = None
    unit: str = ""
    measured: Mapping[str, float | None] = field(default_factory=dict)
    forecast: Evidence | None = None
    circumstances: Circumstances = NOWHERE
    alternatives: tuple[Refusal, ...] = ()
    promise: Promise | None = None
    facts: Json = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        numbers = {"need": self.need, "available": self.available, "capacity": self.capacity, "unit": self.unit}
        return {
            **self.facts,
            "where": dict(self.where),
            **{key: value for key, value in numbers.items() if value not in (None, "")},
            "measured": dict(self.measured),
            "forecast": asdict(self.forecast) if self.forecast else None,
            "circumstances": self.circumstances.to_json(),
            "alternatives": [refusal.to_json() for refusal in self.alternatives],
            "promise": self.promise.to_json() if self.promise else None,
        }


OWN_KEYS = frozenset(Reason.__dataclass_fields__)


def reason_from_json(body: Json) -> Reason:
    """The reason that `to_json` described."""
    return Reason(
        where=body.get("where", {}),
        need=body.get("need"),
        available=body.get("available"),
        capacity=body.get("capacity"),
        unit=body.get("unit", ""),
        measured=body.get("measured", {}),
        forecast=evidence_from_json(body.get("forecast")),
        circumstances=circumstances(body.get("circumstances") or {}),
        alternatives=tuple(refusal_from_json(row) for row in body.get("alternatives", ())),
        promise=promise_from_json(body.get("promise")),
        facts={key: value for key, value in body.items() if key not in OWN_KEYS},
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a plan. `renewal` prolongs what already stands; `waits` must follow an earlier step's end."""

    action: Action
    why: str
    reason: Reason
    needed_at: Seconds
    lead_s: Seconds
    renewal: bool = False
    waits: bool = False

    @property
    def about(self) -> frozenset[str]:
        """The machines, hosts, links and services that it concerns."""
        return frozenset({self.action.target, *self.reason.where.values()})


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one strategy would do, in the order in which it may be done, and what it refuses."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Step | Refusal]) -> "Proposal":
        """Steps and refusals as they were found."""
        items = list(found)
        steps = tuple(item for item in items if isinstance(item, Step))
        return cls(steps, tuple(item for item in items if isinstance(item, Refusal)))


def record(step: Step, policy: str, now: Seconds) -> ActionRecord:
    """The journal's row for a step that is about to be carried out."""
    return ActionRecord(
        kind=step.action.kind,
        target=step.action.target,
        body=step.action.to_json(),
        why=step.why,
        reason=step.reason.to_json(),
        policy=policy,
        issued_at=now,
        timing=ActionTiming(step.needed_at, step.lead_s),
    )


def on_host(world: World, host: str, size_bytes: int = 0) -> Circumstances:
    """Under what an action on a host is carried out: its load is the share of its cores in use."""
    spec = world.hosts.get(host)
    return Circumstances(host, size_bytes, world.used_on(host) / spec.cpu_cores_capacity if spec else None)


def on_link(link: LinkState) -> Circumstances:
    """The same for what is done for a link."""
    capacity = link.capacity_bytes_per_s
    return Circumstances(link.name, 0, link.bytes_per_s / capacity if capacity else None)


def when(horizon_s: int) -> str:
    """The horizon for people."""
    return "now" if horizon_s == NOW else f"within {horizon_s} s"


def known_by(horizon_s: int, proof: Evidence | None) -> str:
    """The horizon of a need and how it is known, for people; `proof`: the forecast of who leads, where there is one."""
    how = f"forecast by {proof.model}" if proof else "measured" if horizon_s == NOW else "what leads is measured"
    return f"{when(horizon_s)} ({how})"
