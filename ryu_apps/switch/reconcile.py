"""The ordered difference between what a switch holds and what it should hold, and what a refused change leaves behind.

Somebody else's rules never show up.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

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
from ryu_apps.groups import is_our_group
from ryu_apps.rules import Desired, Meter, Rule, RuleKey, SwitchGroup, ToGroup, is_ours, kind_of

Seconds = float

# A refused change is tried again after this long: a full table may have room by then.
RETRY_S = 30.0
# A lease in the switch may differ by its rounding to whole seconds before it is set anew.
LEASE_SLACK_S = 1.25


@dataclass(slots=True)
class Holding:
    """What a switch holds of ours, as far as is known."""

    rules: dict[RuleKey, Rule] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)
    groups: dict[int, SwitchGroup] = field(default_factory=dict)

    @classmethod
    def read(
        cls, rules: Iterable[Rule], meters: Iterable[Meter], first_meter: int, groups: Iterable[SwitchGroup] = ()
    ) -> "Holding":
        """From what a switch reports: only our cookies, and only meters and groups of our number ranges."""
        return cls(
            {rule.key: rule for rule in rules if is_ours(rule.cookie)},
            {meter.number: meter for meter in meters if meter.number >= first_meter},
            {group.number: group for group in groups if is_our_group(group.number)},
        )

    def holds(self, keys: Iterable[RuleKey]) -> bool:
        """Whether the switch holds all these rules."""
        return all(key in self.rules for key in keys)

    def expire(self, now: Seconds) -> None:
        """Drops what the switch has ended by itself."""
        for key in [key for key, rule in self.rules.items() if (rule.lease_until or now + 1) <= now]:
            del self.rules[key]

    def apply(self, changes: Iterable[Change]) -> None:
        """Follows changes that were sent."""
        gone: set[tuple[str, int]] = set()
        for change in changes:
            match change:
                case AddMeter(meter) | ModifyMeter(meter):
                    self.meters[meter.number] = meter
                case DeleteMeter(number):
                    self.meters.pop(number, None)
                    gone.add(("meter", number))
                case AddGroup(group) | ModifyGroup(group):
                    self.groups[group.number] = group
                case DeleteGroup(number):
                    self.groups.pop(number, None)
                    gone.add(("group", number))
                case PutRule(rule):
                    self.rules[rule.key] = rule
                case DeleteRule(rule):
                    self.rules.pop(rule.key, None)
        if gone:
            # A switch drops the rules of a meter or group with it.
            self.rules = {key: rule for key, rule in self.rules.items() if not _uses(rule, gone)}


def _uses(rule: Rule, things: set[tuple[str, int]]) -> bool:
    if ("meter", rule.meter) in things:
        return True
    return any(isinstance(action, ToGroup) and ("group", action.number) in things for action in rule.actions)


def difference(holding: Holding, want: Desired) -> list[Change]:
    """Changes that lead from `holding` to `want`, in an order in which every prefix is sound.

    Meters and groups come before the rules that use them and go after them; new rules come before old ones go, and of
    those whatever looks into another table before what it finds there.
    """
    old = [rule for key, rule in holding.rules.items() if key not in want.rules and is_ours(rule.cookie)]
    return [
        *_meters_first(holding.meters, want.meters),
        *_groups_first(holding.groups, want.groups),
        *(PutRule(rule) for key, rule in want.rules.items() if not same(holding.rules.get(key), rule)),
        *(DeleteRule(rule) for rule in sorted(old, key=lambda rule: rule.table)),
        *(DeleteMeter(number) for number in holding.meters if number not in want.meters),
        *(DeleteGroup(number) for number in holding.groups if number not in want.groups),
    ]


def _meters_first(held: Mapping[int, Meter], want: Mapping[int, Meter]) -> Iterable[Change]:
    for number, meter in want.items():
        if number not in held:
            yield AddMeter(meter)
        elif held[number] != meter:
            yield ModifyMeter(meter)


def _groups_first(held: Mapping[int, SwitchGroup], want: Mapping[int, SwitchGroup]) -> Iterable[Change]:
    for number, group in want.items():
        if number not in held:
            yield AddGroup(group)
        elif held[number] != group:
            yield ModifyGroup(group)


def same(held: Rule | None, want: Rule) -> bool:
    """Whether what a switch holds is the rule that is wanted; a lease may differ by its rounding."""
    if held is None or held is want:
        return held is not None
    alike = (held.actions, held.goto, held.meter, held.cookie) == (want.actions, want.goto, want.meter, want.cookie)
    if held.lease_until is None or want.lease_until is None:
        return alike and held.lease_until == want.lease_until
    return alike and abs(held.lease_until - want.lease_until) <= LEASE_SLACK_S


# ---- refused changes


@dataclass(frozen=True, slots=True)
class RefusedChange:
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


@dataclass(slots=True)
class RefusedChanges:
    """The latest refusal of each subject."""

    _by_subject: dict[Hashable, RefusedChange] = field(default_factory=dict)

    def add(self, change: Change, reason: str, now: Seconds) -> None:
        """The switch refused a change."""
        self._by_subject[subject(change)] = RefusedChange(change, reason, now)

    def forget(self, change: Change) -> None:
        """The switch made a change about the same subject."""
        if self._by_subject:
            self._by_subject.pop(subject(change), None)

    def forget_where(self, told: Callable[[str], bool]) -> None:
        """Refusals for such a reason hold nothing back any more."""
        self._by_subject = {key: one for key, one in self._by_subject.items() if not told(one.reason)}

    def holds_back(self, change: Change, now: Seconds) -> bool:
        """Whether the same was refused a moment ago."""
        refusal = self._by_subject.get(subject(change)) if self._by_subject else None
        return refusal is not None and _timeless(refusal.change) == _timeless(change) and now < refusal.t + RETRY_S

    def retry_times(self) -> list[Seconds]:
        """When each of them may be tried again."""
        return [refusal.t + RETRY_S for refusal in self._by_subject.values()]

    def reason(self, keys: Iterable[RuleKey]) -> str | None:
        """Why one of these rules was refused; None when none was."""
        return next((self._by_subject[key].reason for key in keys if key in self._by_subject), None)


def _timeless(change: Change) -> Change:
    # What two tries of the same have in common: everything but the lease.
    return PutRule(replace(change.rule, lease_until=None)) if isinstance(change, PutRule) else change
