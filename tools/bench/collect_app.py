"""One statistics poll of a real switch, measured inside the controller's process: run by `tools.bench.collect`.

`ryu-manager tools.bench.collect_app`, told by environment variables; prints one JSON object and ends.
"""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from ryu_apps.framework import MAIN_DISPATCHER, OPENFLOW_13, FrameworkApp, handles, ofp_event, ofproto, sleep, spawn
from ryu_apps.openflow import FlowColumns
from ryu_apps.settings import ConnectionsSection
from ryu_apps.switch.connections import harden
from ryu_apps.switch.wire import Wire

# "forepath" or "ryu", and how many polls
READER = "FOREPATH_BENCH_READER"
POLLS = "FOREPATH_BENCH_POLLS"
_BEAT_S = 0.005
_REST_S = 1.0
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll cost. Stalls are gaps between two beats of a 5 ms heartbeat, by the wall clock and in CPU time."""

    entries: int
    bytes_counted: int
    wall_s: float
    cpu_s: float
    stall_s: float
    stall_cpu_s: float
    peak_memory_bytes: int


class Heartbeat:
    """A green thread that wants to run every 5 ms, and knows the longest time it was not let."""

    def __init__(self) -> None:
        self.longest_s = self.longest_cpu_s = 0.0
        spawn(self._beat)

    def _beat(self) -> None:
        while True:
            wall, cpu = time.monotonic(), time.process_time()
            sleep(_BEAT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - wall)
            self.longest_cpu_s = max(self.longest_cpu_s, time.process_time() - cpu)


class CollectApp(FrameworkApp):
    """Polls the first switch that connects."""

    OFP_VERSIONS = (OPENFLOW_13,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ours = os.environ[READER] == "forepath"
        if self._ours:
            harden(ConnectionsSection())
        self._polls = int(os.environ[POLLS])
        self._parts: list[Any] = []
        self._xid: int | None = None
        self._busy = False

    @handles(ofp_event.EventOFPStateChange, MAIN_DISPATCHER)
    def on_state(self, event: Any) -> None:
        """The switch is there."""
        if not self._busy:
            self._busy = True
            spawn(self._measure, Wire(event.datapath))

    @handles(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flows(self, event: Any) -> None:
        """Part of the answer."""
        message = event.msg
        if message.xid == self._xid:
            self._parts.append(message.columns if self._ours else message.body)
            if not message.flags & ofproto.OFPMPF_REPLY_MORE:
                self._xid = None

    def _measure(self, wire: Wire) -> None:
        heart, polls = Heartbeat(), []
        for _ in range(self._polls):
            sleep(_REST_S)
            polls.append(asdict(self._poll(wire, heart)))
        sys.stdout.write(json.dumps(polls) + "\n")
        sys.stdout.flush()
        os._exit(0)

    def _poll(self, wire: Wire, heart: Heartbeat) -> Poll:
        heart.longest_s = heart.longest_cpu_s = 0.0
        wall, cpu = time.monotonic(), time.process_time()
        self._xid = wire.ask_rules()
        while self._xid is not None:
            sleep(_BEAT_S)
        entries, counted = self._add_up()
        sleep(0)
        cost = time.monotonic() - wall, time.process_time() - cpu
        # The beat after a stall comes late itself.
        sleep(2 * _BEAT_S)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        return Poll(entries, counted, *cost, heart.longest_s, heart.longest_cpu_s, peak)

    def _add_up(self) -> tuple[int, int]:
        # Both readers touch every entry's cookie and counters once.
        parts, self._parts = self._parts, []
        if self._ours:
            whole = FlowColumns.joined(parts)
            return len(whole.cookie), sum(whole.bytes) + sum(whole.packets)
        entries = [entry for part in parts for entry in part]
        return len(entries), sum(entry.byte_count + entry.packet_count + 0 * entry.cookie for entry in entries)
