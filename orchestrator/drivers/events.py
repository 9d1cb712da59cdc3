"""What libvirt tells by itself: machines that stop or change without being asked make what was read of them stale."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

LOG = structlog.get_logger(__name__)
What = Literal["started", "stopped", "left", "paused", "round", "job", "memory", "tuned", "agent"]
# Seconds between questions whether the other side lives, and how many may go unanswered.
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3
_STARTING = threading.Lock()
_running = False


@dataclass(frozen=True, slots=True)
class Heard:
    """One event. "left": it went to another host; "round" and "job" are about a migration (`figures` of the job)."""

    host: str
    vm: str
    what: What
    figures: Mapping[str, Any]


Hear = Callable[[Heard], None]


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
        hear(Heard(host, domain.name(), what, figures))

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
