"""Whether connections still keep a path that their pair has left: by the counters of the rules that send them there."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from ryu_apps.openflow import WireEntry
from ryu_apps.rules import KIND_SHIFT, OWNER, OWNER_MASK, OWNER_SHIFT, TABLE_SHIFT, Kind, Table, is_ours
from ryu_apps.tables import Askable

Seconds = float

ASK_EVERY_S = 1.0
_COOKIE = OWNER << OWNER_SHIFT | Table.PAIR_BUCKETS << TABLE_SHIFT | Kind.PIN << KIND_SHIFT
_MASK = OWNER_MASK | 0xF << TABLE_SHIFT | 0xF << KIND_SHIFT


@dataclass(slots=True)
class _NextHopLook:
    """What a rule has counted, when that was first read, and when it was read last."""

    size: int
    since: Seconds
    at: Seconds


@dataclass(slots=True)
class NextHopCounts:
    """Asks switches where connections keep a path, and remembers since when each rule has counted nothing."""

    _looks: dict[tuple[int, int], _NextHopLook] = field(default_factory=dict)
    _waiting: dict[int, int] = field(default_factory=dict)
    _asked: Seconds = float("-inf")

    def ask(self, wires: Mapping[int, Askable], keeping: Set[int], now: Seconds) -> None:
        """Asks these switches, when it is time."""
        self._looks = {key: look for key, look in self._looks.items() if key[0] in keeping}
        if keeping and now - self._asked >= ASK_EVERY_S:
            self._asked = now
            asked = keeping & wires.keys()
            self._waiting = {dpid: wires[dpid].ask_rules(_COOKIE, _MASK, Table.PAIR_BUCKETS) for dpid in asked}

    def is_asked(self, dpid: int, xid: int) -> bool:
        """Whether an answer is one to our questions."""
        return self._waiting.get(dpid) == xid

    def take(self, dpid: int, entries: Iterable[WireEntry], now: Seconds) -> None:
        """A part of an answer."""
        for one in entries:
            if is_ours(one.cookie):
                self.count(dpid, one.cookie, one.size, now)

    def count(self, dpid: int, cookie: int, size: int, now: Seconds) -> None:
        """What the rule with this cookie has counted."""
        look = self._looks.get((dpid, cookie))
        since = look.since if look is not None and look.size == size else now
        self._looks[dpid, cookie] = _NextHopLook(size, since, now)

    def silent_s(self, dpid: int, cookie: int, since: Seconds) -> Seconds:
        """For how long a rule has been seen to count nothing after `since`."""
        look = self._looks.get((dpid, cookie))
        return 0.0 if look is None else look.at - max(look.since, since)
