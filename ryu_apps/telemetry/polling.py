"""Asks every switch for its counters again and again, each at its own pace, and puts long answers together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ryu_apps.framework import kill, ofproto, sleep, spawn
from ryu_apps.openflow import FlowColumns, PortColumns
from ryu_apps.switch.wire import Wire
from ryu_apps.telemetry.counters import Entry

Seconds = float


@dataclass(frozen=True, slots=True)
class PortSample:
    """One port's counters."""

    dpid: int
    port: int
    t: Seconds
    age_s: Seconds
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    rx_packets: int
    rx_bytes: int
    rx_dropped: int


# An answer that has not come after so many periods is given up; a switch that answers slowly is asked less often.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Filter:
    """Which flow entries to ask for, and whether what they match is wanted besides their counters."""

    cookie: int = 0
    mask: int = 0
    table: int = ofproto.OFPTT_ALL
    matches: bool = False


@dataclass(slots=True)
class _Watch:
    thread: Any = None
    waiting: dict[int, list[Any]] = field(default_factory=dict)
    rounds: int = 0


class Polling:
    """One green thread a switch. Only answers to own questions count: other applications may ask as well."""

    def __init__(self, every_s: Seconds, flows: Filter) -> None:
        self._every_s = every_s
        self._flows = flows
        self._watches: dict[int, _Watch] = {}

    def start(self, wire: Wire) -> None:
        """Begins to ask a switch."""
        self.stop(wire.dpid)
        watch = self._watches[wire.dpid] = _Watch()
        watch.thread = spawn(self._ask, wire, watch)

    def stop(self, dpid: int) -> None:
        """Stops asking."""
        watch = self._watches.pop(dpid, None)
        if watch is not None:
            kill(watch.thread)

    def _ask(self, wire: Wire, watch: _Watch) -> None:
        # Switches that connect together are asked apart.
        sleep(self._every_s * (wire.dpid * 0.618 % 1))
        while True:
            if not watch.waiting or watch.rounds >= PATIENCE:
                watch.rounds = 0
                asked = (wire.ask_rules(self._flows.cookie, self._flows.mask, self._flows.table), wire.ask_ports())
                watch.waiting = {xid: [] for xid in asked}
            watch.rounds += 1
            sleep(self._every_s)

    def refused(self, dpid: int, xid: int) -> None:
        """The switch will not answer that question: there is nothing to wait for."""
        watch = self._watches.get(dpid)
        if watch is not None:
            watch.waiting.pop(xid, None)

    def gather(self, message: Any) -> Any:
        """Columns of the whole answer once its last part is here; None before that, or when others had asked."""
        watch = self._watches.get(message.datapath.id)
        if watch is None or message.xid not in watch.waiting:
            return None
        part = message.columns
        if self._flows.matches and isinstance(part, FlowColumns):
            part.matches = message.matches()
        watch.waiting[message.xid].append(part)
        if message.flags & ofproto.OFPMPF_REPLY_MORE:
            return None
        parts = watch.waiting.pop(message.xid)
        return parts[0] if len(parts) == 1 else type(part).joined(parts)


def flow_entries(columns: FlowColumns) -> Iterable[Entry]:
    """Flow statistics as the accounts take them; the cookie is the key."""
    return zip(columns.cookie, columns.packets, columns.bytes, columns.age_s, strict=True)


def port_samples(dpid: int, columns: PortColumns, now: Seconds) -> list[PortSample]:
    """Counters of real ports; the switch's own local port is none."""
    rows = zip(
        columns.number, columns.age_s, columns.tx_packets, columns.tx_bytes, columns.tx_dropped,
        columns.rx_packets, columns.rx_bytes, columns.rx_dropped, strict=True,
    )  # fmt: skip
    return [PortSample(dpid, number, now, *rest) for number, *rest in rows if number < ofproto.OFPP_MAX]
