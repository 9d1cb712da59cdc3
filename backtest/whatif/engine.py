"""A scene in virtual time: one second of network and machines after the other, and what is measured of them.

Only switches, machines and clocks are simulated; who decides is in policies.py, what is left out in docs/whatif.md.
"""

import numpy as np

from backtest.whatif.machines import ReplayMachines, WorkOrder
from backtest.whatif.network import ReplayNetwork, SendOrder, SentSecond
from backtest.whatif.recorder import RunRecorder, SeriesRecorder
from backtest.whatif.records import EventKind, Floats, OfferedLoad, ReplayScene
from backtest.whatif.requests import RequestLine
from backtest.whatif.shares import Crossings, Places, sum_by
from backtest.whatif.stage import ReplayStage
from backtest.whatif.switching import ReplaySwitches, SceneState
from backtest.whatif.telemetry import CountedSecond, TelemetryWriter
from backtest.whatif.wiring import FlowTable, Wiring
from cpdb import Seconds, Store
from orchestrator import MigrateVm

# Any moment will do: time is virtual. This one is 2023-11-14 22:13:20 UTC.
EPOCH_S = 1_700_000_000.0
STEP_S = 1.0
# The place of a pair that no machine of the scene serves.
NOWHERE = -1


class ReplayEngine:
    """Plays an offered load on a scene, a second at each `advance`; the store is told what live switches would tell."""

    def __init__(self, scene: ReplayScene, load: OfferedLoad, store: Store, seed: int) -> None:
        self.scene, self.load, self.store = scene, load, store
        self.stage = ReplayStage(scene, load, EPOCH_S, seed)
        self._wiring = Wiring(scene)
        self.switches = ReplaySwitches(scene, self._wiring, load.pairs, store)
        self._network = ReplayNetwork(self._wiring, len(load.pairs))
        cores = np.array([host.cpu_cores_capacity for host in scene.hosts], dtype=np.float64)
        self._machines = ReplayMachines(cores, len(self.stage.vms))
        self._requests = RequestLine.of(scene.costs, self.stage.vms, len(load.pairs))
        self._telemetry = TelemetryWriter(store, self._wiring, load.pairs, self.stage.vms)
        self._own = _own_cores(load, self.stage.vms)
        self._streams = np.array([pair in load.streams for pair in load.pairs], dtype=bool)
        declared = {one.link: one.guaranteed_bytes_per_s for one in scene.orchestrator.declared.queues}
        self._queued: Floats = np.array([declared.get(name, 0.0) for name in self._wiring.names], dtype=np.float64)
        self._spoke = self._streams & False
        self._connections: Floats = np.zeros(len(load.pairs))
        self._told: SceneState | None = None
        seconds, vms, hosts = load.seconds, self.stage.vms, self.stage.hosts
        self.recorder = RunRecorder(
            SeriesRecorder(seconds, vms, hosts),
            SeriesRecorder(seconds, tuple(str(pair) for pair in load.pairs), vms),
            SeriesRecorder(seconds, self._wiring.names),
            SeriesRecorder(seconds, hosts),
        )

    @property
    def begins_at(self) -> Seconds:
        """The moment of the first row."""
        return EPOCH_S

    def advance(self, second: int) -> None:
        """Plays row `second` of the load, that is [second, second + 1)."""
        now = EPOCH_S + second
        state = self.stage.begin(now)
        self._tell_inventory(state)
        self.switches.poll(now, state, self._spoke)
        flows, played = self.switches.flows, self.load.known[second]
        offered, connections, own = (
            rows[second] if played else np.zeros(rows.shape[1])
            for rows in (self.load.bytes_per_s, self.load.connections_per_s, self._own)
        )
        sent = self._network.carry(self._order(flows, offered))
        cost = self._requests.cost(flows, offered, connections)
        work = self._requests.arrive(flows, cost, sent)[: len(own)]
        host_of = self.stage.host_numbers(state)
        worked = self._machines.work(WorkOrder(own, work, self.stage.limits(state), host_of))
        delivery = self._requests.deliver(flows, sent, worked)
        need = own + sum_by(flows.vms, cost, len(own) + 1)[: len(own)]
        self.recorder.vms.put(second, need, worked.allowed, worked.used)
        self.recorder.vms.place(second, host_of)
        self.recorder.deliver(second, delivery)
        self._record_network(second, flows, offered, sent)
        self._record_hosts(second, host_of, need, worked.used)
        self.stage.note_use(worked.used)
        self._connections += connections
        self._spoke = (sent.sent > 0) | (connections > 0)
        if played:
            self._count(second, flows, sent)

    def copy_bytes_per_s(self, move: MigrateVm) -> float:
        """Capacity of the narrowest link that a copy takes, or of the network that copies have for themselves."""
        moves = self.scene.orchestrator.moves
        way = self.switches.path(move.before, move.after) if moves.over_links else ()
        narrowest = self._wiring.narrowest(way)
        return narrowest if np.isfinite(narrowest) else moves.bytes_per_s

    def _tell_inventory(self, state: SceneState) -> None:
        """Where machines are plugged in, and which links are up: as the controller finds out."""
        if self._told is None or state.host_of != self._told.host_of:
            self.store.inventory.put_nodes(self._wiring.nodes(state.host_of))
        if self._told is None or state.lost_links != self._told.lost_links:
            self.store.inventory.put_links(self._wiring.links_now(state.lost_links))
        self._told = state

    def _order(self, flows: FlowTable, offered: Floats) -> SendOrder:
        moves = self.scene.orchestrator.moves
        copies = self.stage.hypervisors.moving() if moves.over_links else ()
        ways = [self._wiring.hops(self.switches.path(one.before, one.after)) for one in copies]
        return SendOrder(
            flows=flows,
            offered=offered,
            limits=self.switches.limits,
            streams=self._streams,
            marked=self.switches.marked,
            queued=self._queued,
            copies=np.array([one.bytes_per_s or moves.bytes_per_s for one in copies], dtype=np.float64),
            copy_crossings=Crossings.of(ways),
        )

    def _record_network(self, second: int, flows: FlowTable, offered: Floats, sent: SentSecond) -> None:
        self.recorder.pairs.put(second, offered, sent.allowed, sent.sent)
        where = np.full(len(offered), NOWHERE)
        # The last one written stands: the machine with the largest share, of equals the last one.
        order = np.argsort(flows.shares, kind="stable")
        where[flows.pairs[order]] = np.where(flows.vms < len(self.stage.vms), flows.vms, NOWHERE)[order]
        self.recorder.pairs.place(second, where)
        self.recorder.links.put(second, sent.link_need, self._wiring.capacities, sent.link_used)

    def _record_hosts(self, second: int, host_of: Places, need: Floats, used: Floats) -> None:
        cores = self._machines.capacities
        self.recorder.hosts.put(second, sum_by(host_of, need, len(cores)), cores, sum_by(host_of, used, len(cores)))

    def _count(self, second: int, flows: FlowTable, sent: SentSecond) -> None:
        now = EPOCH_S + second + STEP_S
        late = self.stage.happens(EventKind.TELEMETRY_LATE, now - STEP_S)
        counted = CountedSecond(flows, sent.entered, self._connections.copy(), sent.link_used, sent.dropped)
        self._telemetry.write(counted, now, late)


def _own_cores(load: OfferedLoad, vms: tuple[str, ...]) -> Floats:
    """Cores that each machine of the scene wants beside its requests; none where the load says nothing of it."""
    columns = {name: number for number, name in enumerate(load.vms)}
    return np.stack(
        [load.cores[:, columns[name]] if name in columns else np.zeros(load.seconds) for name in vms]
        or [np.zeros((0,))],
        axis=1,
    )
