"""Others' rules in front of ours: which of them keep traffic to virtual IPs from being counted, and how much."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cpdb import address_bytes, is_ipv6
from ryu_apps.effects import Alert
from ryu_apps.families import eth_type_of
from ryu_apps.guest import SHARED_PRIORITY
from ryu_apps.network import Network
from ryu_apps.openflow import ALL_TABLES, WireEntry, describe_match, mac_bytes, read_match
from ryu_apps.openflow.fields import VLAN_VID
from ryu_apps.rules import LEARNED, OWNER_SHIFT, Table, is_ours, virtual_mac
from ryu_apps.services.buckets import MEET_PRIORITY
from ryu_apps.tables import Askable

Seconds = float
Key = tuple[int, int, int, bytes]

HIDDEN, UNREACHED = "hidden_by_foreign_rule", "tables_not_reached"
ASK_EVERY_S = 10.0
# Below this, one question a table; above, one for all tables costs less.
_MANY_TABLES = 8
# More rules of one switch are counted, and not named.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Front:
    """What has to come first: our accounting entries, at least of `priority` in `first_table`, for these addresses."""

    first_table: int = 0
    addresses: tuple[str, ...] = ()
    priority: int = MEET_PRIORITY


def front(network: Network, first_table: int) -> Front:
    """What has to come first now."""
    shared = network.guest is not None and network.guest.is_shared
    priority = MEET_PRIORITY + (SHARED_PRIORITY if shared else 0)
    return Front(first_table, tuple(sorted(network.services.virtual_ips)), priority)


def hides(entry: WireEntry, front: Front) -> bool:
    """Whether packets to one of the addresses may match an entry that keeps them from being counted."""
    if is_ours(entry.cookie) or entry.cookie >> OWNER_SHIFT == LEARNED or entry.table > front.first_table:
        return False
    if entry.table == front.first_table:
        before = entry.priority >= front.priority
    else:
        before = not any(entry.table < to <= front.first_table for to in entry.leads_to)
    return before and any(may_match(entry.match, address) for address in front.addresses)


def may_match(match: bytes, virtual_ip: str) -> bool:
    """Whether a sound match of anybody leaves room for packets that a client sends to a virtual IP."""
    sent = {
        "eth_type": eth_type_of(virtual_ip).to_bytes(2, "big"),
        "eth_dst": mac_bytes(virtual_mac(virtual_ip)),
        "ipv6_dst" if is_ipv6(virtual_ip) else "ipv4_dst": address_bytes(virtual_ip),
    }
    for one in read_match(match):
        value = sent.get(one.type.name) if one.type is not None else None
        if value is not None and not _agree(one.value, value, one.mask):
            return False
    return True


def _agree(wanted: bytes, value: bytes, mask: bytes | None) -> bool:
    bits = int.from_bytes(mask) if mask is not None else -1
    return int.from_bytes(wanted) & bits == int.from_bytes(value) & bits


@dataclass(slots=True)
class _Look:
    """What a switch has answered so far, and which questions are open."""

    waiting: set[int]
    entries: list[WireEntry] = field(default_factory=list)


@dataclass(slots=True)
class ForeignRules:
    """Asks the switches for whatever stands in front, and remembers counters from one look to the next."""

    front: Front = Front()
    _looks: dict[int, _Look] = field(default_factory=dict)
    # Bytes and time of the last look, by switch and entry
    _before: dict[int, dict[Key, "_Counted"]] = field(default_factory=dict)
    _last: Seconds = float("-inf")

    def ask(self, wires: Mapping[int, Askable], now: Seconds) -> None:
        """Asks every switch, when it is time and there is something to be hidden."""
        if now - self._last < ASK_EVERY_S or not self.front.addresses:
            return
        self._last, first = now, self.front.first_table
        tables = [ALL_TABLES] if first > _MANY_TABLES else [Table.ACCOUNT - first + n for n in range(first + 1)]
        self._looks = {dpid: _Look({wire.ask_rules(table=one) for one in tables}) for dpid, wire in wires.items()}
        self._before = {dpid: before for dpid, before in self._before.items() if dpid in wires}

    def is_asked(self, dpid: int, xid: int) -> bool:
        """Whether an answer is one to our questions."""
        return dpid in self._looks and xid in self._looks[dpid].waiting

    def take(self, dpid: int, xid: int, entries: Iterable[WireEntry], more: bool) -> list[WireEntry] | None:
        """A part of an answer; all entries once nothing is missing."""
        look = self._looks[dpid]
        look.entries += (one for one in entries if one.table <= self.front.first_table)
        if not more:
            look.waiting.discard(xid)
        return None if look.waiting else self._looks.pop(dpid).entries

    def judge(self, dpid: int, node: str, entries: Collection[WireEntry], now: Seconds) -> list[Alert]:
        """An alert for each rule that hides traffic now, those that hide most; one when nothing leads to ours."""
        hiding = {(one.table, one.priority, one.cookie, one.match): one for one in entries if hides(one, self.front)}
        before = self._before.get(dpid, {})
        self._before[dpid] = {key: _Counted(one.size, now) for key, one in hiding.items()}
        rates = {key: _rate(one, before.get(key), now) for key, one in hiding.items()}
        most = sorted((key for key, rate in rates.items() if rate > 0), key=lambda key: -rates[key])
        alerts = [_hidden(node, hiding[key], rates[key], self.front) for key in most[:MAX_NAMED]]
        first = self.front.first_table
        if first and not any(first in one.leads_to for one in entries if one.table < first):
            detail = (
                f"no rule of tables 0 to {first - 1} leads to table {first}, where forepath's begin: nothing is "
                f"counted, limited or steered there; let one say goto_table:{first}, or set controller.first_table"
            )
            alerts.append(Alert(UNREACHED, node, node, detail))
        return alerts


class _Counted(NamedTuple):
    """Bytes of an entry, and when they were read."""

    size: int
    at: Seconds


def _rate(entry: WireEntry, before: _Counted | None, now: Seconds) -> float:
    if before is None or entry.size < before.size or now <= before.at:
        return entry.size / max(entry.age_s, 1.0)
    return (entry.size - before.size) / (now - before.at)


def _hidden(node: str, entry: WireEntry, rate: float, front: Front) -> Alert:
    mend = f"let it go on to table {front.first_table}"
    if entry.table == front.first_table:
        mend = f"give it a priority below {front.priority}, or another table"
    name = f"table {entry.table}, priority {entry.priority}, {describe_match(entry.match)}, cookie {entry.cookie:#x}"
    detail = f"{name}: up to {rate:.0f} bytes/s pass before forepath counts or steers them; {mend}"
    return Alert(HIDDEN, f"{node} {name}", node, detail)


def vlan_matched(entry: WireEntry) -> int:
    """The VLAN that somebody else's entry names; 0 for none."""
    if is_ours(entry.cookie):
        return 0
    values = (int.from_bytes(one.value) for one in read_match(entry.match) if one.type is VLAN_VID and one.mask is None)
    return next(values, 0) & 0xFFF
