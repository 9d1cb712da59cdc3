"""The world as it was at one moment: an immutable snapshot with its age, and what an action would make of it."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

from cpdb import (
    BandwidthRequest,
    BytesPerS,
    Destination,
    DestinationHealth,
    Forecast,
    Json,
    ObservedRecord,
    Pair,
    Quantity,
    Reservation,
    Seconds,
    Subject,
    VirtualIp,
    WantedSplit,
    read_health,
)
from orchestrator.declared import HostSpec, VmSpec
from orchestrator.lead_times import LeadTimes
from orchestrator.pair_table import LinkKey, PairState, PairTable, Ways
from orchestrator.relations import CpuRelation, MemoryRelation

Rates = Mapping[LinkKey, float]


def no_way(_source: str, _destination: str) -> tuple[LinkKey, ...]:
    """For worlds without a topology."""
    return ()


# So old is what nobody ever measured.
NO_FACTS_AGE_S = 1e9


@dataclass(frozen=True, slots=True)
class LinkState:
    """One direction of a link; capacity None is 'not known' (then nothing is decided about it).

    `drop_share` is the share of packets that were lately dropped before it.
    """

    key: LinkKey
    capacity_bytes_per_s: float | None
    bytes_per_s: float
    drop_share: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.key[0]}>{self.key[1]}"


@dataclass(frozen=True, slots=True)
class MemoryState:
    """A machine's memory now: `bytes` is what it has, `used_bytes` the most that was lately used of that.

    `used_bytes` is None when the guest does not tell; `calm` says that it has long been well below `bytes`.
    `dirty_bytes_per_s` is how fast the machine writes memory, None when nobody measured that.
    """

    bytes: int
    used_bytes: int | None = None
    dirty_bytes_per_s: BytesPerS | None = None
    relations: tuple[MemoryRelation, ...] = ()
    calm: bool = False


@dataclass(frozen=True, slots=True)
class VmState:
    """One machine now. `spec` None: not declared, so it is counted but never touched.

    `cores_used` is over the last seconds, `calm` says that it has long been well below its everyday limit, `starved`
    that it has used all it may for a while; `seen_at` is when it was last measured. `beside` is what is forecast of the
    CPU that it uses beside what its communications explain.
    """

    name: str
    host: str
    cores_used: float
    cores_limit: float
    vcpus: int
    memory: MemoryState
    spec: VmSpec | None = None
    relations: tuple[CpuRelation, ...] = ()
    calm: bool = False
    starved: bool = False
    seen_at: Seconds = 0.0
    beside: Mapping[tuple[int, Quantity], Forecast] = field(default_factory=dict)

    @property
    def priority(self) -> int:
        return self.spec.priority if self.spec else 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """Peaks in bytes/s by subject and horizon (s), at the level that counts as the need.

    What is not in it was not foreseen; `slow_horizons_s` are the horizons of minutes for which pairs were.
    """

    links: Mapping[tuple[tuple[str, str], int], BytesPerS] = field(default_factory=dict)
    pairs: Mapping[tuple[Pair, int], BytesPerS] = field(default_factory=dict)

    @property
    def slow_horizons_s(self) -> tuple[int, ...]:
        return tuple(sorted({horizon_s for _, horizon_s in self.pairs}))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Bytes/s between switches by pairs at one time, what links carry beyond that, and what is expected by level.

    `fullest`: the largest share of a link's capacity that is in use, or expected to be.
    """

    t: Seconds
    demand: Rates
    background: Mapping[LinkKey, float]
    expected: Mapping[float, Rates] = field(default_factory=dict)
    fullest: float = 0.0


@dataclass(frozen=True, slots=True)
class RoutedNetwork:
    """The network between switches, where traffic is routed: links that are up, splits in force, matrices lately.

    `capacity` is in bytes/s; the matrices are those of some minutes, oldest first.
    """

    capacity: Mapping[LinkKey, float] = field(default_factory=dict)
    splits: Mapping[LinkKey, WantedSplit] = field(default_factory=dict)
    matrices: tuple[Matrix, ...] = ()


class Action(ABC):
    """What can be done: an action says what it makes of a world, and when a world shows it as done."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    @abstractmethod
    def target(self) -> str:
        """What it changes: two actions of one kind and target are never under way at once."""

    @abstractmethod
    def inverse(self) -> "Action":
        """What takes it back."""

    @abstractmethod
    def describe(self) -> str:
        """For people, e.g. 'memory of shop1 from 128 to 256 MiB'."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_body` turns back into an equal action."""

    @classmethod
    @abstractmethod
    def from_body(cls, body: Json) -> Self:
        """What `to_json` wrote. Raises KeyError, TypeError or ValueError when it makes no sense."""

    def applied_to(self, world: "World") -> "World":
        """The world once it is done; unknown targets change nothing."""
        return world

    def shown_by(self, _world: "World", /) -> bool:
        """Whether the world shows it as done."""
        return False

    def hosts(self, _world: "World", /) -> frozenset[str]:
        """The hypervisors that it keeps busy."""
        return frozenset()

    @property
    def shrinks(self) -> bool:
        """Whether it makes something smaller that has a size."""
        return False

    @property
    def gives(self) -> bool:
        """Whether it gives something that is taken back when it is no longer needed."""
        return False

    @property
    def had(self) -> float | None:
        """How much there was of what it changes, where that is an amount."""
        return None

    def turns(self, _before: "Action", /) -> bool:
        """Whether it goes back on an earlier change of the same thing."""
        return False

    @property
    def benefits(self) -> str:
        """The machine or virtual IP for which it is done, "" for none: its tenant pays for it."""
        return ""


@dataclass(frozen=True, slots=True)
class WantedState:
    """What is wanted of the controller, and what is reported of it.

    `requests` are those open or just over, `weights` those wanted in place of the declared ones, by virtual IP.
    """

    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    requests: tuple[BandwidthRequest, ...] = ()
    weights: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    observed: tuple[ObservedRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkState:
    """What is known of the network beyond the single links.

    `ways` names the links from one node to another, () when no way is known. `queues` names the links whose guaranteed
    queue was lately found whole: declared alone is not enough; `queue_losses` is the share of packets that each has
    lately dropped. `fabric` is empty where traffic is not routed. `sums` are forecasts of links and hosts themselves.
    """

    ways: Ways = no_way
    queues: frozenset[str] = frozenset()
    queue_losses: Mapping[str, float] = field(default_factory=dict)
    outlook: Outlook = field(default_factory=Outlook)
    fabric: RoutedNetwork = field(default_factory=RoutedNetwork)
    sums: Mapping[Subject, Mapping[tuple[int, Quantity], Forecast]] = field(default_factory=dict)


class NumberedMachines(Protocol):
    """What is worked out of a world's machines, numbered, and stays while who is there and how they share stays."""

    @property
    def shares(self) -> Mapping[str, Mapping[str, float]]:
        """Of virtual IPs whose connections are placed one by one, the share of each machine."""


@dataclass(slots=True)
class WorldIndex:
    """Looked up for every machine; made anew for each snapshot and filled at first use, so it is never out of date.

    `kept` is what others have worked out of the snapshot.
    """

    health: dict[str, Mapping[str, DestinationHealth]] = field(default_factory=dict)
    on_host: dict[str, list[VmState]] = field(default_factory=dict)
    used_on: dict[str, float] = field(default_factory=dict)
    table: PairTable | None = None
    machines: NumberedMachines | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a plan may depend on, at `now`; `age_s` is the age of the oldest kind of fact in it."""

    now: Seconds
    age_s: Seconds
    pairs: Mapping[Pair, PairState] = field(default_factory=dict)
    links: Mapping[LinkKey, LinkState] = field(default_factory=dict)
    vms: Mapping[str, VmState] = field(default_factory=dict)
    hosts: Mapping[str, HostSpec] = field(default_factory=dict)
    virtual_ips: Mapping[str, VirtualIp] = field(default_factory=dict)
    in_flight: tuple[Action, ...] = ()
    leads: LeadTimes = field(default_factory=LeadTimes)
    wanted: WantedState = field(default_factory=WantedState)
    network: NetworkState = field(default_factory=NetworkState)
    index: WorldIndex = field(default_factory=WorldIndex, init=False, repr=False, compare=False)

    def health(self, virtual_ip: str) -> Mapping[str, DestinationHealth]:
        """What the controller knows of the destinations of a virtual IP, by name."""
        if self.wanted.observed and not self.index.health:
            self.index.health.update(read_health(self.wanted.observed))
        return self.index.health.get(virtual_ip, {})

    def eligible(self, vip: VirtualIp) -> tuple[Destination, ...]:
        """The destinations of a virtual IP that get new connections."""
        return vip.eligible(self.wanted.weights.get(vip.address, {}), self.health(vip.address))

    def on_host(self, host: str) -> list[VmState]:
        """The machines on a host, by name."""
        if not self.index.on_host:
            for _, vm in sorted(self.vms.items()):
                self.index.on_host.setdefault(vm.host, []).append(vm)
        return self.index.on_host.get(host, [])

    def used_on(self, host: str) -> float:
        """Cores that the machines on a host use."""
        if host not in self.index.used_on:
            self.index.used_on[host] = sum(vm.cores_used for vm in self.on_host(host))
        return self.index.used_on[host]

    @property
    def table(self) -> PairTable:
        """The pairs, numbered."""
        if self.index.table is None:
            self.index.table = PairTable(self.pairs)
        return self.index.table

    def pairs_to(self, vm: str) -> list[PairState]:
        """The pairs that a machine serves, by their names."""
        return [self.table.states[number] for number in self.table.to_machine().members.get(vm, ())]

    def pairs_of(self, virtual_ip: str) -> list[Pair]:
        """The pairs of a virtual IP, by their names."""
        return [self.table.pairs[number] for number in self.table.of_service.members.get(virtual_ip, ())]

    def pairs_on(self, link: LinkKey) -> list[Pair]:
        """The pairs that take a link, by their names."""
        return [self.table.pairs[number] for number in self.table.on_link.members.get(link, ())]

    def changed(self, **changes: Any) -> "World":
        """The same with other values; what was looked up of the rest stays."""
        return _inherit(self, replace(self, **changes))


def apply(world: World, action: Action) -> World:
    """The world as it is once `action` is done."""
    after = action.applied_to(world)
    return after if after is world else _inherit(world, after)


def _inherit(before: World, after: World) -> World:
    """Actions and plans change what machines have, not what they need: who is there decides what is still known."""
    if after.pairs is before.pairs:
        after.index.table, known = before.index.table, before.index.machines
        same = after.virtual_ips is before.virtual_ips and after.wanted.observed is before.wanted.observed
        weighed = same and after.wanted.weights is before.wanted.weights
        if known is not None and (weighed or not known.shares) and after.vms.keys() == before.vms.keys():
            after.index.machines = known
    return after
