"""Real hypervisors through libvirt: one connection a host, each action in a thread of its own, no policy."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from cpdb import DriverError, HostLoad, Seconds, VmLoad
from orchestrator.act.hypervisors import Finished, change_of_one
from orchestrator.act.libvirt.connections import Connections, MachineEvent
from orchestrator.act.libvirt.domain import RATE_TOLERANCE_BYTES_PER_S, Domain, network_rate, set_network_rate
from orchestrator.act.libvirt.measuring import MachineMeter
from orchestrator.act.libvirt.memory import set_memory
from orchestrator.act.libvirt.migration import Moved, Mover, overrun_s
from orchestrator.actions import MachineAction, MigrateVm, SetCpuLimit, SetMemory, SetNetworkRate, SetVcpus, VmAction
from orchestrator.declared import HostSpec, VmSpec

LOG = structlog.get_logger(__name__)
# The longest that a change of a running machine is waited for; a move has its own limit and as much again to look.
CHANGE_LIMIT_S = 60.0
# What is done to one machine is done one after the other; a change waits this long for what is under way.
TURN_S = 20.0
MOST_AT_ONCE = 64


@dataclass(slots=True)
class _Task:
    """One action under way: its thread, and when nobody waits for it any more."""

    action: VmAction
    thread: threading.Thread
    given_up_at: float


class LibvirtHypervisors:
    """Hosts by their declared URIs. A host that is away is left out of `loads` and tried again at later calls."""

    def __init__(
        self,
        hosts: Iterable[HostSpec],
        clock: Callable[[], Seconds] = time.time,
        migration_limit_s: Seconds | None = None,
        vms: Iterable[VmSpec] = (),
        told: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        """`clock` stamps the end of actions; a migration that takes longer than its limit is aborted.

        `vms` say what each machine may be subjected to; one that is not declared gets the careful defaults.
        `told` hears (host, machine, what) of every event.
        """
        specs = {one.name: one for one in vms}
        self._clock = clock
        self._told = told
        self._migration_limit_s = migration_limit_s
        self._specs = specs
        self.connections = Connections(hosts, self._heard)
        self._meter = MachineMeter(self.connections, specs)
        self._mover = Mover(self.connections, migration_limit_s, specs.get)
        self._tasks: dict[int, _Task] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._finished: deque[Finished] = deque()
        self._closed = False

    # -- measuring

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """One statistics call a host, all at once. CPU (vCPUs and emulator) and network are growth since the last call.

        A machine's first sample on a host has nothing to be compared with, so it is left out, and the host with it.
        """
        return self._meter.loads(now)

    def _heard(self, event: MachineEvent) -> None:
        LOG.debug("event", host=event.host, vm=event.vm, what=event.what, figures=dict(event.figures))
        self._meter.heard(event)
        self._told(event.host, event.vm, event.what)

    # -- changing

    def start(self, number: int, action: MachineAction, now: Seconds) -> None:  # noqa: ARG002 - part of the protocol
        """Hands the action to a thread of its own."""
        change = change_of_one(action)
        if isinstance(change, MigrateVm):
            self._copy(number, change, self._mover.move)
        else:
            self._run(number, change, lambda: self._change(change))

    def follow(self, number: int, action: MachineAction, now: Seconds) -> bool:  # noqa: ARG002 - part of the protocol
        """A copy goes on without the process that began it, so somebody must end it in time. A rate is read back."""
        if isinstance(action, MigrateVm):
            self._copy(number, action, self._mover.follow)
        elif isinstance(action, SetNetworkRate):
            self._run(number, action, lambda: self._found(action))
        else:
            return False  # it was quick, and it is measured
        return True

    def _copy(self, number: int, action: MigrateVm, how: Callable[[MigrateVm], Moved]) -> None:
        limit_s = CHANGE_LIMIT_S + 2 * overrun_s(self._migration_limit_s, action.expected_s)
        self._run(number, action, lambda: self._moved(action, how), limit_s)

    def _run(self, number: int, action: VmAction, deed: Callable[[], str], limit_s: Seconds = CHANGE_LIMIT_S) -> None:
        thread = threading.Thread(target=self._work, args=(number, action, deed), name=f"action-{number}", daemon=True)
        with self._lock:
            if self._closed:
                raise DriverError(f"{action.describe()}: the hypervisors are closed")
            if len(self._tasks) >= MOST_AT_ONCE:
                raise DriverError(f"{action.describe()}: {MOST_AT_ONCE} actions are under way already")
            self._tasks[number] = _Task(action, thread, time.monotonic() + limit_s)
        thread.start()

    def finished(self, now: Seconds) -> list[Finished]:  # noqa: ARG002 - part of the protocol
        """Every action that ended since the last call, and those that nobody waits for any more."""
        for number, task in list(self._tasks.items()):
            if time.monotonic() > task.given_up_at:
                text = f"{task.action.describe()}: no answer in time; what came of it shows in what is measured"
                self._end(Finished(number, False, text, self._clock()))
        found = []
        while self._finished:
            found.append(self._finished.popleft())
        return found

    def _end(self, result: Finished) -> None:
        """Each number ends once."""
        with self._lock:
            if self._tasks.pop(result.number, None) is not None:
                self._finished.append(result)
                return
        LOG.warning("an action ended after it was given up", number=result.number, sentence=result.sentence)

    def _work(self, number: int, action: VmAction, deed: Callable[[], str]) -> None:
        try:
            ok, sentence = True, self._in_turn(action, deed)
        except DriverError as error:
            ok, sentence = False, str(error)
        except Exception as error:
            LOG.exception("action failed", action=action.describe())
            ok, sentence = False, f"{action.describe()}: {error!r}"
        self._end(Finished(number, ok, sentence, self._clock()))

    def _in_turn(self, action: VmAction, deed: Callable[[], str]) -> str:
        with self._lock:
            turn = self._turns.setdefault(action.vm, threading.Lock())
        if not turn.acquire(timeout=TURN_S):
            raise DriverError(f"{action.describe()}: {action.vm} is still busy with an earlier action")
        try:
            return deed()
        finally:
            turn.release()

    def _moved(self, action: MigrateVm, how: Callable[[MigrateVm], Moved]) -> str:
        try:
            moved = how(action)
        finally:
            for host in (action.before, action.after):
                self._meter.forget(host, action.vm)
        self._meter.dirtying.learnt(action.vm, moved.dirty_bytes_per_s, self._clock())
        return moved.sentence

    def _change(self, action: SetCpuLimit | SetVcpus | SetMemory | SetNetworkRate) -> str:
        host, domain = self.connections.find(action.vm)
        domain.patient()
        spec = self._specs.get(action.vm)
        pending = action.adjust(DomainControls(domain, spec.memory_bytes_min if spec else 0, self._clock))
        self._meter.forget(host, action.vm)
        if pending:
            raise DriverError(f"{action.describe()}: {pending}")
        return f"done: {action.describe()}"

    def _found(self, action: SetNetworkRate) -> str:
        rate = network_rate(self.connections.find(action.vm)[1])
        if abs(rate - action.after) > RATE_TOLERANCE_BYTES_PER_S:
            raise DriverError(f"{action.describe()}: not carried out, it is at {rate:.0f} bytes/s")
        return f"done: {action.describe()}; found after a restart of the orchestrator"

    def close(self) -> None:
        """Waits for actions under way (each has its limit), then drops the connections."""
        with self._lock:
            self._closed = True
            tasks = list(self._tasks.values())
        for one in tasks:
            one.thread.join(max(0.0, one.given_up_at - time.monotonic()))
        self.connections.close()


@dataclass(frozen=True, slots=True)
class DomainControls:
    """See MachineControls."""

    domain: Domain
    memory_bytes_min: int
    clock: Callable[[], Seconds]

    def set_cpu_limit(self, cores: float) -> str | None:
        self.domain.set_limit_cores(cores, self.domain.vcpus())
        return None

    def set_vcpus(self, vcpus: int) -> str | None:
        """Keeps the limit in cores, as a new vCPU would bring its own quota."""
        before = self.domain.vcpus()
        limited = self.domain.quota() is not None
        limit = self.domain.limit_cores(before)
        if limited and vcpus > before:
            self.domain.set_limit_cores(limit * before / vcpus, before)
        pending = self.domain.set_vcpus(vcpus)
        if limited:
            now = self.domain.vcpus()
            self.domain.set_limit_cores(min(limit, float(now)), now)
        return pending

    def set_memory(self, memory_bytes: int) -> str | None:
        return set_memory(self.domain, memory_bytes, self.memory_bytes_min, self.clock())

    def set_network_rate(self, bytes_per_s: float) -> str | None:
        set_network_rate(self.domain, bytes_per_s)
        return None
