"""Notices destinations that are in two places, or whose address or MAC somebody else uses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cpdb import NodeKind, VirtualIp
from ryu_apps.rules import ChooseDestination, NoteUp, PortId, Rule, Table
from ryu_apps.services.buckets import destination_number
from ryu_apps.topology.hosts import HostTable

Seconds = float

# A machine that moves speaks in its new place, and no more in the old one: so many changes of place in so short a
# time are two machines.
CHANGES = 3
WITHIN_S = 10.0
# The old place is asked twice whether somebody is still there, after the last of its frames had time to arrive.
ASK_OLD_AFTER_S = (1.0, 3.0)
# Without further evidence a conflict is over.
HEALS_AFTER_S = 30.0
# Names of alarms
DUPLICATE, MOVED = "duplicate", "moved"


@dataclass(frozen=True, slots=True)
class MacConflict:
    """What is wrong with a destination's MAC, since when, and when it was last seen."""

    kind: str
    detail: str
    since: Seconds
    seen: Seconds


@dataclass(frozen=True, slots=True)
class MacQuestion:
    """Ask for `mac` at a port that it has left."""

    mac: str
    at: PortId
    due: Seconds


KindAt = Callable[[PortId], NodeKind | None]


class Conflicts:
    """Follows the MACs and addresses of destinations; conflicts are by the destination's MAC."""

    def __init__(self) -> None:
        self._macs: frozenset[str] = frozenset()
        self._mac_of: dict[str, str] = {}
        self._at: dict[str, PortId] = {}
        self._changes: dict[str, list[Seconds]] = {}
        self._questions: list[MacQuestion] = []
        self._found: dict[str, MacConflict] = {}
        # Another number whenever a conflict came, went, or is another one
        self.revision = 0

    def follow(self, ends: Iterable[tuple[str, str]]) -> None:
        """These destinations (address, MAC) and no others."""
        self._mac_of = dict(ends)
        self._macs = frozenset(self._mac_of.values())
        self._at = {mac: at for mac, at in self._at.items() if mac in self._macs}
        self._changes = {mac: times for mac, times in self._changes.items() if mac in self._macs}
        self._found = {mac: one for mac, one in self._found.items() if mac in self._macs}

    def of(self, mac: str) -> MacConflict | None:
        """The conflict about a MAC that stands."""
        return self._found.get(mac)

    def adopt(self, dpid: int, rules: Iterable[Rule], virtual_ips: Iterable[VirtualIp]) -> None:
        """Takes over where destinations were, by the rules of a switch that turns from them while a port is down."""
        macs = {destination_number(vip.address, one.name): one.mac for vip in virtual_ips for one in vip.destinations}
        for rule in rules:
            match rule.actions:
                case (ChooseDestination(number), NoteUp((port,)), *_) if rule.table == Table.BUCKETS and number in macs:
                    self._at.setdefault(macs[number], PortId(dpid, port))

    def attached(self, dpid: int, hosts: HostTable) -> dict[str, int]:
        """Ports of a switch where destinations are, or were before a link went down and they were not seen, by MAC."""
        known = ((mac, hosts.of_mac(mac)) for mac in self._macs)
        places = ((mac, host.at if host else self._at.get(mac)) for mac, host in known)
        return {mac: at.port for mac, at in places if at is not None and at.dpid == dpid}

    def saw(self, mac: str, address: str | None, at: PortId, now: Seconds, kind_at: KindAt) -> bool:
        """A frame of `mac` came in at an edge; `address` when it claims one by ARP. False: that is not its own."""
        owner = self._mac_of.get(address or "")
        if owner is not None and owner != mac:
            where = f"{at.dpid:016x}:{at.port}"
            self._note(owner, DUPLICATE, f"{address} is also claimed by {mac} at port {where}", now)
        if mac in self._macs:
            self._place(mac, at, now, kind_at)
        return owner in (None, mac)

    def _place(self, mac: str, at: PortId, now: Seconds, kind_at: KindAt) -> None:
        before = self._at.get(mac)
        self._at[mac] = at
        if before is None or before == at:
            return
        changes = [t for t in self._changes.get(mac, []) if now - t < WITHIN_S] + [now]
        self._changes[mac] = changes
        self._questions += [MacQuestion(mac, before, now + wait) for wait in ASK_OLD_AFTER_S]
        if len(changes) >= CHANGES:
            places = f"{before.dpid:016x}:{before.port} and {at.dpid:016x}:{at.port}"
            self._note(mac, DUPLICATE, f"{mac} speaks at ports {places} by turns", now)
        self._judge_place(mac, before, at, now, kind_at)

    def _judge_place(self, mac: str, before: PortId, at: PortId, now: Seconds, kind_at: KindAt) -> None:
        kinds = kind_at(before), kind_at(at)
        if kinds[0] is NodeKind.HYPERVISOR and kinds[1] not in (None, NodeKind.HYPERVISOR):
            where = f"{at.dpid:016x}:{at.port}"
            self._note(mac, MOVED, f"{mac} left its hypervisor for port {where}, where no hypervisor is", now)

    def _note(self, mac: str, kind: str, detail: str, now: Seconds) -> None:
        known = self._found.get(mac)
        self.revision += known is None or (known.kind, known.detail) != (kind, detail)
        self._found[mac] = MacConflict(kind, detail, known.since if known else now, now)

    def questions(self, now: Seconds) -> list[MacQuestion]:
        """Those that are due."""
        due = [one for one in self._questions if one.due <= now]
        self._questions = [one for one in self._questions if one.due > now]
        return [one for one in due if self._at.get(one.mac) != one.at]

    def heal(self, now: Seconds, kind_at: KindAt) -> None:
        """Ends conflicts for which there has been no evidence for long; a MAC in a wrong place stays evidence."""
        for mac, one in list(self._found.items()):
            at = self._at.get(mac)
            wrong = one.kind == MOVED and at is not None and kind_at(at) not in (None, NodeKind.HYPERVISOR)
            if not wrong and now - one.seen > HEALS_AFTER_S:
                del self._found[mac]
                self.revision += 1
