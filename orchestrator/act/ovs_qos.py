"""Guaranteed queues on Open vSwitch ports: DSCP 46 goes into a queue of its own, and may always send its share.

Per port: a linux-htb QoS with queue 0 for everything and queue 1 for what is marked, and a kernel filter that sorts by
mark. The filter is needed because Open vSwitch's userspace datapath ignores the OpenFlow action set_queue. Both
queues borrow what the other leaves, so a guarantee costs nothing while nobody uses it.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog

from cpdb import DriverError, Seconds
from orchestrator.act.ovsdb import SwitchDatabase
from orchestrator.config import QUEUE_DSCP
from orchestrator.declared import QueueSpec

LOG = structlog.get_logger(__name__)
COMMAND_S = 5
# The name under which rows in the switch's database are ours.
TAG = "forepath"
BEFORE_TAG = "forepath-queue-packets"
# All ports of a userspace switch share one send buffer (208 KiB): a flood waiting in a longer queue would fill it and
# starve every other queue, and even other ports. A leaf takes this length from the device when it is made.
USERSPACE_QUEUE_PACKETS = 50
# Open vSwitch makes queue N the class 1:(N+1).
CLASSES = frozenset({"1:1", "1:2"})
GUARANTEED_CLASS = "1:2"
TOS, TOS_MASK = QUEUE_DSCP << 2, 0xFC
_FILTER_ADD = ("tc", "filter", "add", "dev")
_FILTER = (
    # Packets on split paths have a VLAN tag, past which the kernel looks: so any protocol that begins as IPv4 does.
    "parent", "1:", "protocol", "all", "prio", "2", "u32", "match", "u8", "0x40", "0xf0", "at", "0",
    "match", "u8", hex(TOS), hex(TOS_MASK), "at", "1", "flowid", GUARANTEED_CLASS,
)  # fmt: skip
_COUNTS = re.compile(
    rf"^class htb {GUARANTEED_CLASS} [^\n]*\n\s*Sent \d+ bytes (\d+) pkt \(dropped (\d+),", re.MULTILINE
)
Rates = tuple[tuple[str, str | None, str | None], ...]


class QueueCounts(NamedTuple):
    """Packets that a queue has sent and dropped since it was made."""

    sent: int
    dropped: int


@dataclass(frozen=True, slots=True)
class QosChange:
    """One transaction on the switch's database: rows of ours that go, and the rates of those that come, if any do."""

    destroyed: tuple[str, ...] = ()
    made: Rates = ()
    queue_packets_before: int = 0


Step = QosChange | Sequence[str]


@dataclass(frozen=True, slots=True)
class PortState:
    """What a port has now: rows of the switch's database, and what the kernel really holds."""

    port_exists: bool
    userspace: bool = False
    qos: str | None = None
    own: tuple[str, ...] = ()
    rates: Rates = ()
    classes: frozenset[str] = frozenset()
    sorted_by_mark: bool = False
    queue_packets: int = 0
    queue_packets_before: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether the port has a QoS that somebody else made."""
        return self.qos is not None and self.qos not in self.own


def rates(spec: QueueSpec) -> Rates:
    """(queue, min-rate, max-rate) of the QoS itself ("all") and of its queues, in bit/s as Open vSwitch writes them."""
    whole = int(spec.capacity_bytes_per_s * 8)
    guaranteed = int(whole * spec.guaranteed_share)
    return (("0", str(whole - guaranteed), str(whole)), ("1", str(guaranteed), str(whole)), ("all", None, str(whole)))


def faults(spec: QueueSpec, seen: PortState) -> tuple[str, ...]:
    """What is not as it should be; empty when marked packets have their guarantee."""
    if not seen.port_exists:
        return (f"no switch has a port {spec.device}",)
    if seen.foreign:
        return (f"{spec.device} has a QoS that forepath did not make; clear it, or leave out queue_device",)
    if seen.qos is None:
        return ("it has no QoS",)
    wrong = [] if seen.rates == rates(spec) else ["its QoS has other rates"]
    if not seen.classes >= CLASSES:
        wrong.append("the kernel has no such queues")
    if not seen.sorted_by_mark:
        wrong.append(f"nothing sends DSCP {QUEUE_DSCP} into the queue")
    return tuple(wrong)


def making(spec: QueueSpec, seen: PortState) -> list[Step]:
    """The commands and changes that make what is missing, in the order that matters; none when all is well."""
    wrong = faults(spec, seen)
    remake = seen.qos is None or seen.rates != rates(spec) or not seen.classes >= CLASSES
    steps: list[Step] = []
    if wrong and remake:
        if seen.own:
            steps.append(QosChange(seen.own))
        if seen.userspace:
            steps.append(_queue_length(spec, USERSPACE_QUEUE_PACKETS))
        before = seen.queue_packets if seen.queue_packets_before is None else seen.queue_packets_before
        steps.append(QosChange((), rates(spec), before))
    if wrong:  # making the QoS anew deletes the filter with it
        steps.append([*_FILTER_ADD, spec.device, *_FILTER])
    return steps


def removing(spec: QueueSpec, seen: PortState) -> list[Step]:
    """The commands and changes that take away what is ours; none when nothing is."""
    if not seen.own:
        return []
    before = seen.queue_packets_before
    restore = [_queue_length(spec, before)] if seen.port_exists and before not in (None, seen.queue_packets) else []
    return [QosChange(seen.own), *restore]


def _queue_length(spec: QueueSpec, packets: int | None) -> list[str]:
    return ["ip", "link", "set", "dev", spec.device, "txqueuelen", str(packets)]


class OvsQueues:
    """The declared queues on this machine's switches. Needs root. Nothing here decides anything.

    `database` is where ovsdb-server listens, e.g. unix:/run/openvswitch/db.sock; None is Open vSwitch's own default.
    """

    def __init__(self, specs: Iterable[QueueSpec], database: str | None = None) -> None:
        self.specs = tuple(specs)
        self._database = database or f"unix:{os.environ.get('OVS_RUNDIR', '/var/run/openvswitch')}/db.sock"

    def faults(self, spec: QueueSpec) -> tuple[str, ...]:
        """What is not as it should be. Touches nothing. Raises DriverError when it cannot be known."""
        with self._opened(spec) as database:
            return faults(spec, _seen(database, spec))

    def ensure(self, spec: QueueSpec) -> tuple[str, ...]:
        """Makes or repairs a queue and reads it back; returns what was wrong before, empty when nothing was done.

        Raises DriverError when the port is not there, when its QoS is somebody else's, or when the switch refuses.
        """
        with self._opened(spec) as database:
            seen = _seen(database, spec)
            wrong = faults(spec, seen)
            if not wrong:
                return ()
            if not seen.port_exists or seen.foreign:
                raise DriverError(wrong[0])
            _do(database, spec, making(spec, seen))
            if left := faults(spec, _seen(database, spec)):
                raise DriverError(f"made, but {'; '.join(left)}")
        LOG.info("queue made", link=spec.link, device=spec.device, because="; ".join(wrong))
        return wrong

    def remove(self, spec: QueueSpec) -> None:
        """Takes away what `ensure` made, also when the port has gone; no more than that. Raises DriverError."""
        with self._opened(spec) as database:
            _do(database, spec, removing(spec, _seen(database, spec)))

    def counts(self, spec: QueueSpec) -> QueueCounts:
        """Packets that the guaranteed queue has sent and dropped since it was made. Raises DriverError."""
        with _about(spec):
            counts = _COUNTS.search(_run(["tc", "-s", "class", "show", "dev", spec.device]))
        return QueueCounts(int(counts[1]), int(counts[2])) if counts else QueueCounts(0, 0)

    @contextmanager
    def _opened(self, spec: QueueSpec) -> Iterator[SwitchDatabase]:
        with _about(spec):
            database = SwitchDatabase(self._database)
            try:
                yield database
            finally:
                database.close()


@contextmanager
def _about(spec: QueueSpec) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise DriverError(f"queue of {spec.link} on {spec.device}: {error}") from error


def _do(database: SwitchDatabase, spec: QueueSpec, steps: Iterable[Step]) -> None:
    for step in steps:
        if isinstance(step, QosChange):
            _change(database, spec, step)
        else:
            _run(step)


def _change(database: SwitchDatabase, spec: QueueSpec, change: QosChange) -> None:
    with database.changing() as add:
        port = _port(database, spec)
        if port is not None:
            port.verify("qos")
            if any(str(row.uuid) in change.destroyed for row in port.qos):
                port.qos = []
        for row in (*database.rows("QoS"), *database.rows("Queue")):
            if str(row.uuid) in change.destroyed:
                row.delete()
        if change.made:
            port.qos = [_qos(add, spec, change)]


def _qos(add: Callable[[str], Any], spec: QueueSpec, change: QosChange) -> Any:
    *queues, (_, _, most) = change.made
    qos, rows = add("QoS"), {}
    qos.type, qos.other_config = "linux-htb", {"max-rate": most}
    qos.external_ids = {TAG: spec.link, BEFORE_TAG: str(change.queue_packets_before)}
    for number, least, most in queues:
        rows[int(number)] = queue = add("Queue")
        queue.external_ids, queue.other_config = {TAG: spec.link}, {"min-rate": least, "max-rate": most}
    qos.queues = rows
    return qos


def _port(database: SwitchDatabase, spec: QueueSpec) -> Any:
    return next((row for row in database.rows("Port") if row.name == spec.device), None)


def _seen(database: SwitchDatabase, spec: QueueSpec) -> PortState:
    ours = [row for table in ("QoS", "Queue") for row in database.rows(table) if row.external_ids.get(TAG) == spec.link]
    own, port = tuple(sorted(str(row.uuid) for row in ours)), _port(database, spec)
    if port is None:
        return PortState(False, own=own)
    before = next((row.external_ids[BEFORE_TAG] for row in ours if BEFORE_TAG in row.external_ids), None)
    qos = next(iter(port.qos), None)
    classes = frozenset(re.findall(r"^class htb (\S+) ", _run(_tc("class", spec)), re.MULTILINE))
    links = json.loads(_run(["ip", "-j", "link", "show", "dev", spec.device]))
    return PortState(
        port_exists=True,
        userspace=any(row.datapath_type == "netdev" and port in row.ports for row in database.rows("Bridge")),
        qos=str(qos.uuid) if qos else None,
        own=own,
        rates=_rates_of(qos) if qos else (),
        classes=classes,
        sorted_by_mark=GUARANTEED_CLASS in classes and _sorts(_run([*_tc("filter", spec), "parent", "1:"])),
        queue_packets=int(links[0].get("txqlen", 0)),
        queue_packets_before=int(before) if before else None,
    )


def _rates_of(qos: Any) -> Rates:
    configs = {str(number): row.other_config for number, row in qos.queues.items()} | {"all": qos.other_config}
    return tuple((name, config.get("min-rate"), config.get("max-rate")) for name, config in sorted(configs.items()))


def _run(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S + 1, check=False)
    except FileNotFoundError as error:
        raise DriverError(f"{words[0]} is not installed on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"{words[0]} did not answer within {COMMAND_S + 1} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        raise DriverError(f"`{' '.join(words)[:120]}` failed: {said[:200]}")
    return done.stdout


def _tc(kind: str, spec: QueueSpec) -> list[str]:
    return ["tc", kind, "show", "dev", spec.device]


def _sorts(filters: str) -> bool:
    """Whether tc's list of filters has ours; text, because older tc versions have no JSON here."""
    wanted = rf"flowid {GUARANTEED_CLASS}\b[^\n]*\n\s*match 40{TOS:02x}0000/f0{TOS_MASK:02x}0000 at 0\b"
    return re.search(wanted, filters) is not None


LOOK_EVERY_S = 10.0


class Queues(Protocol):
    """Guaranteed queues, made, looked at and removed one by one."""

    specs: tuple[QueueSpec, ...]

    def faults(self, spec: QueueSpec) -> tuple[str, ...]:
        """What is not as it should be. Touches nothing. Raises DriverError."""

    def ensure(self, spec: QueueSpec) -> tuple[str, ...]:
        """Makes or repairs; returns what was wrong before. Raises DriverError."""

    def remove(self, spec: QueueSpec) -> None:
        """Takes away what `ensure` made. Raises DriverError."""

    def counts(self, spec: QueueSpec) -> QueueCounts:
        """Packets sent and dropped by the guaranteed queue since it was made. Raises DriverError."""


def whole(queues: Queues) -> frozenset[str]:
    """Links whose queue stands as declared. Touches nothing; what cannot be looked at does not stand."""
    return frozenset(spec.link for spec in queues.specs if _stands(queues, spec, act=False))


def kept(queues: Queues) -> frozenset[str]:
    """As `whole`, after what was missing has been made."""
    return frozenset(spec.link for spec in queues.specs if _stands(queues, spec, act=True))


def _stands(queues: Queues, spec: QueueSpec, act: bool) -> bool:
    try:
        if not act:
            return not queues.faults(spec)
        queues.ensure(spec)
    except DriverError as error:
        LOG.warning("no guaranteed queue; meters are used on this link", link=spec.link, error=str(error))
        return False
    return True


def counted(queues: Queues) -> dict[str, QueueCounts]:
    """Packets sent and dropped by each guaranteed queue; one that cannot be read is left out."""
    counts = {}
    for spec in queues.specs:
        try:
            counts[spec.link] = queues.counts(spec)
        except DriverError as error:
            LOG.debug("queue not counted", link=spec.link, error=str(error))
    return counts


class QueueKeeper:
    """Looks at the queues every `every_s` seconds in a thread; with `act` it makes, repairs and in the end removes."""

    def __init__(self, queues: Queues, act: bool, every_s: Seconds = LOOK_EVERY_S) -> None:
        self._queues = queues
        self._act = act
        self._every_s = every_s
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="queues")
        self._look: Future[frozenset[str]] | None = None
        self._due: Seconds | None = None
        self._ready: frozenset[str] = frozenset()
        self._count: Future[dict[str, QueueCounts]] | None = None
        self._counts: dict[str, QueueCounts] = {}
        self._losses: dict[str, float] = {}

    def ready(self, now: Seconds, paused: bool = False) -> frozenset[str]:
        """Links whose queue was whole at the last look that ended; begins the next when due. `paused` only looks."""
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            self._ready = frozenset()
            self._ready = look.result()
        if self._look is None and (self._due is None or now >= self._due):
            self._due = now + self._every_s
            self._look = self._worker.submit(kept if self._act and not paused else whole, self._queues)
        return self._ready

    def losses(self) -> dict[str, float]:
        """The share of packets that each guaranteed queue has lately dropped; begins the next count."""
        if self._count is not None and self._count.done():
            before, self._counts, self._count = self._counts, self._count.result(), None
            self._losses = {link: _share(before.get(link), now) for link, now in self._counts.items()}
        if self._count is None:
            self._count = self._worker.submit(counted, self._queues)
        return self._losses

    def close(self, remove: bool = True) -> None:
        """Waits for a look under way (bounded by its commands' limits), then removes the queues if it may act.

        Without `remove` they are left to another who looks after them.
        """
        self._worker.shutdown(wait=True)
        for spec in self._queues.specs if self._act and remove else ():
            try:
                self._queues.remove(spec)
            except DriverError as error:
                LOG.warning("queue not removed", link=spec.link, error=str(error))


def _share(before: QueueCounts | None, now: QueueCounts) -> float:
    """Of the packets since `before`; a queue that was made anew in between has not lost any."""
    sent, dropped = (now.sent - before.sent, now.dropped - before.dropped) if before else (0, 0)
    return dropped / (sent + dropped) if dropped > 0 and sent >= 0 else 0.0
