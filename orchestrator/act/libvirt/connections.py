"""One libvirt connection a host: opened when needed, listened to, opened again when it was lost."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from cpdb import DriverError, Seconds
from orchestrator.act.libvirt.domain import Domain, reported, within
from orchestrator.declared import HostSpec

LOG = structlog.get_logger(__name__)
What = Literal["started", "stopped", "left", "paused", "round", "job", "memory", "tuned", "agent"]
# Seconds between questions whether the other side lives, and how many may go unanswered.
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3
_STARTING = threading.Lock()
_running = False


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """One event. "left": it went to another host; "round" and "job" are about a migration (`figures` of the job)."""

    host: str
    vm: str
    what: What
    figures: Mapping[str, Any]


Hear = Callable[[MachineEvent], None]


def run_loop() -> None:
    """Starts the one event loop of this process; before the first connection is opened, or it stays deaf."""
    global _running
    import libvirt

    with _STARTING:
        if not _running:
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_loop, name="libvirt-events", daemon=True).start()
            _running = True


def _loop() -> None:
    import libvirt

    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            LOG.warning("libvirt's event loop failed; it goes on", error=str(error))
            time.sleep(1.0)


def listen(connection: Any, host: str, hear: Hear) -> list[int]:
    """Registers for everything that the host's driver can tell; the numbers are for `stop_listening`."""
    import libvirt

    def tell(domain: Any, what: What, figures: Mapping[str, Any]) -> None:
        hear(MachineEvent(host, domain.name(), what, figures))

    found = []
    for event, callback in _callbacks(libvirt, tell).items():
        try:
            found.append(connection.domainEventRegisterAny(None, event, callback, None))
        except libvirt.libvirtError:  # this driver does not know that event
            continue
    try:
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:  # drivers without a daemon have nobody to keep alive
        LOG.debug("no keepalive", host=host, error=str(error))
    return found


def stop_listening(connection: Any, numbers: list[int]) -> None:
    """The opposite; a connection that is dead already has nothing to say."""
    import libvirt

    for number in numbers:
        try:
            connection.domainEventDeregisterAny(number)
        except libvirt.libvirtError:
            return


Tell = Callable[[Any, What, Mapping[str, Any]], None]


def _callbacks(libvirt: Any, tell: Tell) -> dict[int, Callable[..., None]]:
    """libvirt calls with (connection, domain, what is special to the event ..., opaque)."""
    return {
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda _c, domain, event, detail, _o: _lifecycle(
            tell, domain, event, detail
        ),
        libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION: lambda _c, domain, rounds, _o: tell(
            domain, "round", {"rounds": rounds}
        ),
        libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: lambda _c, domain, stats, _o: tell(domain, "job", dict(stats)),
        libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE: lambda _c, domain, kib, _o: tell(domain, "memory", {"kib": kib}),
        libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE: lambda _c, domain, _alias, kib, _o: tell(
            domain, "memory", {"plugged_kib": kib}
        ),
        libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE: lambda _c, domain, changed, _o: tell(domain, "tuned", dict(changed)),
        libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: lambda _c, domain, state, _reason, _o: tell(
            domain, "agent", {"state": state}
        ),
    }


# virDomainEventType; DEFINED (0), UNDEFINED (1) and PMSUSPENDED (7) change nothing that is measured.
_LIFECYCLE: Mapping[int, What] = {2: "started", 3: "paused", 4: "started", 5: "stopped", 6: "stopped", 8: "stopped"}
STOPPED, STOPPED_MIGRATED = 5, 3
# A copy's last moments are no pause: suspended because it migrates, or switched to post-copy.
SUSPENDED, SUSPENDED_TO_MOVE = 3, (1, 7)


def _lifecycle(tell: Tell, domain: Any, event: int, detail: int) -> None:
    what = _LIFECYCLE.get(event)
    if event == STOPPED and detail == STOPPED_MIGRATED:
        what = "left"
    if event == SUSPENDED and detail in SUSPENDED_TO_MOVE:
        return
    if what is not None:
        tell(domain, what, {"event": event, "detail": detail})


OPEN_LIMIT_S = 5.0
# A host that could not be reached is not tried again by everyone who asks for it.
PAUSE_S = 3.0


def _unheard(_heard: MachineEvent) -> None:
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
