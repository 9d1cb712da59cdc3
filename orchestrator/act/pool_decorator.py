"""Hypervisors that can also bring machines of pools in and out; everything else goes to those that it is put over."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from cpdb import DriverError, ForepathError, HostLoad, MachineReport, Publisher, Seconds, Store, StoreError, VmLoad
from orchestrator.act.hypervisors import Finished, Hypervisors, PoolMachines
from orchestrator.act.stages import Stages
from orchestrator.act.workflow import ScaleWorkflow
from orchestrator.actions import MachineAction, ScaleAction, ScaleIn, ScaleOut
from orchestrator.config import OWNER, OrchestratorConfig
from orchestrator.declared import PoolMember
from orchestrator.duty import identity

LOG = structlog.get_logger(__name__)
# The state of a pool's machine is written when it changed, and at least this often.
TELL_EVERY_S = 5.0
CLOSING_S = 10.0
LONGEST_REST_S = 480.0


@dataclass(frozen=True, slots=True)
class Timing:
    """By whose clock and how often actions are carried on; without `background` only `finished` carries them on."""

    clock: Callable[[], Seconds] = time.time
    look_every_s: Seconds = 0.1
    background: bool = True


class Scaling:
    """A coat over Hypervisors, for the pools of `config`. Started again with the same number, an action continues."""

    def __init__(
        self,
        inner: Hypervisors,
        machines: PoolMachines,
        store: Store,
        config: OrchestratorConfig,
        tempo: Timing | None = None,
    ) -> None:
        self.inner = inner
        self._machines = machines
        self._store = store
        self._config = config
        self._tempo = tempo or Timing()
        self._holder = identity()
        self._sagas: dict[int, ScaleWorkflow] = {}
        self._threads: list[threading.Thread] = []
        self._ended: deque[Finished] = deque()
        self._publisher: Publisher[str, MachineReport] = Publisher(TELL_EVERY_S, same=_same_state)
        self._failed: dict[str, tuple[int, Seconds]] = {}
        self._stop = threading.Event()

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """See Hypervisors; the states of the pools' machines are written down on the way."""
        self._carry_on(now)
        self._tell(now)
        return self.inner.loads(now)

    def _tell(self, now: Seconds) -> None:
        self._tell_of([one for pool in self._config.declared.pools for one in pool.members], now)

    def _tell_of(self, members: Iterable[PoolMember], now: Seconds) -> None:
        # Whoever cannot be seen now stays what it was last.
        every = (member for pool in self._config.declared.pools for member in pool.members)
        reports: dict[str, MachineReport | None] = {member.vm: None for member in every}
        for one in self._machines.seen(members, now):
            reports[one.vm] = MachineReport(one.vm, one.host, one.state, self._ailing(one.vm, now), now)
        news = self._publisher.publish(reports, now)
        if news.said:
            self._store.wanted.observe(list(news.said.values()))

    def _ailing(self, vm: str, now: Seconds) -> str:
        """Why others come first for a while: who did not make it is not tried at once again, longer each time."""
        times, at = self._failed.get(vm, (0, now))
        rest_s = min(LONGEST_REST_S, self._config.guard.retry_s * 2 ** max(0, times - 1))
        return f"it failed {now - at:.0f} s ago" if times and now - at < rest_s else ""

    def start(self, number: int, action: MachineAction, now: Seconds) -> None:
        """See Hypervisors. Raises DriverError for a machine that is in no pool."""
        if not isinstance(action, ScaleOut | ScaleIn):
            self.inner.start(number, action, now)
        elif self._stop.is_set():
            raise DriverError(f"{action.describe()}: the hypervisors are closed")
        elif number not in self._sagas:
            saga = self._sagas[number] = ScaleWorkflow(number, self._stages(action), self._holder)
            if self._tempo.background:
                self._threads.append(threading.Thread(target=self._follow, args=(saga,), daemon=True))
                self._threads[-1].start()

    def follow(self, number: int, action: MachineAction, now: Seconds) -> bool:
        """See Hypervisors: what is done in steps goes on where its notes end."""
        if not isinstance(action, ScaleOut | ScaleIn):
            return self.inner.follow(number, action, now)
        self.start(number, action, now)
        return True

    def _stages(self, action: ScaleAction) -> Stages:
        pool = self._config.declared.pool(action.virtual_ip)
        member = pool.member(action.vm) if pool else None
        if pool is None or member is None:
            raise DriverError(f"{action.describe()}: {action.vm} is in no pool of {action.virtual_ip}")
        return Stages(action, pool, member, self._machines, self._store, OWNER)

    def finished(self, now: Seconds) -> list[Finished]:
        """See Hypervisors."""
        self._carry_on(now)
        found = self.inner.finished(now)
        while self._ended:
            found.append(self._ended.popleft())
        self._threads = [one for one in self._threads if one.is_alive()]
        return found

    def _carry_on(self, now: Seconds) -> None:
        if not self._tempo.background:
            for saga in list(self._sagas.values()):
                self._step(saga, lambda: now)

    def _follow(self, saga: ScaleWorkflow) -> None:
        while saga.number in self._sagas and not self._stop.is_set():
            try:
                self._step(saga, self._tempo.clock)
            except ForepathError as error:  # the database is away: nothing is lost, the notes are read again
                LOG.warning("an action waits", number=saga.number, error=str(error))
            except Exception as error:  # an outcome must come back, whatever happened
                LOG.exception("an action broke off", number=saga.number)
                text = f"{saga.stages.action.describe()}: broke off ({error!r})"
                self._close(Finished(saga.number, False, text, self._tempo.clock()))
            self._stop.wait(self._tempo.look_every_s)

    def _step(self, saga: ScaleWorkflow, clock: Callable[[], Seconds]) -> None:
        found = saga.advance(clock)
        if found is not None:
            self._note_failure(saga, found)
            # Before anyone hears of the end: a plan must not see the machine as it was.
            self._publisher.forget(saga.stages.member.vm)
            self._tell_of((saga.stages.member,), clock())
            self._close(found)

    def _note_failure(self, saga: ScaleWorkflow, found: Finished) -> None:
        vm = saga.stages.member.vm
        if found.ok:
            self._failed.pop(vm, None)
        elif saga.stages.action.comes:
            self._failed[vm] = self._failed.get(vm, (0, 0.0))[0] + 1, found.ready_at

    def _close(self, found: Finished) -> None:
        self._sagas.pop(found.number, None)
        self._ended.append(found)

    def close(self) -> None:
        """Stops where each action is; the next orchestrator carries it on."""
        self._stop.set()
        until = time.monotonic() + CLOSING_S
        for one in self._threads:
            one.join(max(0.0, until - time.monotonic()))
        for saga in self._sagas.values():
            try:
                saga.let_go()
            except StoreError as error:
                LOG.warning("a lease was not given back; it ends by itself", error=str(error))
        self._machines.close()
        self.inner.close()


def _same_state(before: MachineReport, report: MachineReport) -> bool:
    return (before.host, before.state) == (report.host, report.state)
