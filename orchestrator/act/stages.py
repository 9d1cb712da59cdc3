"""What each stage of coming and going does: it may be repeated at any time, and says what it still waits for."""

from dataclasses import dataclass
from typing import TypeVar

from cpdb import (
    DestinationChange,
    DriverError,
    HealthReport,
    HealthStatus,
    LiveCount,
    Seconds,
    Standing,
    Store,
    VirtualIp,
    VmLoad,
    destination_key,
    read_health,
)
from orchestrator.act import workflow_log as route
from orchestrator.act.hypervisors import PoolMachines
from orchestrator.actions import ScaleAction
from orchestrator.pools import RUNNING, PoolMember, PoolSpec

# So long after a change the controller has noticed it, if it is there at all.
NOTICED_S = 3.0
# Probes and name resolution of a machine without a single connection stay below this.
QUIET_BYTES_PER_S = 1000.0
Report = TypeVar("Report", HealthReport, LiveCount)


@dataclass(frozen=True, slots=True)
class Now:
    """The moment, since when the stage runs, and whether it is passed on the way back."""

    t: Seconds
    since: Seconds
    back: bool = False


@dataclass(frozen=True, slots=True)
class Stages:
    """The effects of one action on one machine of a pool."""

    action: ScaleAction
    pool: PoolSpec
    member: PoolMember
    machines: PoolMachines
    store: Store
    owner: str

    def step(self, stage: str, now: Now) -> str | None:
        """Does what the stage needs; None when it is there, else what it waits for. Raises DriverError, StoreError."""
        share = route.share_of(stage)
        if share is not None:
            return self._ramp(share, now)
        doing = {
            route.WAKE: self._wake,
            route.ANSWER: self._answer,
            route.JOIN: self._join,
            route.HEALTHY: self._healthy,
            route.SERVE: self._serve,
            route.DRAIN: self._drain,
            route.QUIET: self._quiet,
            route.LEAVE: self._leave,
            route.REST: self._rest,
        }
        return doing[stage](now)

    # -- in

    def _wake(self, now: Now) -> str | None:
        self.machines.wake(self.pool, self.member, now.t)
        state = self._state(now)
        return None if state == RUNNING else f"it is {state}"

    def _state(self, now: Now) -> str:
        seen = self.machines.seen((self.member,), now.t)
        return seen[0].state if seen else "not to be seen"

    def _answer(self, now: Now) -> str | None:
        if self.machines.answers(self.pool, self.member, now.t):
            return None
        return f"it does not answer the {self.pool.manner.probe} probe"

    def _join(self, now: Now) -> str | None:
        known = self._change()
        if known is not None and known.standing is Standing.JOINING and known.mac == self.member.mac:
            return None
        # Its first answer opens it to this share; the orchestrator need not be there for that.
        self._put(Standing.JOINING, self._weight(self.pool.manner.ramp[0]), now)
        return None

    def _weight(self, share: float) -> int:
        return max(1, round(share * self.pool.weight))

    def _healthy(self, now: Now) -> str | None:
        # It is told once: who left and came back unnoticed, or by a clock that differs, was told of before.
        noticed = now.t - now.since >= NOTICED_S
        report = self._said(HealthReport, 0.0 if noticed else None)
        status = report.status if report else None
        if status is HealthStatus.UP or (status is HealthStatus.UNKNOWN and not self._asked()):
            return None
        return f"the controller says {status or 'nothing'} of its health"

    def _asked(self) -> bool:
        """Whether the controller asks destinations of this virtual IP at all."""
        return any(vip.probe != "none" for vip in self._services())

    def _ramp(self, share: float, now: Now) -> str | None:
        weight = self._weight(share)
        known = self._change()
        if known is None or known.standing is not Standing.SERVING or known.weight != weight:
            self._put(Standing.SERVING, weight, now)
        report = self._said(HealthReport, 0.0)
        if report is not None and report.status is HealthStatus.DOWN:
            raise DriverError(f"{self.member.vm}: the controller says that it no longer answers")
        waited = now.t - now.since >= self.pool.manner.ramp_step_s or share == 1.0
        return None if waited else f"it has {share:.0%} of its share"

    def _serve(self, now: Now) -> str | None:
        self._put(Standing.SERVING, self.pool.weight, now)
        return None

    # -- out

    def _drain(self, now: Now) -> str | None:
        known = self._change()
        if known is None:
            return None  # it is no destination: nothing to drain
        if not now.back and known.standing is Standing.SERVING and not self._others_serve():
            raise DriverError(f"{self.member.vm}: is the last that serves {self.pool.virtual_ip}; it stays")
        if known.standing is not Standing.DRAINING:
            self._put(Standing.DRAINING, 0, now)
        return None

    def _others_serve(self) -> bool:
        wanted = {item.virtual_ip: item.weights for item in self.store.wanted.weights()}
        health = read_health(self.store.wanted.observed_of(HealthReport)).get(self.pool.virtual_ip, {})
        eligible = (item for vip in self._services() for item in vip.eligible(wanted.get(vip.address, {}), health))
        return any(item.name != self.member.vm for item in eligible)

    def _services(self) -> list[VirtualIp]:
        return [one for one in self.store.inventory.virtual_ips() if one.address == self.pool.virtual_ip]

    def _quiet(self, now: Now) -> str | None:
        if self._change() is None:
            return None
        live = self._said(LiveCount)
        if live is not None and live.count:
            return f"{live.count} live connections"
        quiet_s = self.pool.manner.quiet_s
        if now.t - now.since < quiet_s:
            return "it has just stopped getting new ones"
        return "it still has traffic" if live is None and self._spoke_since(now.t - quiet_s) else None

    def _spoke_since(self, since: Seconds) -> bool:
        """By what is counted of its communications, or, where nobody can say whose they are, by what passes its NIC."""
        rows = [one for one in self.store.facts.communications(since) if one.virtual_ip == self.pool.virtual_ip]
        if any(one.destination == self.member.vm and one.bytes > 0 for one in rows):
            return True
        if not any(one.destination is None and one.bytes > 0 for one in rows):
            return False
        loads = [one for one in self.store.facts.loads(VmLoad, since) if one.vm == self.member.vm]
        rates = (one.network_rx_bytes_per_s + one.network_tx_bytes_per_s for one in loads)
        return not loads or any(rate > QUIET_BYTES_PER_S for rate in rates)

    def _leave(self, _now: Now) -> str | None:
        self.store.inventory.forget_change(self.pool.virtual_ip, self.member.vm)
        return None

    def _rest(self, now: Now) -> str | None:
        self.machines.rest(self.pool, self.member, self.action.how, now.t)
        return "it is still running" if self._state(now) == RUNNING else None

    # -- what is wanted and what is said of it

    def _change(self) -> DestinationChange | None:
        own = (self.pool.virtual_ip, self.member.vm)
        return next((one for one in self.store.inventory.changes() if (one.virtual_ip, one.name) == own), None)

    def _put(self, standing: Standing, weight: int, now: Now) -> None:
        one = self.member
        place = (self.pool.virtual_ip, one.vm, one.address, one.mac)
        self.store.inventory.put_change(
            DestinationChange(*place, weight, standing, self.owner, self.action.describe(), now.t)
        )

    def _said(self, report: type[Report], since: Seconds | None = None) -> Report | None:
        """The controller's newest report of a type since `since`; None: since the destination was last changed."""
        known = self._change()
        if known is None:
            return None
        since = known.changed_at if since is None else since
        key = destination_key(self.pool.virtual_ip, self.member.vm)
        reports = (one for one in self.store.wanted.observed_of(report) if one.key == key)
        return max((one for one in reports if one.observed_at >= since), key=lambda one: one.observed_at, default=None)
