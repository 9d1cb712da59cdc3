"""What a refused change leaves behind: what the switch holds now, and what not to try again at once."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from ryu_apps.effects import (
    AddGroup,
    AddMeter,
    Change,
    DeleteGroup,
    DeleteMeter,
    DeleteRule,
    ModifyGroup,
    ModifyMeter,
    PutRule,
)
from ryu_apps.rules import Meter, kind_of
from ryu_apps.switch.reconcile import Holding

Seconds = float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that the switch answered with an error."""

    change: Change
    reason: str
    t: Seconds


def subject(change: Change) -> Hashable:
    """What a change is about; only one refusal is kept for each. For a rule to be put it is the rule's key."""
    match change:
        case PutRule(rule):
            return rule.key
        case DeleteRule(rule):
            return "delete", rule.key
        case AddMeter(meter) | ModifyMeter(meter):
            return "meter", meter.number
        case DeleteMeter(number):
            return "delete meter", number
        case AddGroup(group) | ModifyGroup(group):
            return "group", group.number
        case DeleteGroup(number):
            return "delete group", number


def about(change: Change) -> str:
    """What a change is about, in words for logs and counts."""
    match change:
        case PutRule(rule) | DeleteRule(rule):
            kind = kind_of(rule.cookie)
            verb = "put" if isinstance(change, PutRule) else "delete"
            return f"{verb} rule ({kind.name.lower() if kind is not None else 'unknown'})"
        case _:
            return _words(type(change).__name__)


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def undo(change: Change, reason: str, holding: Holding) -> bool:
    """Corrects what a switch is thought to hold; True when the change is not to be tried again at once."""
    match change:
        case PutRule(rule):
            holding.rules.pop(rule.key, None)
        case DeleteRule(rule):
            holding.rules[rule.key] = rule
        case AddMeter(meter) if "METER_EXISTS" in reason:
            # Not what we thought it held: the next round sets it right.
            holding.meters[meter.number] = _strange_meter(meter.number)
            return False
        case AddMeter(meter) | ModifyMeter(meter):
            holding.meters.pop(meter.number, None)
        case DeleteMeter(number):
            holding.meters[number] = _strange_meter(number)
        case AddGroup(group) if "GROUP_EXISTS" in reason:
            holding.groups[group.number] = replace(group, buckets=())
            return False
        case AddGroup(group) | ModifyGroup(group):
            holding.groups.pop(group.number, None)
        case DeleteGroup(_):
            # Whoever still uses it is not ours: it stays, and does no harm.
            return False
    return True


def _strange_meter(number: int) -> Meter:
    return Meter(number, -1, -1)


def timeless(change: Change) -> Change:
    """The change without its lease: what two tries of the same wish have in common."""
    return PutRule(replace(change.rule, lease_until=None)) if isinstance(change, PutRule) else change
