"""Frames that wait until their destination is found, and the brakes that keep floods away from the controller."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ryu_apps.rules import Match, PortId

Seconds = float

HOLD_S = 2.0
HOLD_MOST = 256
# This many frames a second to one unknown place, then the switch drops them itself for a while.
QUENCH_AFTER = 20
QUENCH_S = 2.0


@dataclass(frozen=True, slots=True)
class Held:
    """A frame that waits for the host with `address`."""

    at: PortId
    data: bytes
    address: str
    until: Seconds


@dataclass(frozen=True, slots=True)
class Quench:
    """Frames like this are dropped by a switch until then: their destination is nowhere."""

    dpid: int
    table: int
    match: Match
    until: Seconds


@dataclass(slots=True)
class Waiting:
    """Bounded memory of held frames, and counts of those that keep coming."""

    held: list[Held] = field(default_factory=list)
    quenched: dict[tuple[int, int, Match], Quench] = field(default_factory=dict)
    _counts: dict[tuple[int, int, Match], tuple[int, Seconds]] = field(default_factory=dict)

    def hold(self, frame: Held) -> None:
        """Keeps a frame if there is room."""
        if len(self.held) < HOLD_MOST:
            self.held.append(frame)

    def count(self, dpid: int, table: int, match: Match, now: Seconds) -> bool:
        """Counts a frame that cannot be delivered; True when a flood of them is to be quenched from now on."""
        key = (dpid, table, match)
        number, since = self._counts.get(key, (0, now))
        number, since = (number + 1, since) if now - since < 1.0 else (1, now)
        self._counts[key] = number, since
        if number <= QUENCH_AFTER or key in self.quenched:
            return False
        self.quenched[key] = Quench(dpid, table, match, now + QUENCH_S)
        return True

    def release(self, known: Callable[[str], bool]) -> list[Held]:
        """Frames whose destination is known by now; they no longer wait, and nothing stays quenched."""
        ready = [one for one in self.held if known(one.address)]
        self.held = [one for one in self.held if not known(one.address)]
        self.quenched.clear()
        return ready

    def expire(self, now: Seconds) -> bool:
        """Drops what has waited long enough; True when something is no longer quenched."""
        self.held = [one for one in self.held if one.until > now]
        self._counts = {key: value for key, value in self._counts.items() if now - value[1] < 1.0}
        before = len(self.quenched)
        self.quenched = {key: one for key, one in self.quenched.items() if one.until > now}
        return len(self.quenched) != before
