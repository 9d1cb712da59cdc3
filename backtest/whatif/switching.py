"""What the controller does for a replay: it makes what is wanted so - destinations, ways, meters - and reports it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtest.whatif.records import Flags, Floats, ReplayScene
from backtest.whatif.steering import Steering
from backtest.whatif.wiring import FlowTable, Wiring
from cpdb import (
    CONTROLLER,
    Destination,
    DestinationHealth,
    HealthReport,
    HealthStatus,
    InstallStatus,
    LiveCount,
    ObservedKind,
    ObservedRecord,
    Pair,
    Reservation,
    ReservationReport,
    Seconds,
    SplitReport,
    Standing,
    Store,
    VirtualIp,
    WantedSplit,
    WantedWeights,
    WeightsReport,
    Withdrawal,
    split_key,
)
from ryu_apps import Routed

EDGE = "edge"
# A destination that does not answer gets no new connections after so many seconds, as with the controller's probes.
NOTICED_S = 1.0
# And is left by those who always went there after so many more, as with the controller.
LEFT_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class SceneState:
    """How the scene is now: where machines are, which of them answer, and which links (`a>b`) are lost."""

    host_of: Mapping[str, str]
    answering: frozenset[str]
    lost_links: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WantedView:
    """What was wanted at the last look, and of whom."""

    generation: int = -1
    reservations: tuple[Reservation, ...] = ()
    weights: tuple[WantedWeights, ...] = ()
    splits: tuple[WantedSplit, ...] = ()
    virtual_ips: tuple[VirtualIp, ...] = ()


class ReplaySwitches:
    """The switches of a replay, all at once: what was wanted before a second begins holds in all of it."""

    def __init__(self, scene: ReplayScene, wiring: Wiring, pairs: Sequence[Pair], store: Store) -> None:
        self._wiring, self._pairs, self._store = wiring, pairs, store
        self._machines = machine_names(scene)
        self._number_of = {pair: number for number, pair in enumerate(pairs)}
        self._steering = Steering(pairs, {node.name: node for node in scene.nodes})
        self._wanted = WantedView()
        self._state: SceneState | None = None
        self._silent_since: dict[str, Seconds] = {}
        self._health: dict[str, dict[str, DestinationHealth]] = {}
        self._serving_ones: dict[str, tuple[Destination, ...]] = {}
        self._answering: frozenset[str] = frozenset()
        self._told: dict[tuple[str, str, str], ObservedRecord] = {}
        self._routed: Routed | None = None
        self._paths: dict[tuple[str, str], tuple[str, ...]] = {}
        self.flows: FlowTable = self._steering.flow_table(wiring, self.path, (), ())
        self.limits: Floats = np.full(len(pairs), np.inf)
        self.marked: Flags = np.zeros(len(pairs), dtype=bool)

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of the nodes on the way, () when there is none; the orchestrator asks here, too."""
        key = source, destination
        if key not in self._paths:
            self._paths[key] = self._routed.path(source, destination) if self._routed else ()
        return self._paths[key]

    def poll(self, now: Seconds, state: SceneState, spoke: Flags) -> None:
        """Looks at what is wanted and at the scene; `spoke` says which pairs have said something since."""
        self._steering.note_speech(spoke, now)
        wanted, before = self._look(now), self._wanted
        rerouted = state != self._state or wanted.splits != before.splits or self._routed is None
        self._wanted, self._state = wanted, state
        if rerouted:
            self._routed = self._wiring.routed(state.host_of, state.lost_links, wanted.splits, now)
            self._paths.clear()
        health, serving = self._health, self._serving_ones
        # While nobody is silent, nothing of this changes by itself.
        if wanted.generation != before.generation or self._silent_since or state.answering != self._answering:
            health = self._look_at_health(now, state)
            weights = {one.virtual_ip: one.weights for one in wanted.weights}
            serving = {
                vip.address: self._serving(vip, weights.get(vip.address, {}), health[vip.address], now)
                for vip in wanted.virtual_ips
            }
        self._serving_ones, self._answering = serving, state.answering
        by_connection = {vip.address for vip in wanted.virtual_ips if vip.by_connection}
        if self._steering.steer(serving, by_connection, now) or rerouted:
            silent = set(self._machines) - state.answering
            self.flows = self._steering.flow_table(self._wiring, self.path, self._machines, silent)
        self._meter(wanted.reservations)
        if wanted != before or health != self._health or any(one.standing is Standing.DRAINING for one in _all(wanted)):
            self._tell(now, health)
        self._health = health

    def _look(self, now: Seconds) -> WantedView:
        wanted, generation = self._store.wanted, self._store.wanted.generation()
        if generation == self._wanted.generation:
            # Nothing was changed, but leases end by themselves.
            held = tuple(one for one in self._wanted.reservations if one.expires_at > now)
            splits = tuple(one for one in self._wanted.splits if one.expires_at is None or one.expires_at > now)
            return WantedView(generation, held, self._wanted.weights, splits, self._wanted.virtual_ips)
        return WantedView(
            generation,
            tuple(wanted.reservations(now)),
            tuple(wanted.weights()),
            tuple(one for one in wanted.splits() if one.expires_at is None or one.expires_at > now),
            tuple(self._store.inventory.virtual_ips()),
        )

    def _look_at_health(self, now: Seconds, state: SceneState) -> dict[str, dict[str, DestinationHealth]]:
        silent = set(self._machines) - state.answering
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        return {
            vip.address: {
                one.name: self._verdict(one.name, now) if vip.probe != "none" else DestinationHealth()
                for one in vip.destinations
            }
            for vip in self._wanted.virtual_ips
        }

    def _verdict(self, name: str, now: Seconds) -> DestinationHealth:
        since = self._silent_since.get(name)
        if since is None:
            return DestinationHealth(HealthStatus.UP, True)
        return DestinationHealth(HealthStatus.DOWN) if now - since >= NOTICED_S else DestinationHealth()

    def _serving(
        self, vip: VirtualIp, weights: Mapping[str, int], health: Mapping[str, DestinationHealth], now: Seconds
    ) -> tuple[Destination, ...]:
        """With weight 0 for whoever gets nothing new; who is silent for long is left, if another one answers."""
        eligible = {one.name: one for one in vip.eligible(weights, health)}
        answered = any(health[name].status is not HealthStatus.DOWN for name in eligible)
        return tuple(
            eligible.get(one.name, replace(one, weight=0))
            for one in vip.destinations
            if not answered or now - self._silent_since.get(one.name, now) <= NOTICED_S + LEFT_AFTER_S
        )

    def _meter(self, reservations: Sequence[Reservation]) -> None:
        """The tightest of a pair's limits counts, as in the switches."""
        self.limits, self.marked = np.full(len(self._pairs), np.inf), np.zeros(len(self._pairs), dtype=bool)
        for held in reservations:
            for limit in held.limits:
                if (number := self._number_of.get(limit.pair)) is not None:
                    self.limits[number] = min(self.limits[number], limit.bytes_per_s)
            if held.dscp is not None and held.pair in self._number_of:
                self.marked[self._number_of[held.pair]] = True

    def _tell(self, now: Seconds, health: Mapping[str, Mapping[str, DestinationHealth]]) -> None:
        """Writes what is new, and withdraws what is no longer so."""
        rows = {
            (row.kind, row.key, row.node): (report, row)
            for report in self._reports(now, health)
            for row in [report.to_row()]
        }
        news: list[ObservedRecord] = [one for key, (one, _) in rows.items() if self._told.get(key) != one]
        news += [Withdrawal(ObservedKind(kind), key, node, now) for kind, key, node in self._told.keys() - rows.keys()]
        self._told = {key: one for key, (one, _) in rows.items()}
        if news:
            self._store.wanted.observe(news)

    def _reports(self, now: Seconds, health: Mapping[str, Mapping[str, DestinationHealth]]) -> list[ObservedRecord]:
        made = InstallStatus.INSTALLED, "replayed", now
        rows: list[ObservedRecord] = [
            ReservationReport(one.key, EDGE, one.generation, *made) for one in self._wanted.reservations
        ]
        rows += [WeightsReport(one.virtual_ip, CONTROLLER, one.generation, *made) for one in self._wanted.weights]
        rows += [
            SplitReport(split_key(one.from_switch, one.to_switch), EDGE, one.generation, *made)
            for one in self._wanted.splits
        ]
        for vip in self._wanted.virtual_ips:
            for one in vip.destinations:
                found = health[vip.address][one.name]
                rows.append(HealthReport(vip.address, one.name, found, "replayed", now))
                if one.standing is Standing.DRAINING:
                    rows.append(LiveCount(vip.address, one.name, self._sources_of(vip.address, one.name, now), now))
        return rows

    def _sources_of(self, virtual_ip: str, name: str, now: Seconds) -> int:
        """Sources that still speak with a machine."""
        places = zip(self._pairs, self._steering.served, strict=True)
        return sum(
            pair.virtual_ip == virtual_ip and name in one.shares and now - one.active <= 1.0 for pair, one in places
        )


def _all(wanted: WantedView) -> Iterator[Destination]:
    return (one for vip in wanted.virtual_ips for one in vip.destinations)


def machine_names(scene: ReplayScene) -> tuple[str, ...]:
    """All machines: those of the settings file in its order, then those that rest in pools."""
    pools = [one.vm for pool in scene.orchestrator.declared.pools for one in pool.members]
    return tuple(dict.fromkeys([*(vm.name for vm in scene.vms), *pools]))
