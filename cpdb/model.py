"""The records that cross process borders: what the rooms say to one another through the database.

Times are Unix seconds (UTC, float). Rates are bytes per second, CPU is in cores, memory in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf, sqrt
from typing import Any

from cpdb.addresses import is_ipv6

Seconds = float
BytesPerS = float
Json = Mapping[str, Any]


class NodeKind(StrEnum):
    """What a node of the network is."""

    SWITCH = "switch"
    CLIENT = "client"
    HYPERVISOR = "hypervisor"
    VM = "vm"
    HOST = "host"


class Quantity(StrEnum):
    """What a forecast is about, always over the window (issued_at, issued_at + horizon_s]."""

    BYTES_PEAK = "bytes_per_s_peak"
    BYTES_MEAN = "bytes_per_s_mean"
    CONNECTIONS_PEAK = "connections_per_s_peak"
    CONNECTIONS_MEAN = "connections_per_s_mean"
    PACKETS_PEAK = "packets_per_s_peak"
    PACKETS_MEAN = "packets_per_s_mean"
    CPU_PEAK = "cpu_cores_peak"
    CPU_MEAN = "cpu_cores_mean"
    MEMORY_PEAK = "memory_bytes_peak"
    MEMORY_MEAN = "memory_bytes_mean"


class OutcomeKind(StrEnum):
    """How an action ended; `pending` until it has."""

    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    REVERTED = "reverted"
    NOT_REVERTED = "not_reverted"
    ADVISED = "advised"


@dataclass(frozen=True, slots=True)
class Pair:
    """A source node and the virtual IP that it talks to: the key of one communication pattern."""

    source: str
    virtual_ip: str

    def __str__(self) -> str:
        return f"{self.source}->{self.virtual_ip}" if self.virtual_ip else self.source


@dataclass(frozen=True, slots=True)
class Node:
    """A switch, client, hypervisor or VM; `attached_to`/`port` say where it was last seen.

    `address6` is of IPv6, beside one of IPv4.
    """

    name: str
    kind: NodeKind
    address: str | None = None
    mac: str | None = None
    dpid: int | None = None
    attached_to: str | None = None
    port: int | None = None
    last_seen: Seconds | None = None
    address6: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that it has."""
        return tuple(one for one in (self.address, self.address6) if one)

    def address_towards(self, virtual_ip: str) -> str | None:
        """The one that it speaks with to a virtual IP: that of the same family."""
        return next((one for one in self.addresses if is_ipv6(one) == is_ipv6(virtual_ip)), None)


@dataclass(frozen=True, slots=True)
class Link:
    """An undirected link; port 0 means 'not known' (an end that is no switch). Capacity holds in each direction."""

    a: str
    a_port: int
    b: str
    b_port: int
    capacity_bytes_per_s: BytesPerS | None
    up: bool = True
    declared: bool = False


class Standing(StrEnum):
    """Where a destination stands: joining gets nothing before its first probe, draining nothing new."""

    JOINING = "joining"
    SERVING = "serving"
    DRAINING = "draining"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Destination:
    """One of the alternative destinations behind a virtual IP; weight 0 keeps it on stand-by."""

    name: str
    address: str
    mac: str
    weight: int = 100
    standing: Standing = Standing.SERVING


class HealthStatus(StrEnum):
    """Whether a destination answers probes; unknown before the first verdict, frozen while its address is disputed."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class DestinationHealth:
    """What the controller knows of one destination; `answered`: it has answered since it is probed."""

    status: HealthStatus = HealthStatus.UNKNOWN
    answered: bool = False


NOT_KNOWN = DestinationHealth()


@dataclass(frozen=True, slots=True)
class VirtualIp:
    """A service address. `priority` 0 is the lowest; `declared` is false when it was only seen on the wire.

    `affinity` "source": all connections of a source go to one destination; "connection": each new one is placed anew.
    `probe` says how destinations are asked whether they live: "arp", "tcp:PORT", "http:PORT/PATH",
    "http:PORT/PATH=STATUS" or "none".
    """

    address: str
    name: str
    priority: int = 0
    destinations: tuple[Destination, ...] = ()
    declared: bool = True
    affinity: str = "source"
    probe: str = "arp"

    @property
    def by_connection(self) -> bool:
        """Whether each new connection is placed anew, so that a source talks to all destinations."""
        return self.affinity == "connection"

    def with_weights(self, wanted: Mapping[str, int]) -> "VirtualIp":
        """With the wanted weights in place of the declared ones; a destination that they do not name keeps its own."""
        if not wanted:
            return self
        weighted = (replace(item, weight=max(0, int(wanted.get(item.name, item.weight)))) for item in self.destinations)
        return replace(self, destinations=tuple(weighted))

    def eligible(self, wanted: Mapping[str, int], health: Mapping[str, DestinationHealth]) -> tuple[Destination, ...]:
        """The destinations that get new connections, each with the weight that counts.

        The one rule, for controller, planner and commands (docs/destinations.md):

        * A wanted weight counts in place of the declared one; weight 0 gets nothing.
        * A serving destination gets its share; one that joins only after its first answer, or at once where nobody is
          probed; a draining or removed one gets nothing, whatever its weight.
        * A frozen one gets nothing.
        * One that is down gets nothing while another one is left. When nobody answers, the probes may be at fault:
          then everyone stays.
        """
        allowed = [
            item
            for item in self.with_weights(wanted).destinations
            if item.weight > 0 and self._admits(item, health.get(item.name, NOT_KNOWN))
        ]
        answering = [item for item in allowed if health.get(item.name, NOT_KNOWN).status is not HealthStatus.DOWN]
        return tuple(answering or allowed)

    def shares(self, wanted: Mapping[str, int], health: Mapping[str, DestinationHealth]) -> dict[str, float]:
        """Destination -> its share of new connections, by the rule of `eligible`; {} when nobody gets any."""
        chosen = self.eligible(wanted, health)
        total = sum(item.weight for item in chosen)
        return {item.name: item.weight / total for item in chosen}

    def _admits(self, item: Destination, health: DestinationHealth) -> bool:
        if health.status is HealthStatus.FROZEN or item.standing in (Standing.DRAINING, Standing.REMOVED):
            return False
        return item.standing is Standing.SERVING or health.answered or self.probe == "none"


@dataclass(frozen=True, slots=True)
class Communication:
    """What a pair said in the interval (t - interval_s, t]: the row the whole system learns from.

    `flags` bit 0: implausible, not to be learnt from. `sampling` N: scaled up from 1 in N packets.
    """

    source: str
    virtual_ip: str
    destination: str | None
    t: Seconds
    interval_s: Seconds
    bytes: int
    packets: int
    new_connections: int
    flags: int = 0
    sampling: int | None = None

    @property
    def packets_per_s(self) -> float:
        """Packet rate over the interval."""
        return self.packets / self.interval_s if self.interval_s > 0 else 0.0

    @property
    def sampling_error(self) -> float | None:
        """Relative half width of the 95 % interval of a sampled row, None for a counted one.

        1.96 * sqrt(1 / samples), samples = packets / sampling: Phaal and Panchen, Packet Sampling Basics.
        """
        if self.sampling is None:
            return None
        return 1.96 * sqrt(self.sampling / self.packets) if self.packets else inf

    @property
    def mean_packet_bytes(self) -> float:
        """Mean packet size in bytes, 0 when nothing was sent."""
        return self.bytes / self.packets if self.packets else 0.0

    @property
    def pair(self) -> Pair:
        """The key of this row's pattern."""
        return Pair(self.source, self.virtual_ip)


@dataclass(frozen=True, slots=True)
class Limit:
    """A cap on one competing pair, enforced by an OpenFlow meter where the pair enters the network."""

    pair: Pair
    bytes_per_s: BytesPerS


@dataclass(frozen=True, slots=True)
class Reservation:
    """Bandwidth kept free for `pair` until `expires_at`: caps on competitors and/or a DSCP mark for a queue.

    Nobody has to remove it: after `expires_at` it no longer exists.
    """

    key: str
    pair: Pair
    bytes_per_s: BytesPerS
    limits: tuple[Limit, ...]
    owner: str
    reason: str
    created_at: Seconds
    expires_at: Seconds
    dscp: int | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class WantedWeights:
    """Destination weights wanted for a virtual IP (destination name -> weight); only new communications follow."""

    virtual_ip: str
    weights: Mapping[str, int]
    owner: str
    reason: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ActionTiming:
    """The deadline, how long it was expected to take from the decision on, and when it was done (None: not known)."""

    needed_at: Seconds | None
    lead_s: Seconds
    ready_at: Seconds | None = None


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One action from decision to verdict."""

    kind: str
    target: str
    body: Json
    why: str
    reason: Json
    policy: str
    issued_at: Seconds
    timing: ActionTiming
    outcome: OutcomeKind = OutcomeKind.PENDING
    sentence: str = ""
    verdict: Json = field(default_factory=dict)
    id: int | None = None


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan kept for a person to read and apply: `state` is open, applied, expired or superseded."""

    created_at: Seconds
    expires_at: Seconds
    state: str
    body: Json
    id: int | None = None


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """Bytes that left `from_node` towards `to_node` in (t - interval_s, t], and packets dropped there."""

    from_node: str
    to_node: str
    t: Seconds
    interval_s: Seconds
    bytes: int
    packets: int
    drops: int = 0


@dataclass(frozen=True, slots=True)
class HostLoad:
    """A hypervisor host's use and capacity over the last interval."""

    host: str
    t: Seconds
    cpu_cores_used: float
    cpu_cores_capacity: float
    memory_bytes_used: int
    memory_bytes_capacity: int


@dataclass(frozen=True, slots=True)
class VmLoad:
    """A VM's use and limits over the last interval. `cpu_cores_limit` is what its quota and vCPUs allow.

    `dirty_bytes_per_s` is how fast it writes memory, None when that was not measured.
    """

    vm: str
    host: str
    t: Seconds
    state: str
    cpu_cores_used: float
    cpu_cores_limit: float
    vcpus: int
    memory_bytes_used: int
    memory_bytes_limit: int
    network_rx_bytes_per_s: float = 0.0
    network_tx_bytes_per_s: float = 0.0
    dirty_bytes_per_s: float | None = None


MIB, GIB = 1 << 20, 1 << 30
# Bytes per second in one Mbit/s
MBIT = 1e6 / 8


def show_rate(bytes_per_s: BytesPerS, digits: int = 1) -> str:
    """A rate as people in networking read it, e.g. '5.2 Mbit/s'."""
    return f"{bytes_per_s / MBIT:.{digits}f} Mbit/s"


def show_mebibytes(size_bytes: float) -> str:
    """An amount of memory for people, e.g. '512 MiB'."""
    return f"{size_bytes / MIB:.0f} MiB"
