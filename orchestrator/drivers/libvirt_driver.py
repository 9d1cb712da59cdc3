"""Real hypervisors through libvirt: one connection a host, slow calls in worker threads, no policy."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from cpdb import DriverError, HostLoad, Seconds, VmLoad
from orchestrator.actions import MigrateVm, SetCpuLimit, SetMemory, SetVcpus, VmAction
from orchestrator.config import HostSpec
from orchestrator.drivers import Finished
from orchestrator.drivers.counters import Counters, Growth
from orchestrator.drivers.domain import Domain, reported

LOG = structlog.get_logger(__name__)
MIGRATION_LIMIT_S = 30.0
WORKERS = 2
# A quota is read again this often; in between it only changes through us.
LIMIT_KEEP_S = 5.0
LIMIT_TOLERANCE_CORES = 0.005


class LibvirtHypervisors:
    """Hosts by their declared URIs. A host that is away is left out of `loads` and tried again at each call."""

    def __init__(
        self,
        hosts: Iterable[HostSpec],
        clock: Callable[[], Seconds] = time.time,
        migration_limit_s: Seconds = MIGRATION_LIMIT_S,
    ) -> None:
        """`clock` stamps the end of actions; a migration that takes longer than its limit is aborted."""
        self._hosts = {one.name: one for one in hosts}
        self._clock = clock
        self._migration_limit_s = migration_limit_s
        self._connections: dict[str, Any] = {}
        self._opening = threading.Lock()
        self._before: dict[tuple[str, str], Counters] = {}
        self._limits: dict[tuple[str, str, int], tuple[Seconds, int, float]] = {}
        self._finished: deque[Finished] = deque()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="libvirt")

    # -- measuring

    def loads(self, now: Seconds) -> tuple[list[HostLoad], list[VmLoad]]:
        """One statistics call a host. CPU (vCPUs and emulator) and network are growth since the last call.

        A machine's first sample on a host has nothing to be compared with, so it is left out, and the host with it.
        """
        hosts: list[HostLoad] = []
        machines: list[VmLoad] = []
        for host in self._hosts.values():
            try:
                own = self._machine_loads(host, now)
            except DriverError as error:
                LOG.warning("host not measured", host=host.name, error=str(error))
                continue
            known = [one for one in own if one is not None]
            machines.extend(known)
            if len(known) == len(own):
                hosts.append(_host_load(host, known, now))
        return hosts, machines

    def _machine_loads(self, host: HostSpec, now: Seconds) -> list[VmLoad | None]:
        found: list[VmLoad | None] = []
        for raw, stats in self._statistics(host):
            domain, counters = Domain(raw, raw.name()), Counters.of(stats, now)
            before = self._before.get((host.name, domain.name))
            self._before[host.name, domain.name] = counters
            grown = counters.growth(before)
            found.append(None if grown is None else self._load(host, domain, stats, grown))
        return found

    def _load(self, host: HostSpec, domain: Domain, stats: dict[str, Any], grown: Growth) -> VmLoad:
        now = grown.now
        plugged = int(stats.get("vcpu.current", 0))
        vcpus, limit = self._limit(host, domain, plugged, now)
        current = (int(stats.get("balloon.current", 0)) or domain.memory_kib()) << 10
        unused = int(stats.get("balloon.unused", 0)) << 10
        return VmLoad(
            domain.name, host.name, now, "running", grown.cores, limit, vcpus,
            max(0, current - unused), current, grown.rx_bytes_per_s, grown.tx_bytes_per_s,
        )  # fmt: skip

    def _limit(self, host: HostSpec, domain: Domain, plugged: int, now: Seconds) -> tuple[int, float]:
        """vCPUs in use and the limit in cores; asked again now and then, and whenever something was changed."""
        key = host.name, domain.name, plugged
        read_at, vcpus, limit = self._limits.get(key, (float("-inf"), 0, 0.0))
        if not 0 <= now - read_at < LIMIT_KEEP_S:
            vcpus = domain.vcpus()
            limit = domain.limit_cores(vcpus)
            self._limits[key] = now, vcpus, limit
        return vcpus, limit

    def _statistics(self, host: HostSpec) -> list[tuple[Any, dict[str, Any]]]:
        import libvirt

        wanted = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
        wanted |= libvirt.VIR_DOMAIN_STATS_INTERFACE
        connection = self._connection(host.name)
        running = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
        with reported(f"{host.name}: statistics"):
            return list(connection.getAllDomainStats(wanted, running))

    # -- changing

    def start(self, number: int, action: VmAction, now: Seconds) -> None:  # noqa: ARG002 - part of the protocol
        """Hands the action to a worker thread."""
        try:
            self._workers.submit(self._work, number, action)
        except RuntimeError as error:
            raise DriverError(f"{action.describe()}: the hypervisors are closed") from error

    def finished(self, now: Seconds) -> list[Finished]:  # noqa: ARG002 - part of the protocol
        """Every action that ended since the last call."""
        found = []
        while self._finished:
            found.append(self._finished.popleft())
        return found

    def _work(self, number: int, action: VmAction) -> None:
        try:
            sentence = self._do(action)
            self._finished.append(Finished(number, True, sentence, self._clock()))
        except DriverError as error:
            self._finished.append(Finished(number, False, str(error), self._clock()))
        except Exception as error:  # an outcome must come back, whatever happened
            LOG.exception("action failed", action=action.describe())
            self._finished.append(Finished(number, False, f"{action.describe()}: {error!r}", self._clock()))

    def _do(self, action: VmAction) -> str:
        if isinstance(action, MigrateVm):
            return self._migrate(action)
        host, domain = self._find(action.vm)
        if isinstance(action, SetCpuLimit):
            domain.set_limit_cores(action.after, domain.vcpus())
        elif isinstance(action, SetMemory):
            domain.set_memory(action.after)
        else:
            self._set_vcpus(domain, action)
        self._forget_limits(host, action.vm)
        return f"done: {action.describe()}"

    def _set_vcpus(self, domain: Domain, action: SetVcpus) -> None:
        """Keeps the limit in cores: a new vCPU would bring its own quota."""
        before = domain.vcpus()
        limited = domain.quota() is not None
        limit = domain.limit_cores(before)
        if limited and action.after > before:
            domain.set_limit_cores(limit * before / action.after, before)
        domain.set_vcpus(action.after)
        if limited:
            domain.set_limit_cores(min(limit, float(action.after)), action.after)

    def _migrate(self, action: MigrateVm) -> str:
        destination = self._hosts.get(action.after)
        if destination is None:
            raise DriverError(f"{action.after}: no such host in the settings")
        domain = self._domain(action.before, action.vm)
        vcpus = domain.vcpus()
        limit = domain.limit_cores(vcpus)
        overdue = threading.Timer(self._migration_limit_s, self._abort, (domain,))
        overdue.daemon = True
        overdue.start()
        try:
            domain.migrate(destination.migration_uri)
        finally:
            overdue.cancel()
        self._forget_limits(action.after, action.vm)
        try:
            self._keep_limit(self._domain(action.after, action.vm), limit, vcpus)
        except DriverError as error:  # it has moved all the same
            return f"done: {action.describe()}, but its CPU limit could not be checked there: {error}"
        return f"done: {action.describe()}"

    @staticmethod
    def _keep_limit(arrived: Domain, limit: float, vcpus: int) -> None:
        if limit < vcpus and abs(arrived.limit_cores(vcpus) - limit) > LIMIT_TOLERANCE_CORES:
            arrived.set_limit_cores(limit, vcpus)

    @staticmethod
    def _abort(domain: Domain) -> None:
        with contextlib.suppress(DriverError):  # it may just have ended by itself
            domain.abort()

    def _forget_limits(self, host: str, vm: str) -> None:
        for key in [one for one in list(self._limits) if one[:2] == (host, vm)]:
            self._limits.pop(key, None)

    # -- connections

    def _find(self, vm: str) -> tuple[str, Domain]:
        problems = []
        for name in self._hosts:
            try:
                return name, self._domain(name, vm)
            except DriverError as error:
                problems.append(str(error))
        raise DriverError(f"{vm}: not running on any host ({'; '.join(problems)})")

    def _domain(self, host: str, vm: str) -> Domain:
        with reported(f"{host}: looking for {vm}"):
            raw = self._connection(host).lookupByName(vm)
            if not raw.isActive():
                raise DriverError(f"{vm}: not running on {host}")
        return Domain(raw, vm)

    def _connection(self, host: str) -> Any:
        """The host's connection, opened again when it was lost."""
        if host not in self._hosts:
            raise DriverError(f"{host}: no such host in the settings")
        import libvirt

        with self._opening, reported(f"{host}: connecting to {self._hosts[host].uri}"):
            known = self._connections.get(host)
            if known is not None and known.isAlive():
                return known
            libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised, not printed
            self._connections[host] = libvirt.open(self._hosts[host].uri)
            return self._connections[host]

    def close(self) -> None:
        """Waits for actions under way (migrations end by their limit), then drops the connections."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections.values():
            with contextlib.suppress(DriverError), reported("closing a connection"):
                connection.close()
        self._connections.clear()


def _host_load(host: HostSpec, machines: Sequence[VmLoad], now: Seconds) -> HostLoad:
    cores = sum(one.cpu_cores_used for one in machines)
    memory = sum(one.memory_bytes_limit for one in machines)
    return HostLoad(host.name, now, cores, host.cpu_cores_capacity, memory, host.memory_bytes_capacity)
