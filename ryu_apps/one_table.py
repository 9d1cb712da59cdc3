"""The rules of all tables as one table: for switches that have no second one. Data in, data out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from cpdb import FIRST_TAG
from ryu_apps.rules import (
    ANY_LABEL,
    BRIDGE_GROUPS,
    ETH_ARP,
    MULTICAST,
    Desired,
    Kind,
    Match,
    Rule,
    SetField,
    Table,
    cookie,
    kind_of,
    number_of,
)

# Limits, marks and labels are left out before: `Switches` makes no such rules for these switches.
_TABLES = (Table.ACCOUNT, Table.REWRITE, Table.FORWARD)
_FIELDS = tuple(field.name for field in fields(Match))
_values = attrgetter(*_FIELDS)
# Whatever was matched first decides first: bits of the priorities in tables `account`, `rewrite` and `forward`
_REWRITE_BITS, _FORWARD_BITS = 5, 4
_MAX_FIRST = 127


def join_tables(want: Desired, owners: Mapping[str, str]) -> Desired:
    """The same in table 0, for every packet: each way through the tables is one rule.

    `owners` is the MAC of each address: a packet for an address is taken to have it as its destination. ARP comes to
    the controller alone, and nobody tells it of IPv6 neighbours.
    """
    tables = {table: _JoinedTable(rule for rule in want.rules.values() if rule.table == table) for table in _TABLES}
    found: dict[Match, Rule] = {}
    for rule in tables[Table.ACCOUNT].rules:
        start = _without_copies(rule)
        ways = _follow([start], start.match, tables, owners) if start is not None else ()
        for way, match in ways:
            # The same packets have matched something of higher priority.
            found.setdefault(match, _joined(way, match))
    return replace(want, rules={rule.key: rule for rule in found.values()})


def _without_copies(rule: Rule) -> Rule | None:
    """One table cannot tell the controller and go on: ARP goes nowhere else, the rest nowhere but on its way."""
    if kind_of(rule.cookie) is not Kind.LISTEN or rule.goto is None:
        return rule
    if rule.match.eth_type != ETH_ARP:
        return None
    return replace(rule, goto=None, cookie=cookie(Table.ACCOUNT, Kind.DEFAULT, number_of(rule.cookie)))


class _JoinedTable:
    """Rules of one table by priority, found by the fields that most of them match."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = sorted(rules, key=lambda rule: -rule.priority)
        self._by = {name: self._index(name) for name in ("eth_dst", "ip_dst")}

    def _index(self, name: str) -> dict[Any, list[Rule]]:
        found: dict[Any, list[Rule]] = {}
        for rule in self.rules:
            found.setdefault(getattr(rule.match, name), []).append(rule)
        return found

    def candidates(self, packet: Match) -> Sequence[Rule]:
        """Those that packets like this may match, highest priority first."""
        for name, index in self._by.items():
            value = getattr(packet, name)
            if value is not None:
                some = [rule for key in {value, None, MULTICAST, BRIDGE_GROUPS} for rule in index.get(key, ())]
                return sorted(some, key=lambda rule: -rule.priority)
        return self.rules


def _follow(
    way: list[Rule], match: Match, tables: Mapping[Table, _JoinedTable], owners: Mapping[str, str]
) -> Iterator[tuple[list[Rule], Match]]:
    """All ways of packets that match `match` through the tables from the last rule of `way` on, and who takes each."""
    goto = way[-1].goto
    if goto is None:
        yield way, match
        return
    packet, written = match, _written(way)
    owner = owners.get(packet.ip_dst or "")
    if owner is not None and packet.eth_dst is None and way[-1].table == Table.REWRITE and way[-1].actions:
        packet = match = replace(packet, eth_dst=owner)
    packet = replace(packet, **written)
    for rule in tables[next(table for table in _TABLES if table >= goto)].candidates(packet):
        both = _overlap(packet, rule.match)
        if both is None:
            continue
        # What was written on the way is no longer asked of the packet as it came in.
        narrowed = replace(both, **{name: getattr(match, name) for name in written})
        yield from _follow([*way, rule], narrowed, tables, owners)
        if both == packet:
            return


def _written(way: Iterable[Rule]) -> dict[str, Any]:
    sets = (action for rule in way for action in rule.actions if isinstance(action, SetField))
    return {action.field: action.value for action in sets if action.field in _FIELDS}


def _overlap(one: Match, other: Match) -> Match | None:
    """What packets have that match both; None where there are none."""
    if one == other:
        return one
    found = []
    for name, mine, yours in zip(_FIELDS, _values(one), _values(other), strict=True):
        if yours is None or mine == yours:
            found.append(mine)
        elif mine is None or _is_within(name, yours, mine):
            found.append(yours)
        elif _is_within(name, mine, yours):
            found.append(mine)
        else:
            return None
    return Match(*found)


def _is_within(name: str, value: Any, wide: Any) -> bool:
    if name == "label":
        return bool(wide == ANY_LABEL and value >= FIRST_TAG)
    if name == "eth_dst" and wide == MULTICAST:
        return bool(value == BRIDGE_GROUPS or int(value[:2], 16) & 1)
    return bool(name == "eth_dst" and wide == BRIDGE_GROUPS and value.startswith("01:80:c2:00:00:0"))


def _joined(way: Sequence[Rule], match: Match) -> Rule:
    kinds = [rule for rule in way if kind_of(rule.cookie) not in (None, Kind.DEFAULT)]
    named = (kinds or way)[0]
    meter = next((rule.meter for rule in way if rule.meter is not None), None)
    number = cookie(Table.ACCOUNT, kind_of(named.cookie) or Kind.DEFAULT, number_of(named.cookie))
    leases = [rule.lease_until for rule in way if rule.lease_until is not None]
    actions = tuple(action for rule in way for action in rule.actions)
    return Rule(Table.ACCOUNT, _priority(way), match, actions, None, meter, number, min(leases, default=None))


def _priority(way: Sequence[Rule]) -> int:
    of = {rule.table: rule.priority for rule in way}
    first = min(_MAX_FIRST, of[Table.ACCOUNT])
    second = min((1 << _REWRITE_BITS) - 1, of.get(Table.REWRITE, 0))
    third = min((1 << _FORWARD_BITS) - 1, of.get(Table.FORWARD, 0))
    return (first << _REWRITE_BITS | second) << _FORWARD_BITS | third
