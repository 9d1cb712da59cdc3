"""One libvirt connection a host: opened when needed, listened to, opened again when it was lost."""

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Any

from cpdb import DriverError, Seconds
from orchestrator.config import HostSpec
from orchestrator.drivers.domain import Domain, reported
from orchestrator.drivers.events import Hear, Heard, listen, run_loop, stop_listening
from orchestrator.drivers.patience import within

OPEN_LIMIT_S = 5.0
# A host that could not be reached is not tried again by everyone who asks for it.
PAUSE_S = 3.0


def _unheard(_heard: Heard) -> None:
    return None


class Absent(DriverError):
    """The host answers, and does not run that machine."""


class Connections:
    """Connections by host name. Errors are DriverErrors of one line."""

    def __init__(self, hosts: Iterable[HostSpec], hear: Hear = _unheard) -> None:
        self.hosts = {one.name: one for one in hosts}
        self._hear = hear
        self._open: dict[str, tuple[Any, list[int]]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._opening = {name: threading.Lock() for name in self.hosts}

    def of(self, host: str) -> Any:
        """The host's connection, opened again when it was lost. Raises DriverError."""
        if host not in self.hosts:
            raise DriverError(f"{host}: no such host in the settings")
        with self._opening[host]:
            known = self._open.get(host)
            if known is not None:
                if _alive(known[0]):
                    return known[0]
                del self._open[host]
            return self._opened(host)

    def _opened(self, host: str) -> Any:
        failed_at, problem = self._failed.get(host, (0.0, ""))
        if problem and time.monotonic() - failed_at < PAUSE_S:
            raise DriverError(problem)
        uri = self.hosts[host].uri
        try:
            found = within(OPEN_LIMIT_S, lambda: _opened(uri, host), f"{host}: connecting to {uri}")
        except DriverError as error:
            self._failed[host] = time.monotonic(), str(error)
            raise
        self._failed.pop(host, None)
        self._open[host] = found, listen(found, host, self._hear)
        return found

    def domain(self, host: str, vm: str) -> Domain:
        """The running machine on that host. Raises DriverError when it does not run there."""
        import libvirt

        doing = f"{host}: looking for {vm}"
        try:
            with reported(doing):
                raw = self.of(host).lookupByName(vm)
                if not raw.isActive():
                    raise Absent(f"{vm}: not running on {host}")
        except DriverError as error:
            cause = error.__cause__
            if isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise Absent(str(error)) from error
            raise
        return Domain(raw, vm)

    def find(self, vm: str) -> tuple[str, Domain]:
        """The machine and the host that runs it. Raises DriverError when none does."""
        problems = []
        for name in self.hosts:
            try:
                return name, self.domain(name, vm)
            except Absent:
                continue
            except DriverError as error:
                problems.append(str(error))
        if problems:
            raise DriverError(f"{vm}: its host does not answer ({'; '.join(problems)})")
        raise DriverError(f"{vm}: not running on any host; it was stopped or removed")

    def close(self, limit_s: Seconds = 2.0) -> None:
        """Drops all connections; what does not answer is left to itself."""
        known, self._open = self._open, {}
        for host, (connection, numbers) in known.items():
            with contextlib.suppress(DriverError):
                within(limit_s, lambda held=connection, own=numbers: _closed(held, own), f"{host}: closing")  # type: ignore[misc]


def _alive(connection: Any) -> bool:
    import libvirt

    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _opened(uri: str, host: str) -> Any:
    import libvirt

    run_loop()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised, not printed
    with reported(f"{host}: connecting to {uri}"):
        return libvirt.open(uri)


def _closed(connection: Any, numbers: list[int]) -> None:
    with contextlib.suppress(DriverError), reported("closing a connection"):
        stop_listening(connection, numbers)
        connection.close()
