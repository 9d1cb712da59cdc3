"""What the replay is given and what it returns: offered load, the scene it falls on, and one policy's run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cpdb import Link, Node, Pair, Seconds, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class ReplayPolicy(StrEnum):
    """Who decides: nobody, the live policies, or the live planner with the true future for a forecast."""

    STATIC = "static"
    REACTIVE = "reactive"
    PREDICTIVE = "predictive"
    ORACLE = "oracle"


class EventKind(StrEnum):
    """What happens to the scene itself, beside the load."""

    HOST_LOST = "host_lost"
    LINK_LOST = "link_lost"
    MIGRATIONS_FAIL = "migrations_fail"
    TELEMETRY_LATE = "telemetry_late"
    FORECASTS_MISSING = "forecasts_missing"


@dataclass(frozen=True, slots=True)
class SceneEvent:
    """From `start_s` to `end_s` (seconds from the first row) `name` (a host, or a link `a>b`) is in that state."""

    kind: EventKind
    start_s: Seconds
    end_s: Seconds
    name: str = ""


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """What is asked for in each second, whatever becomes of it; row t is about [t, t + 1).

    `bytes_per_s` and `connections_per_s` have shape (seconds, pairs), `cores` (seconds, machines): the CPU that a
    machine wants beside its requests. `known` (seconds,) is False where the recording has a gap: such seconds are
    played with nothing offered and not judged. `left_out` names what of the recording could not be used;
    `lower_bound` says that the recorded load was itself held back, so that more may have been wanted. `streams` are
    pairs that neither yield to others nor wait: what is not carried at once is lost.
    """

    pairs: tuple[Pair, ...]
    bytes_per_s: Floats
    connections_per_s: Floats
    vms: tuple[str, ...]
    cores: Floats
    known: Flags
    events: tuple[SceneEvent, ...] = ()
    left_out: tuple[str, ...] = ()
    lower_bound: bool = False
    streams: frozenset[Pair] = frozenset()

    @property
    def seconds(self) -> int:
        return len(self.known)


@dataclass(frozen=True, slots=True)
class RequestCost:
    """CPU that serving takes: milliseconds of one core for a connection, and for each 10^6 bytes."""

    cpu_ms_per_connection: float = 0.0
    cpu_ms_per_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplayScene:
    """The network and machines of a settings file, and how forepath is set there; `host_of` is where machines start.

    `costs` are by machine. `durations_s` are those of a recorded journal's actions by kind, of which each action's is
    drawn; a kind without any takes about as long as in the lab. `streams` are virtual IPs whose pairs do not
    yield or wait.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    virtual_ips: tuple[VirtualIp, ...]
    hosts: tuple[HostSpec, ...]
    vms: tuple[VmSpec, ...]
    host_of: Mapping[str, str]
    costs: Mapping[str, RequestCost]
    orchestrator: OrchestratorConfig
    predictor: PredictorConfig
    durations_s: Mapping[str, tuple[Seconds, ...]] = field(default_factory=dict)
    streams: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ObjectSeries:
    """Need, allowance and use of objects of one kind, each of shape (seconds, objects); units as in the timeline.

    `where` names a machine's host or a pair's destination each second, as indices into `places`; -1 is none of them.
    """

    names: tuple[str, ...]
    need: Floats
    allowed: Floats
    used: Floats
    where: NDArray[np.int32] | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DoneAction:
    """One action of a run: when it was decided (seconds from the first row), what became of it, what it cost.

    `copied_bytes` went over a narrowest link of `link_bytes_per_s`; for `pause_s` the machine stood still while it
    needed `cores_meanwhile`. `code` is the refusal's, "" for what was done; `needed` is the verdict, None when unknown.
    """

    t: Seconds
    kind: str
    target: str
    sentence: str
    code: str = ""
    needed: bool | None = None
    copied_bytes: float = 0.0
    link_bytes_per_s: float = 1.0
    pause_s: Seconds = 0.0
    cores_meanwhile: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """What one policy made of a load; every series covers all seconds, judged or not.

    `delivered_bytes` are (seconds, pairs); `latency_s` are their delays, means of a second.
    """

    policy: ReplayPolicy
    vms: ObjectSeries
    pairs: ObjectSeries
    links: ObjectSeries
    hosts: ObjectSeries
    delivered_bytes: Floats
    latency_s: Floats
    actions: tuple[DoneAction, ...] = field(default_factory=tuple)
