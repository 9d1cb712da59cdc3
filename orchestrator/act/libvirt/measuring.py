"""Looks at all hosts at once, each in its own time: one bulk question a host, and nobody waits for one that hangs."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from cpdb import MIB, BytesPerS, DriverError, HostLoad, Seconds, VmLoad
from orchestrator.act.libvirt.connections import Connections, MachineEvent
from orchestrator.act.libvirt.domain import Domain, TimedCall, reported
from orchestrator.act.libvirt.identity import Identity, MachineSample, state_of
from orchestrator.act.libvirt.memory import STALE_STATISTICS_S, ask_statistics, used_bytes
from orchestrator.declared import MISSING, RUNNING, UNMEASURED, HostSpec, VmSpec

NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class MachineUse:
    """What a machine used a second until `now`: cores, and bytes received and sent by all its interfaces."""

    now: Seconds
    cores: float
    rx_bytes_per_s: float
    tx_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class MachineCounters:
    """Cumulative counters of one machine, seen from inside it: rx is what came to it."""

    now: Seconds
    cpu_ns: int
    rx_bytes: int
    tx_bytes: int

    @staticmethod
    def of(stats: Mapping[str, Any], now: Seconds) -> "MachineCounters":
        """From one record of `virConnectGetAllDomainStats`; interfaces are numbered net.0., net.1., ...

        libvirt counts a plain tap device as the host sees it and says so in reverse, so rx and tx are the guest's.
        """
        interfaces = range(int(stats.get("net.count", 0)))
        rx, tx = (sum(int(stats.get(f"net.{n}.{way}.bytes", 0)) for n in interfaces) for way in ("rx", "tx"))
        return MachineCounters(now, int(stats.get("cpu.time", 0)), rx, tx)

    def growth(self, before: "MachineCounters | None") -> MachineUse | None:
        """Use since `before`; None when there is nothing to compare with, as after a start or a migration.

        An interface that was unplugged takes its counters along: then nothing is known of the network, and 0 is said.
        """
        if before is None or self.now <= before.now or self.cpu_ns < before.cpu_ns:
            return None
        seconds = self.now - before.now
        return MachineUse(
            self.now,
            (self.cpu_ns - before.cpu_ns) / NANOSECONDS / seconds,
            max(0, self.rx_bytes - before.rx_bytes) / seconds,
            max(0, self.tx_bytes - before.tx_bytes) / seconds,
        )


# Sampling takes a second of a guest's time in small pieces; one machine a host is sampled at a time.
CALCULATE_S = 1
ANSWER_AFTER_S = 2.5
EVERY_S = 10.0
# Habits change: what was measured longer ago than this says nothing about a move now.
KEEP_S = 60.0
NEVER = float("-inf")
# virDomainDirtyRateStatus: a result is there.
MEASURED = 2


@dataclass(slots=True)
class Dirtying:
    """Rates by machine in bytes/s, from the hypervisor's sampling or from the last migration, whichever is newer."""

    _rates: dict[str, tuple[Seconds, BytesPerS]] = field(default_factory=dict)
    _asked: dict[str, Seconds] = field(default_factory=dict)
    _awaited: dict[str, Seconds] = field(default_factory=dict)
    _deaf: set[str] = field(default_factory=set)

    def rate(self, vm: str, now: Seconds) -> BytesPerS | None:
        """What is known of the machine; None when nobody measured it lately."""
        at, rate = self._rates.get(vm, (NEVER, 0.0))
        return rate if 0 <= now - at <= KEEP_S else None

    def learnt(self, vm: str, rate: BytesPerS | None, now: Seconds) -> None:
        """A migration saw how fast it writes, if it took long enough to see anything."""
        if rate is not None:
            self._rates[vm] = now, rate

    def awaited(self, host: str) -> bool:
        """Whether an answer of that host is to come."""
        return host in self._awaited

    def ask(self, host: str, machines: Sequence[tuple[Any, str]], now: Seconds) -> None:
        """Starts one measurement on the host: of the machine whose last one is longest ago, when it is due."""
        if 0 <= now - self._awaited.get(host, NEVER) < ANSWER_AFTER_S:
            return
        self._awaited.pop(host, None)
        due = [one for one in machines if one[1] not in self._deaf and now - self._asked.get(one[1], NEVER) >= EVERY_S]
        if not due:
            return
        raw, name = min(due, key=lambda one: (self._asked.get(one[1], NEVER), one[1]))
        self._asked[name] = now
        if self._begun(raw, name):
            self._awaited[host] = now

    def _begun(self, raw: Any, name: str) -> bool:
        import libvirt

        try:
            raw.startDirtyRateCalc(CALCULATE_S, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED):
                self._deaf.add(name)
            return False
        return True

    def note(self, vm: str, stats: Mapping[str, Any], now: Seconds) -> None:
        """Takes a result from bulk statistics; an old one is not taken for a new one."""
        rate = stats.get("dirtyrate.megabytes_per_second")
        if rate is None or stats.get("dirtyrate.calc_status") != MEASURED:
            return
        # The emulator stamps whole seconds of the host's clock.
        if now - stats.get("dirtyrate.calc_start_time", now) <= EVERY_S + ANSWER_AFTER_S:
            self._rates[vm] = now, float(rate) * MIB


LOG = structlog.get_logger(__name__)
# A quota is read again this often; in between it only changes through us, or an event tells.
LIMIT_KEEP_S = 5.0
# Hosts answer within some hundredths of a second; a guest that hangs may hold its host's answer back for ever.
ANSWER_S = 2.0
MOST_UNANSWERED = 3
ASK_STATISTICS_AGAIN_S = 30.0
BALLOON = "balloon."
# Guests tell once a second: so long after a balloon moved its size and what the guest said may be of different times.
BALLOON_SETTLES_S = 3.0


@dataclass(slots=True)
class GuestMemory:
    """What guests say of their memory: they are asked to, and their last word counts for a while."""

    _asked: dict[tuple[str, str], Seconds] = field(default_factory=dict)
    _used: dict[str, tuple[Seconds, int]] = field(default_factory=dict)
    _moved: dict[str, tuple[int, Seconds]] = field(default_factory=dict)

    def ask(self, host: str, domain: Domain, stats: Mapping[str, Any], now: Seconds) -> None:
        """A guest tells its memory only when it is told to."""
        key = host, domain.name
        silent = "balloon.current" in stats and used_bytes(stats, now, BALLOON) is None
        if not silent or now - self._asked.get(key, float("-inf")) < ASK_STATISTICS_AGAIN_S:
            return
        self._asked[key] = now
        try:
            ask_statistics(domain)
        except DriverError as error:  # a machine without a balloon is measured all the same
            LOG.debug("no memory statistics", vm=domain.name, error=str(error))

    def used(self, key: str, stats: Mapping[str, Any], now: Seconds) -> int | None:
        """What the guest said last; while it is busy, as when it moves, it says nothing for some seconds."""
        size = int(stats.get(f"{BALLOON}current", 0))
        before, moved_at = self._moved.get(key, (size, float("-inf")))
        self._moved[key] = size, moved_at if size == before else now
        found = used_bytes(stats, now, BALLOON)
        if found is not None and (now - self._moved[key][1] >= BALLOON_SETTLES_S or key not in self._used):
            self._used[key] = now, found
        at, last = self._used.get(key, (float("-inf"), 0))
        return last if 0 <= now - at <= STALE_STATISTICS_S else None


def _not_measured(vm: str, host: str, state: str, now: Seconds, memory_bytes: int = 0) -> VmLoad:
    return VmLoad(vm, host, now, state, 0.0, 0.0, 0, memory_bytes, memory_bytes)


@dataclass(slots=True)
class MachineMeter:
    """Measures use between two looks. Thread-safe for `heard` and `forget`; `loads` is called by one thread."""

    connections: Connections
    specs: Mapping[str, VmSpec]
    _before: dict[tuple[str, str], MachineCounters] = field(default_factory=dict)
    _limits: dict[tuple[str, str, int], tuple[Seconds, int, float]] = field(default_factory=dict)
    _guests: GuestMemory = field(default_factory=GuestMemory)
    _open: dict[str, list[TimedCall[list[MachineSample]]]] = field(default_factory=dict)
    _aside: dict[str, TimedCall[None]] = field(default_factory=dict)
    _careful: set[str] = field(default_factory=set)
    _gone: dict[tuple[str, str], str] = field(default_factory=dict)
    _identity: Identity = field(default_factory=Identity)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    dirtying: Dirtying = field(default_factory=Dirtying)

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """Use of all hosts that answered in time; machines that stopped since, or are not as they should be, as such.

        A machine's first sample on a host has nothing to be compared with, so it is left out, and the host with it.
        """
        hosts: list[HostLoad] = []
        machines: list[VmLoad] = []
        looks = self._looks(now)
        for host, seen in self._identity.one_of_each(looks).items():
            own = [self._load(host, one, now) for one in seen]
            known = [one for one in own if one is not None]
            machines.extend(known)
            if len(known) == len(own):
                hosts.append(_host_load(self.connections.hosts[host], known, now))
        if len(looks) == len(self.connections.hosts):
            there = {one.name for seen in looks.values() for one in seen}
            machines += [_not_measured(name, "", MISSING, now) for name in self.specs if name not in there]
        return hosts, [*machines, *self._stopped({one.vm for one in machines}, now)]

    def heard(self, event: MachineEvent) -> None:
        """What an event makes stale is read anew; a machine that stopped is not counted any more."""
        if event.what in ("stopped", "left", "started", "tuned", "agent"):
            self.forget(event.host, event.vm)
        with self._lock:
            if event.what in ("stopped", "left"):
                self._before.pop((event.host, event.vm), None)
            if event.what in ("stopped", "paused"):
                self._gone[event.host, event.vm] = event.what
            elif event.what == "started":
                self._gone.pop((event.host, event.vm), None)

    def forget(self, host: str, vm: str) -> None:
        """Its limits were changed: they are read again at the next look."""
        for key in [one for one in list(self._limits) if one[:2] == (host, vm)]:
            self._limits.pop(key, None)

    def _stopped(self, running: set[str], now: Seconds) -> list[VmLoad]:
        with self._lock:
            gone, self._gone = self._gone, {}
        found = ((host, vm, state) for (host, vm), state in gone.items() if vm not in running)
        return [_not_measured(vm, host, state, now) for host, vm, state in found]

    # -- asking

    def _looks(self, now: Seconds) -> dict[str, list[MachineSample]]:
        asked = {}
        for host in self.connections.hosts:
            waiting = self._open[host] = [one for one in self._open.get(host, []) if not one.wait(0)]
            (self._careful.add if waiting else self._careful.discard)(host)
            if len(waiting) >= MOST_UNANSWERED:
                LOG.warning("host not measured", host=host, error=f"{len(waiting)} questions are not answered yet")
                continue
            asked[host] = TimedCall(lambda host=host: self._look(host, now))  # type: ignore[misc]
        deadline, found = time.monotonic() + ANSWER_S, {}
        for host, one in asked.items():
            try:
                if not one.wait(deadline - time.monotonic()):
                    self._open[host].append(one)
                    raise DriverError(f"{host}: no answer within {ANSWER_S:g} s; a guest there may hang")
                found[host] = one.answer()
            except DriverError as error:
                LOG.warning("host not measured", host=host, error=str(error))
        return found

    def _look(self, host: str, now: Seconds) -> list[MachineSample]:
        """Runs in a thread of its own, which nobody may be waiting for any more."""
        connection = self.connections.of(host)
        domains = self._statistics(connection, host)
        self._ask_aside(host, domains, now)
        return [self._seen_or_not(host, Domain(raw, raw.name()), stats, now) for raw, stats in domains]

    def _seen_or_not(self, host: str, domain: Domain, stats: Mapping[str, Any], now: Seconds) -> MachineSample:
        """One that cannot be measured keeps no other from being."""
        uuid = domain.raw.UUIDString()
        try:
            if (state := state_of(stats)) != RUNNING:
                return MachineSample(domain.name, stats, uuid, state, 0, 0.0, int(stats.get("balloon.current", 0)))
            return self._seen(host, domain, stats, now)
        except (DriverError, LookupError, ValueError, TypeError) as error:
            LOG.debug("machine not measured", host=host, vm=domain.name, error=str(error))
            return MachineSample(domain.name, stats, uuid, UNMEASURED, 0, 0.0, 0)

    def _ask_aside(self, host: str, domains: Sequence[tuple[Any, Mapping[str, Any]]], now: Seconds) -> None:
        """What waits until a guest is free may wait for ever for one that hangs: nobody waits along."""
        before = self._aside.get(host)
        if before is None or before.wait(0):
            self._aside[host] = TimedCall(lambda: self._questions(host, domains, now))

    def _questions(self, host: str, domains: Sequence[tuple[Any, Mapping[str, Any]]], now: Seconds) -> None:
        known = [(raw, raw.name(), stats) for raw, stats in domains if state_of(stats) == RUNNING]
        self.dirtying.ask(host, [(raw, name) for raw, name, _ in known if _movable(self.specs.get(name))], now)
        for raw, name, stats in known:
            self._guests.ask(host, Domain(raw, name), stats, now)

    def _statistics(self, connection: Any, host: str) -> list[tuple[Any, dict[str, Any]]]:
        import libvirt

        wanted = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
        wanted |= libvirt.VIR_DOMAIN_STATS_INTERFACE | libvirt.VIR_DOMAIN_STATS_STATE
        wanted |= libvirt.VIR_DOMAIN_STATS_DIRTYRATE if self.dirtying.awaited(host) else 0
        with reported(f"{host}: statistics"):
            try:
                # A machine that somebody else is busy with is asked for what needs no waiting.
                return list(connection.getAllDomainStats(wanted, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT))
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED):
                    raise
            return list(connection.getAllDomainStats(wanted, 0))

    def _seen(self, host: str, domain: Domain, stats: Mapping[str, Any], now: Seconds) -> MachineSample:
        plugged = int(stats.get("vcpu.current", 0))
        vcpus, limit = self._limit(host, domain, plugged, now)
        memory = int(stats.get("balloon.current", 0)) or domain.memory_kib()
        self.dirtying.note(domain.name, stats, now)
        return MachineSample(domain.name, stats, domain.raw.UUIDString(), RUNNING, vcpus, limit, memory)

    def _limit(self, host: str, domain: Domain, plugged: int, now: Seconds) -> tuple[int, float]:
        """vCPUs in use and the limit in cores; asked again now and then, and whenever something was changed."""
        key = host, domain.name, plugged
        read_at, vcpus, limit = self._limits.get(key, (float("-inf"), 0, 0.0))
        # A host takes few questions at once: while a guest hangs, those that matter less would hold up the others.
        kept = host in self._careful and key in self._limits
        if not kept and not 0 <= now - read_at < LIMIT_KEEP_S:
            domain.patient()
            vcpus = domain.vcpus()
            limit = domain.limit_cores(vcpus)
            self._limits[key] = now, vcpus, limit
        return vcpus, limit

    # -- counting

    def _load(self, host: str, seen: MachineSample, now: Seconds) -> VmLoad | None:
        if seen.state != RUNNING:
            self._before.pop((host, seen.name), None)
            return _not_measured(seen.name, host, seen.state, now, seen.memory_kib << 10)
        counters, key = MachineCounters.of(seen.stats, now), (host, seen.name)
        before, self._before[key] = self._before.get(key), counters
        grown = counters.growth(before)
        return None if grown is None else self._grown(host, seen, grown)

    def _grown(self, host: str, seen: MachineSample, grown: MachineUse) -> VmLoad:
        memory = seen.memory_kib << 10
        used = self._guests.used(f"{host}/{seen.name}", seen.stats, grown.now)
        return VmLoad(
            seen.name, host, grown.now, RUNNING, grown.cores, seen.cores_limit, seen.vcpus,
            memory if used is None else used, memory, grown.rx_bytes_per_s, grown.tx_bytes_per_s,
            self.dirtying.rate(seen.name, grown.now),
        )  # fmt: skip


def _movable(spec: VmSpec | None) -> bool:
    return spec is not None and spec.movable


def _host_load(host: HostSpec, machines: Sequence[VmLoad], now: Seconds) -> HostLoad:
    cores = sum(one.cpu_cores_used for one in machines)
    memory = sum(one.memory_bytes_limit for one in machines)
    return HostLoad(host.name, now, cores, host.cpu_cores_capacity, memory, host.memory_bytes_capacity)
