"""Asks every switch for its counters again and again, each at its own pace, and puts long answers together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ryu_apps.datapath import Wire
from ryu_apps.framework import kill, ofproto, sleep, spawn
from ryu_apps.samples import FlowSample, PortSample

Seconds = float

# An answer that has not come after so many periods is given up; a switch that answers slowly is asked less often.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Filter:
    """Which flow entries to ask for."""

    cookie: int = 0
    mask: int = 0
    table: int = ofproto.OFPTT_ALL


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

    def gather(self, message: Any) -> list[Any] | None:
        """All entries of an answer once its last part is here; None before that, or when others had asked."""
        watch = self._watches.get(message.datapath.id)
        if watch is None or message.xid not in watch.waiting:
            return None
        watch.waiting[message.xid].extend(message.body)
        if message.flags & ofproto.OFPMPF_REPLY_MORE:
            return None
        return watch.waiting.pop(message.xid)


def _age(entry: Any) -> Seconds:
    return float(entry.duration_sec + entry.duration_nsec / 1e9)


def flow_sample(dpid: int, entry: Any, now: Seconds) -> FlowSample:
    """A flow entry's counters."""
    return FlowSample(dpid, entry.cookie, now, _age(entry), entry.packet_count, entry.byte_count)


def port_samples(dpid: int, entries: list[Any], now: Seconds) -> list[PortSample]:
    """Counters of real ports; the switch's own local port is none."""
    return [
        PortSample(
            dpid, one.port_no, now, _age(one),
            one.tx_packets, one.tx_bytes, one.tx_dropped, one.rx_packets, one.rx_bytes, one.rx_dropped,
        )
        for one in entries
        if one.port_no < ofproto.OFPP_MAX
    ]  # fmt: skip


Clock = Callable[[], Seconds]
