"""Switches whose flow counters are not to be believed: they stand still, are missing, or go backwards."""

from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from ryu_apps.effects import Alert
from ryu_apps.openflow import FlowColumns
from ryu_apps.telemetry.counters import UNAVAILABLE

Seconds = float

COUNTERS = "switch_counters"
# Entries this old that never counted anything while the switch received so many packets do not count at all.
STILL_S, STILL_ENTRIES, STILL_PACKETS = 10.0, 2, 200
# So many entries that fell though nobody cleared them are no accident; forgotten after so long without another.
FALLS, FALLS_S = 3, 300.0
_INSTEAD = "pairs that enter there have no rows, rather than wrong ones; sFlow, NetFlow or IPFIX can tell of them"


@dataclass(slots=True)
class _SwitchDoubts:
    """What was seen of one switch. `received` counts packets since nothing moved in its entries.

    `asked` is the question how much all our rules counted, and `counted` the answer.
    """

    received: int = 0
    asked: int | None = None
    counted: int | None = None
    falls: deque[Seconds] = field(default_factory=lambda: deque(maxlen=FALLS))
    reason: str | None = None


class CounterDoubts:
    """Looks at all counters of a switch together, once for each answer."""

    def __init__(self) -> None:
        self._switches: dict[int, _SwitchDoubts] = {}

    def port_received(self, dpid: int, packets: int) -> None:
        """So many packets more came in at one of its ports."""
        self._switches.setdefault(dpid, _SwitchDoubts()).received += packets

    def look(self, dpid: int, columns: FlowColumns, fallen: int, now: Seconds) -> str | None:
        """Why this answer is not to be believed; `fallen` entries of it are less than before, and are no new ones."""
        state = self._switches.setdefault(dpid, _SwitchDoubts())
        state.falls.extend([now] * min(fallen, FALLS))
        if any(columns.packets) or any(columns.bytes):
            state.received, state.counted = 0, None
        state.reason = _doubt(state, columns, now)
        return state.reason

    def ask(self, known: Container[int], ask_count: Callable[[int], int]) -> None:
        """Asks what all our rules counted, of switches whose pairs count nothing: `ask_count(dpid)` gives a number."""
        for dpid, state in self._switches.items():
            if dpid in known and state.received >= STILL_PACKETS and not state.counted:
                state.asked = ask_count(dpid)

    def answered(self, dpid: int, xid: int, packets: int) -> None:
        """So many packets were counted by all our rules together."""
        state = self._switches.get(dpid)
        if state is not None and state.asked == xid:
            state.counted = packets

    def forget(self, dpid: int) -> None:
        """The switch is gone."""
        self._switches.pop(dpid, None)

    def alerts(self, name_of: Callable[[int], str]) -> Iterable[Alert]:
        """One for each switch that is doubted."""
        for dpid, state in self._switches.items():
            if state.reason is not None:
                name = name_of(dpid)
                yield Alert(COUNTERS, name, name, f"{name} {state.reason}: {_INSTEAD}")


def _doubt(state: _SwitchDoubts, columns: FlowColumns, now: Seconds) -> str | None:
    if len(state.falls) == FALLS and now - state.falls[0] <= FALLS_S:
        return "counts backwards"
    if not columns.bytes:
        return None
    if all(size == UNAVAILABLE for size in columns.bytes):
        return "has no byte counters"
    packets, size = sum(columns.packets), sum(columns.bytes)
    if packets and not size:
        return "counts packets and no bytes"
    old = sum(age_s >= STILL_S for age_s in columns.age_s)
    if not packets and old >= STILL_ENTRIES and state.received >= STILL_PACKETS and state.counted == 0:
        # Pairs may rest; but every packet is counted by some rule.
        return f"has flow counters that do not move, while it received {state.received} packets"
    return None
