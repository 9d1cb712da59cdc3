"""What one switch can, by its features and its errors, and what is left out of its rules for that reason."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ryu_apps.effects import Change, PutRule
from ryu_apps.rules import (
    TCP_OPENING,
    Desired,
    Kind,
    Output,
    PopLabel,
    PushLabel,
    ResubmitTable,
    Rule,
    RuleKey,
    SetField,
    Table,
    ToGroup,
    kind_of,
)

Seconds = float

# More than any table of ours: what a switch is thought to have that does not say.
MANY_TABLES = 254
# Of switches with more tables, none is known whose tables are small; the answer of one with 254 is long.
SMALL_TABLES = 64
# What OpenFlow 1.3 itself can do; all other actions are Nicira's.
_STANDARD = Output | ToGroup | SetField | PushLabel | PopLabel
# Why a switch refuses what it does not know; OpenFlow 1.3.5, 7.4.4
_UNKNOWN = ("BAD_EXPERIMENTER", "BAD_EXP_TYPE", "BAD_VENDOR", "OFPBAC_BAD_TYPE", "OFPBMC_BAD_FIELD", "BAD_SET_TYPE",
            "BAD_ARGUMENT", "OFPBMC_BAD_TYPE", "OFPET_EXPERIMENTER")  # fmt: skip
_NO_TABLE, _FULL = "BAD_TABLE_ID", "TABLE_FULL"
# A table that was full may have room again after this long.
FULL_S = 300.0
# What goes first where a table is full: a pair keeps its way longer than its count, and a host longest.
_SPARED = (Kind.PAIR_SYN, Kind.PAIR, Kind.TO_CLIENT, Kind.TO_DESTINATION, Kind.HOST)
_INSTEAD = {
    Kind.PAIR_SYN: "connections are not counted there",
    Kind.PAIR: "so many pairs are not counted one by one there, but in sums of the switch",
    Kind.TO_CLIENT: "answers to so many sources keep the address of the machine: these cannot use the virtual IP",
    Kind.TO_DESTINATION: "so many sources cannot use the virtual IP there",
    Kind.HOST: "packets to so many hosts go through the controller",
}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a switch has; `room` is how many of our rules its tables hold, where that is known."""

    tables: int = MANY_TABLES
    # Nicira's actions, registers and the ONF's TCP flags: all of them, or none is used
    extensions: bool = True
    max_meters: int = 0
    # Whether it can go over to another port by itself, and choose between several
    has_failover: bool = False
    room: Mapping[int, int] = field(default_factory=dict)

    @property
    def places(self) -> bool:
        """Whether it can place connections by itself, and remember them."""
        return self.extensions and self.tables > max(Table)

    @property
    def one_table(self) -> bool:
        """Whether all rules must be in its first table."""
        return self.tables <= Table.FORWARD

    def learn(self, change: Change, reason: str) -> "Abilities":
        """What the refusal of a change says about the switch."""
        if not isinstance(change, PutRule):
            return self
        rule = change.rule
        if _NO_TABLE in reason and rule.table < self.tables:
            return replace(self, tables=max(1, rule.table))
        if self.extensions and needs_extensions(rule) and any(word in reason for word in _UNKNOWN):
            return replace(self, extensions=False)
        return self

    def can_hold(self, rule: Rule) -> bool:
        """Whether a rule is one for this switch."""
        if rule.table >= self.tables:
            return False
        into = [action.table for action in rule.actions if isinstance(action, ResubmitTable)]
        return (self.extensions or not needs_extensions(rule)) and all(table < self.tables for table in into)


def is_full(reason: str) -> bool:
    """Whether a rule was refused because there is no room for it."""
    return _FULL in reason


def needs_extensions(rule: Rule) -> bool:
    """Whether a rule is more than OpenFlow 1.3 itself."""
    match = rule.match
    if match.register is not None or match.message_type == TCP_OPENING:
        return True
    return not all(isinstance(action, _STANDARD) for action in rule.actions)


class FittedRules(NamedTuple):
    """What a switch is to hold, and how many rules of which kind there was no room for."""

    want: Desired
    spared: Mapping[Kind, int]


def fit_rules(want: Desired, abilities: Abilities) -> FittedRules:
    """What of it the switch can hold: nothing that it does not know, and no more than there is room for.

    Where a table is full, connections are no longer counted, for all pairs; then the newest pairs, then the last hosts
    are left out.
    """
    rules = {key: rule for key, rule in want.rules.items() if abilities.can_hold(rule)}
    spared: Counter[Kind] = Counter()
    for table, room in abilities.room.items():
        over = sum(key.table == table for key in rules) - room
        for kind in _SPARED if over > 0 else ():
            out = [key for key, rule in rules.items() if key.table == table and kind_of(rule.cookie) is kind]
            # All connections are counted, or none is: half of them would look like half as many.
            out = out if kind is Kind.PAIR_SYN else out[max(0, len(out) - over) :]
            for key in out:
                del rules[key]
            spared[kind] += len(out)
            over -= len(out)
            if over <= 0:
                break
    return FittedRules(replace(want, rules=rules), {kind: count for kind, count in spared.items() if count})


@dataclass(slots=True)
class FullTables:
    """Tables that refused a rule for want of room, and until when that is believed."""

    _refusing: set[int] = field(default_factory=set)
    _since: dict[int, Seconds] = field(default_factory=dict)

    def refused(self, table: int) -> None:
        """There was no room for a rule."""
        self._refusing.add(table)

    def settle(self, held: Callable[[], Iterator[RuleKey]], room: Mapping[int, int], now: Seconds) -> dict[int, int]:
        """The room in each table, once all refusals of a batch are known: as many as it holds then."""
        found = {table: count for table, count in room.items() if now - self._since.get(table, now) < FULL_S}
        for table in self._refusing:
            found[table], self._since[table] = sum(key.table == table for key in held()), now
        self._refusing.clear()
        return found


class SwitchLack(NamedTuple):
    """Something that a switch has not: what, and what follows from it."""

    what: str
    detail: str


def describe_lacks(abilities: Abilities, first_meter: int, spared: Mapping[Kind, int]) -> Iterator[SwitchLack]:
    """What is not to be had at a switch, why, and what is done instead."""
    if abilities.one_table:
        yield SwitchLack(
            "tables",
            f"has {abilities.tables} of the 4 tables that are needed: all rules are in one, without limits, marks and "
            "split paths; ARP is answered by the controller",
        )
    if not abilities.extensions:
        yield SwitchLack(
            "extensions",
            "does not know Open vSwitch's extensions: the controller answers ARP for virtual IPs, each source keeps to "
            "one destination by plain rules also where affinity is connection, and connections are not counted",
        )
    elif not abilities.places and not abilities.one_table:
        yield SwitchLack(
            "tables",
            f"has {abilities.tables} of the {max(Table) + 1} tables that are needed to place connections: each source "
            "keeps to one destination, also where affinity is connection",
        )
    if not abilities.max_meters:
        yield SwitchLack("meters", "has no meters: nobody is limited, broadcast neither; reservations are refused")
    elif abilities.max_meters < first_meter:
        yield SwitchLack(
            "meters",
            f"has {abilities.max_meters} meters, and ours begin at {first_meter}: nobody is limited there; set "
            "controller.first_meter to a number from which on meters may be used",
        )
    for kind, count in spared.items():
        yield SwitchLack(f"room ({kind.name.lower()})", f"has no room for {count} rules: {_INSTEAD[kind]}")
