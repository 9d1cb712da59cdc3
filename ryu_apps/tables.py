"""Where our tables lie in a switch: rules speak of `Table`, the switch of that and `first_table` more."""

from dataclasses import replace

from ryu_apps.effects import Change, DeleteRule, PutRule
from ryu_apps.rules import LearnConnection, LearnSource, ResubmitTable, Rule, Table

# From the first table on, so many are ours; what others have there would come between ours.
TABLES = max(Table) + 1


def moved(rule: Rule, by: int) -> Rule:
    """The rule with all numbers of tables that many higher (lower where `by` is negative)."""
    if not by:
        return rule
    actions = tuple(
        replace(one, table=one.table + by) if isinstance(one, ResubmitTable | LearnConnection | LearnSource) else one
        for one in rule.actions
    )
    return replace(rule, table=rule.table + by, goto=None if rule.goto is None else rule.goto + by, actions=actions)


def as_sent(change: Change, first_table: int) -> Change:
    """A change as the switch is told."""
    match change:
        case PutRule(rule):
            return PutRule(moved(rule, first_table)) if first_table else change
        case DeleteRule(rule):
            return DeleteRule(moved(rule, first_table)) if first_table else change
    return change
