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
from orchestrator.declared import RUNNING, PoolMember, PoolSpec

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
class MemberDestination:
    """A pool's machine as a destination of its virtual IP: what is wanted of it, and what is said of it."""

    pool: PoolSpec
    member: PoolMember
    store: Store
    owner: str

    def change(self) -> DestinationChange | None:
        """What is wanted of it beyond what is declared; None when it is no destination."""
        own = (self.pool.virtual_ip, self.member.vm)
        return next((item for item in self.store.inventory.changes() if (item.virtual_ip, item.name) == own), None)

    def put(self, standing: Standing, weight: int, why: str, now: Seconds) -> None:
        """Wants this standing and weight of it from now on."""
        one = self.member
        place = (self.pool.virtual_ip, one.vm, one.address, one.mac)
        self.store.inventory.put_change(DestinationChange(*place, weight, standing, self.owner, why, now))

    def newest_report(self, report: type[Report], since: Seconds | None = None) -> Report | None:
        """The controller's newest report of a type since `since`; None: since the destination was last changed."""
        known = self.change()
        if known is None:
            return None
        since = known.changed_at if since is None else since
        key = destination_key(self.pool.virtual_ip, self.member.vm)
        reports = (one for one in self.store.wanted.observed_of(report) if one.key == key)
        return max((one for one in reports if one.observed_at >= since), key=lambda one: one.observed_at, default=None)

    def is_probed(self) -> bool:
        """Whether the controller asks destinations of this virtual IP at all."""
        return any(vip.probe != "none" for vip in self._virtual_ips())

    def others_serve(self) -> bool:
        """Whether new connections may be given to any other."""
        wanted = {item.virtual_ip: item.weights for item in self.store.wanted.weights()}
        health = read_health(self.store.wanted.observed_of(HealthReport)).get(self.pool.virtual_ip, {})
        eligible = (item for vip in self._virtual_ips() for item in vip.eligible(wanted.get(vip.address, {}), health))
        return any(item.name != self.member.vm for item in eligible)

    def _virtual_ips(self) -> list[VirtualIp]:
        return [vip for vip in self.store.inventory.virtual_ips() if vip.address == self.pool.virtual_ip]

    def had_traffic_since(self, since: Seconds) -> bool:
        """By what is counted of its communications, or, where nobody can say whose they are, by what passes its NIC."""
        rows = [one for one in self.store.facts.communications(since) if one.virtual_ip == self.pool.virtual_ip]
        if any(one.destination == self.member.vm and one.bytes > 0 for one in rows):
            return True
        if not any(one.destination is None and one.bytes > 0 for one in rows):
            return False
        loads = [one for one in self.store.facts.loads(VmLoad, since) if one.vm == self.member.vm]
        rates = (one.network_rx_bytes_per_s + one.network_tx_bytes_per_s for one in loads)
        return not loads or any(rate > QUIET_BYTES_PER_S for rate in rates)

    def weight_of(self, share: float) -> int:
        """The weight that is this share of its full one."""
        return max(1, round(share * self.pool.weight))


@dataclass(frozen=True, slots=True)
class Stages:
    """The effects of one action on one machine of a pool."""

    action: ScaleAction
    pool: PoolSpec
    member: PoolMember
    machines: PoolMachines
    store: Store
    owner: str

    @property
    def _destination(self) -> MemberDestination:
        return MemberDestination(self.pool, self.member, self.store, self.owner)

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
        known = self._destination.change()
        if known is not None and known.standing is Standing.JOINING and known.mac == self.member.mac:
            return None
        # Its first answer opens it to this share; the orchestrator need not be there for that.
        weight = self._destination.weight_of(self.pool.manner.ramp[0])
        self._destination.put(Standing.JOINING, weight, self.action.describe(), now.t)
        return None

    def _healthy(self, now: Now) -> str | None:
        # It is told once: who left and came back unnoticed, or by a clock that differs, was told of before.
        noticed = now.t - now.since >= NOTICED_S
        report = self._destination.newest_report(HealthReport, 0.0 if noticed else None)
        status = report.status if report else None
        if status is HealthStatus.UP or (status is HealthStatus.UNKNOWN and not self._destination.is_probed()):
            return None
        return f"the controller says {status or 'nothing'} of its health"

    def _ramp(self, share: float, now: Now) -> str | None:
        weight = self._destination.weight_of(share)
        known = self._destination.change()
        if known is None or known.standing is not Standing.SERVING or known.weight != weight:
            self._destination.put(Standing.SERVING, weight, self.action.describe(), now.t)
        report = self._destination.newest_report(HealthReport, 0.0)
        if report is not None and report.status is HealthStatus.DOWN:
            raise DriverError(f"{self.member.vm}: the controller says that it no longer answers")
        waited = now.t - now.since >= self.pool.manner.ramp_step_s or share == 1.0
        return None if waited else f"it has {share:.0%} of its share"

    def _serve(self, now: Now) -> str | None:
        self._destination.put(Standing.SERVING, self.pool.weight, self.action.describe(), now.t)
        return None

    # -- out

    def _drain(self, now: Now) -> str | None:
        known = self._destination.change()
        if known is None:
            return None  # it is no destination: nothing to drain
        if not now.back and known.standing is Standing.SERVING and not self._destination.others_serve():
            raise DriverError(f"{self.member.vm}: is the last that serves {self.pool.virtual_ip}; it stays")
        if known.standing is not Standing.DRAINING:
            self._destination.put(Standing.DRAINING, 0, self.action.describe(), now.t)
        return None

    def _quiet(self, now: Now) -> str | None:
        if self._destination.change() is None:
            return None
        live = self._destination.newest_report(LiveCount)
        if live is not None and live.count:
            return f"{live.count} live connections"
        quiet_s = self.pool.manner.quiet_s
        if now.t - now.since < quiet_s:
            return "it has just stopped getting new ones"
        return "it still has traffic" if live is None and self._destination.had_traffic_since(now.t - quiet_s) else None

    def _leave(self, _now: Now) -> str | None:
        self.store.inventory.forget_change(self.pool.virtual_ip, self.member.vm)
        return None

    def _rest(self, now: Now) -> str | None:
        self.machines.rest(self.pool, self.member, self.action.how, now.t)
        return "it is still running" if self._state(now) == RUNNING else None
