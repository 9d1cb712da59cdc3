"""The world as it was at one moment: an immutable snapshot with its age, and what an action would make of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cpdb import (
    BandwidthRequest,
    BytesPerS,
    Destination,
    DestinationHealth,
    Forecast,
    MachineReport,
    ObservedRecord,
    Pair,
    Quantity,
    Reservation,
    Seconds,
    VirtualIp,
    read_health,
)
from orchestrator.actions import (
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetCpuLimit,
    SetMemory,
    SetNetworkRate,
    SetVcpus,
    SetWeights,
    VmAction,
)
from orchestrator.config import HostSpec, VmSpec
from orchestrator.lead_times import LeadTimes
from orchestrator.observe.outlook import Outlook
from orchestrator.pools import RESTS_AS, RUNNING
from orchestrator.relations import CpuRelation, MemoryRelation

LinkKey = tuple[str, str]
Ways = Callable[[str, str], tuple[LinkKey, ...]]


def no_way(_source: str, _destination: str) -> tuple[LinkKey, ...]:
    """For worlds without a topology."""
    return ()


@dataclass(frozen=True, slots=True)
class PairState:
    """One pair now. Rates: `bytes_per_s`, `connections_per_s` over the last seconds; `typical_*` over a longer while.

    `links` are the directed links on the way to the destination, in order.
    """

    pair: Pair
    priority: int
    destination: str | None
    links: tuple[LinkKey, ...]
    bytes_per_s: float
    connections_per_s: float
    typical_bytes_per_s: float
    typical_connections_per_s: float
    bytes_per_connection: float | None = None
    forecasts: Mapping[tuple[int, Quantity], Forecast] = field(default_factory=dict)


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
class VmState:
    """One machine now. `spec` None: not declared, so it is counted but never touched.

    `cores_used` is over the last seconds, `calm` says that it has long been well below its everyday limit
    (`lately_calm`: for some seconds), `starved` that it has used all it may for a while; `seen_at` is when it was last
    measured. `dirty_bytes_per_s` is how fast it writes memory, None when nobody measured that. `memory_used_bytes` is
    the most that was lately used of `memory_bytes`, None when the guest does not tell; `memory_calm` that this has long
    been well below it.
    """

    name: str
    host: str
    cores_used: float
    cores_limit: float
    vcpus: int
    memory_bytes: int
    spec: VmSpec | None = None
    relations: tuple[CpuRelation, ...] = ()
    calm: bool = False
    lately_calm: bool = False
    starved: bool = False
    seen_at: Seconds = 0.0
    dirty_bytes_per_s: BytesPerS | None = None
    memory_used_bytes: int | None = None
    memory_relations: tuple[MemoryRelation, ...] = ()
    memory_calm: bool = False

    @property
    def priority(self) -> int:
        return self.spec.priority if self.spec else 0


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a plan may depend on, at `now`; `age_s` is the age of the oldest kind of fact in it.

    `queues` names the links whose guaranteed queue was lately found whole: declared alone is not enough;
    `queue_losses` is the share of packets that each has lately dropped. `ways` names
    the links from one node to another, () when no way is known. `requests` are those open or just over, `granted` the
    bytes/s that pairs may count on because of them, `weights` those wanted in place of the declared ones. With
    `shared_copies`, live migrations take from the links between their hosts.
    """

    now: Seconds
    age_s: Seconds
    pairs: Mapping[Pair, PairState] = field(default_factory=dict)
    links: Mapping[LinkKey, LinkState] = field(default_factory=dict)
    vms: Mapping[str, VmState] = field(default_factory=dict)
    hosts: Mapping[str, HostSpec] = field(default_factory=dict)
    virtual_ips: Mapping[str, VirtualIp] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    observed: tuple[ObservedRecord, ...] = ()
    in_flight: tuple[Action, ...] = ()
    leads: LeadTimes = field(default_factory=LeadTimes)
    queues: frozenset[str] = frozenset()
    queue_losses: Mapping[str, float] = field(default_factory=dict)
    ways: Ways = no_way
    requests: tuple[BandwidthRequest, ...] = ()
    granted: Mapping[Pair, BytesPerS] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    outlook: Outlook = field(default_factory=Outlook)
    shared_copies: bool = False
    # Looked up for every machine; made anew for each snapshot, so it cannot be out of date.
    _health: dict[str, Mapping[str, DestinationHealth]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _on_host: dict[str, list[VmState]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pairs_to: dict[str, list[PairState]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pairs_on: dict[LinkKey, list[Pair]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def health(self, virtual_ip: str) -> Mapping[str, DestinationHealth]:
        """What the controller knows of the destinations of a virtual IP, by name."""
        if self.observed and not self._health:
            self._health.update(read_health(self.observed))
        return self._health.get(virtual_ip, {})

    def eligible(self, vip: VirtualIp) -> tuple[Destination, ...]:
        """The destinations of a virtual IP that get new connections."""
        return vip.eligible(self.weights.get(vip.address, {}), self.health(vip.address))

    def on_host(self, host: str) -> list[VmState]:
        """The machines on a host, by name."""
        if not self._on_host:
            for _, vm in sorted(self.vms.items()):
                self._on_host.setdefault(vm.host, []).append(vm)
        return self._on_host.get(host, [])

    def pairs_to(self, vm: str) -> list[PairState]:
        """The pairs that a machine serves, by their names."""
        if not self._pairs_to:
            for one in sorted(self.pairs.values(), key=lambda one: str(one.pair)):
                self._pairs_to.setdefault(one.destination or "", []).append(one)
        return self._pairs_to.get(vm, [])

    def pairs_on(self, link: LinkKey) -> list[Pair]:
        """The pairs that take a link, by their names."""
        if not self._pairs_on:
            for one in sorted(self.pairs.values(), key=lambda one: str(one.pair)):
                for key in one.links:
                    self._pairs_on.setdefault(key, []).append(one.pair)
        return self._pairs_on.get(link, [])


def apply(world: World, action: Action) -> World:
    """The world as it is once `action` is done; unknown targets change nothing."""
    if isinstance(action, ReserveBandwidth):
        held = _reservation(action, world.now)
        return replace(world, reservations={**world.reservations, action.key: held})
    if isinstance(action, ReleaseBandwidth):
        rest = {key: one for key, one in world.reservations.items() if key != action.key}
        return replace(world, reservations=rest)
    if isinstance(action, ScaleOut | ScaleIn):
        return _scaled(world, action)
    if isinstance(action, SetWeights):
        return replace(world, weights={**world.weights, action.virtual_ip: dict(action.after)})
    if isinstance(action, SetCpuLimit | SetVcpus | SetMemory | MigrateVm):
        vm = world.vms.get(action.vm)
        return world if vm is None else replace(world, vms={**world.vms, vm.name: _changed(vm, action)})
    return world


def _scaled(world: World, action: ScaleOut | ScaleIn) -> World:
    service = world.virtual_ips.get(action.virtual_ip)
    if service is None:
        return world
    comes = isinstance(action, ScaleOut)
    others = tuple(one for one in service.destinations if one.name != action.vm)
    own = (Destination(action.vm, "", ""),) if comes else ()
    state = RUNNING if comes else RESTS_AS[action.how]
    rest = tuple(one for one in world.observed if not (isinstance(one, MachineReport) and one.vm == action.vm))
    return replace(
        world,
        virtual_ips={**world.virtual_ips, action.virtual_ip: replace(service, destinations=others + own)},
        vms=world.vms if comes else {name: vm for name, vm in world.vms.items() if name != action.vm},
        observed=(*rest, MachineReport(action.vm, action.host, state, "", world.now)),
    )


def _reservation(action: ReserveBandwidth, now: Seconds) -> Reservation:
    until = now + action.lease_s
    return Reservation(
        action.key, action.pair, action.bytes_per_s, action.limits, "plan", "", now, until, dscp=action.dscp
    )


def _changed(vm: VmState, action: VmAction) -> VmState:
    if isinstance(action, MigrateVm):
        return replace(vm, host=action.after)
    if isinstance(action, SetCpuLimit):
        return replace(vm, cores_limit=action.after)
    if isinstance(action, SetMemory):
        return replace(vm, memory_bytes=action.after)
    if isinstance(action, SetNetworkRate):
        return vm
    return replace(vm, vcpus=action.after, cores_limit=min(vm.cores_limit, float(action.after)))
