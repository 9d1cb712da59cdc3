"""The ordered difference between what a switch holds and what it should hold; somebody else's rules never show up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
from ryu_apps.rules import Desired, Group, Meter, Rule, RuleKey, ToGroup, is_our_group, is_ours

Seconds = float

# A lease in the switch may differ by its rounding to whole seconds before it is set anew.
LEASE_SLACK_S = 1.25


@dataclass(slots=True)
class Holding:
    """What a switch holds of ours, as far as is known."""

    rules: dict[RuleKey, Rule] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)

    @classmethod
    def read(
        cls, rules: Iterable[Rule], meters: Iterable[Meter], first_meter: int, groups: Iterable[Group] = ()
    ) -> "Holding":
        """From what a switch reports: only our cookies, and only meters and groups of our number ranges."""
        return cls(
            {rule.key: rule for rule in rules if is_ours(rule.cookie)},
            {meter.number: meter for meter in meters if meter.number >= first_meter},
            {group.number: group for group in groups if is_our_group(group.number)},
        )

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
    return any(isinstance(one, ToGroup) and ("group", one.number) in things for one in rule.actions)


def difference(holding: Holding, want: Desired) -> list[Change]:
    """Changes that lead from `holding` to `want`, in an order in which every prefix is sound.

    Meters and groups come before the rules that use them and go after them; new rules come before old ones go.
    """
    return [
        *_meters_first(holding.meters, want.meters),
        *_groups_first(holding.groups, want.groups),
        *(PutRule(rule) for key, rule in want.rules.items() if not same(holding.rules.get(key), rule)),
        *(DeleteRule(rule) for key, rule in holding.rules.items() if key not in want.rules and is_ours(rule.cookie)),
        *(DeleteMeter(number) for number in holding.meters if number not in want.meters),
        *(DeleteGroup(number) for number in holding.groups if number not in want.groups),
    ]


def _meters_first(held: Mapping[int, Meter], want: Mapping[int, Meter]) -> Iterable[Change]:
    for number, meter in want.items():
        if number not in held:
            yield AddMeter(meter)
        elif held[number] != meter:
            yield ModifyMeter(meter)


def _groups_first(held: Mapping[int, Group], want: Mapping[int, Group]) -> Iterable[Change]:
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
