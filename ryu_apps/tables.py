"""Where our tables lie in a switch, and whose packets are told to us: rules speak of neither, switches of both."""

from dataclasses import dataclass, replace
from typing import Protocol

from ryu_apps.effects import Change, DeleteRule, PutRule
from ryu_apps.openflow import ALL_TABLES
from ryu_apps.rules import (
    CONTROLLER,
    Action,
    LearnConnection,
    LearnNextHop,
    LearnSource,
    Output,
    ResubmitTable,
    Rule,
    Table,
    ToController,
)

# From the first table on, so many are ours; what others have there would come between ours.
TABLES = max(Table) + 1


class Askable(Protocol):
    """A switch that can be asked for entries; tables are counted from our first one."""

    def ask_rules(self, cookie: int = 0, mask: int = 0, table: int = ALL_TABLES) -> int:
        """Asks; returns the transaction number."""


@dataclass(frozen=True, slots=True)
class TablePlaces:
    """Our tables begin at `first_table`; with a `controller_id` what our rules tell goes to nobody but us.

    Controller ids are Open vSwitch's: other controllers of the same switch neither see nor answer such packets.
    """

    first_table: int = 0
    controller_id: int | None = None

    @property
    def are_plain(self) -> bool:
        """Whether switches hold rules as they are."""
        return not self.first_table and self.controller_id is None

    def sent(self, change: Change) -> Change:
        """A change as the switch is told."""
        match change:
            case PutRule(rule) if not self.are_plain:
                return PutRule(self._moved(rule, self.first_table))
            case DeleteRule(rule) if not self.are_plain:
                return DeleteRule(self._moved(rule, self.first_table))
        return change

    def read(self, rule: Rule) -> Rule:
        """A rule that a switch reports, with our numbers."""
        return rule if self.are_plain else self._moved(rule, -self.first_table)

    def _moved(self, rule: Rule, by: int) -> Rule:
        actions = tuple(self._action(one, by) for one in rule.actions)
        return replace(rule, table=rule.table + by, goto=None if rule.goto is None else rule.goto + by, actions=actions)

    def _action(self, one: Action, by: int) -> Action:
        match one:
            case ResubmitTable() | LearnConnection() | LearnSource() | LearnNextHop():
                return replace(one, table=one.table + by)
            case Output(port) if port == CONTROLLER and self.controller_id is not None:
                return ToController(self.controller_id)
            case ToController(number) if number == self.controller_id:
                return Output(CONTROLLER)
        return one
