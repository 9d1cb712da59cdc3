"""What is going on with one connected switch: what it holds, what was sent to it, and what it refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ryu_apps.effects import AddGroup, Change, DeleteGroup, DeleteRule, ModifyGroup, PutRule
from ryu_apps.framework import ofproto
from ryu_apps.rules import OWNER, OWNER_MASK, OWNER_SHIFT, Desired, Group, Kind, Meter, Rule, RuleKey, ToGroup, kind_of
from ryu_apps.switch.asked import SwitchError, unmatched
from ryu_apps.switch.datapath import decode_meter, decode_rule
from ryu_apps.switch.group_messages import decode_group
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.switch.refused import Refusal, about, subject, timeless, undo
from ryu_apps.switch.wire import Wire

Seconds = float

# A refused rule is tried again after this long: a full table may have room by then.
RETRY_S = 30.0
# After a connection, rules that nothing explains yet stay this long: their hosts and pairs may still turn up.
GRACE_S = 3.0


@dataclass(slots=True)
class Session:
    """One connection of one switch. It is `ready` once the switch told what it holds."""

    wire: Wire
    first_meter: int
    since: Seconds
    holding: Holding = field(default_factory=Holding)
    meters_most: int = 0
    # Whether the switch can go over to another port by itself
    has_failover: bool = False
    adopted: bool = False
    refused: dict[object, Refusal] = field(default_factory=dict)
    _rules: list[Rule] = field(default_factory=list)
    _meters: list[Meter] = field(default_factory=list)
    _groups: list[Group] = field(default_factory=list)
    _asked: set[int] = field(default_factory=set)
    _sent: dict[int, Change] = field(default_factory=dict)
    _barriers: dict[int, tuple[Callable[[], None], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether everything that the switch holds has been read."""
        return not self._asked

    @property
    def dpid(self) -> int:
        """The switch's number."""
        return self.wire.dpid

    @property
    def has_meters(self) -> bool:
        """Whether the switch has meters with our numbers."""
        return self.meters_most >= self.first_meter

    @property
    def settled(self) -> bool:
        """Whether the switch has confirmed everything sent so far."""
        return not self._sent

    def begin(self) -> None:
        """Asks what the switch holds of ours."""
        rules = self.wire.ask_rules(OWNER << OWNER_SHIFT, OWNER_MASK)
        self._asked = {rules, *self.wire.ask_meters(), *self.wire.ask_groups()}

    def read(self, message: Any, now: Seconds) -> bool:
        """Takes a part of the answers to `begin`; False when the message answers something else."""
        if message.xid not in self._asked:
            return False
        match message.type:
            case ofproto.OFPMP_FLOW:
                self._rules += [decode_rule(one, now) for one in message.body]
            case ofproto.OFPMP_METER_CONFIG:
                self._meters += [decode_meter(one) for one in message.body]
            case ofproto.OFPMP_GROUP_DESC:
                self._groups += [group for one in message.body if (group := decode_group(one)) is not None]
            case ofproto.OFPMP_GROUP_FEATURES:
                self.has_failover = bool(message.body.types & 1 << ofproto.OFPGT_FF)
            case _:
                if message.body and message.body[0].band_types:
                    self.meters_most = message.body[0].max_meter
        if not message.flags & ofproto.OFPMPF_REPLY_MORE:
            self._answered(message.xid)
        return True

    def _answered(self, xid: int) -> None:
        self._asked.discard(xid)
        if self.ready:
            self.holding = Holding.read(self._rules, self._meters, self.first_meter, self._groups)

    def error(self, error: SwitchError, now: Seconds) -> str:
        """The switch refused a message; returns what that was about."""
        xid, asked = error.xid, self.wire.asked.take(error.xid)
        if xid in self._asked:
            # A switch without meters or groups says so this way.
            self._answered(xid)
        elif xid in self._barriers:
            # Whoever waits must not wait for ever.
            self.passed(xid)
        change = self._sent.pop(xid, None)
        if change is None:
            return asked or unmatched(error)
        if isinstance(change, AddGroup | ModifyGroup) and "GROUP_EXISTS" not in error.reason:
            # Without groups everything still goes its first way.
            self.has_failover = False
        if undo(change, error.reason, self.holding):
            self.refused[subject(change)] = Refusal(change, error.reason, now)
        return about(change)

    def lost(self, key: RuleKey) -> bool:
        """The switch says that a rule is gone; True when that was not our doing, and it has to be sent again."""
        return self.settled and self.holding.rules.pop(key, None) is not None

    def reconcile(self, want: Desired, now: Seconds, may_delete: bool) -> bool:
        """Sends what is missing; True when anything was sent."""
        self.holding.expire(now)
        changes = [one for one in difference(self.holding, want) if self._sensible(one, now, may_delete)]
        if changes:
            self._sent.update(zip(self.wire.changes(changes, now), changes, strict=True))
        self.holding.apply(_as_installed(change, now) for change in changes)
        return bool(changes)

    def _sensible(self, change: Change, now: Seconds, may_delete: bool) -> bool:
        old = now - self.since > GRACE_S
        match change:
            case DeleteGroup(number):
                # It would take the rules that use it along.
                allowed = may_delete and old and number not in _used_groups(self.holding)
            case DeleteRule(rule):
                allowed = may_delete and (old or kind_of(rule.cookie) in (Kind.LIMIT, Kind.QUENCH))
            case _:
                allowed = True
        if not allowed:
            return False
        refusal = self.refused.get(subject(change)) if self.refused else None
        return refusal is None or timeless(refusal.change) != timeless(change) or now - refusal.t > RETRY_S

    def barrier(self, then: Callable[[], None]) -> None:
        """Calls `then` once the switch has done everything sent so far."""
        self._barriers[self.wire.barrier()] = (then, tuple(self._sent))

    def passed(self, xid: int) -> None:
        """A barrier's answer: everything before it is done or was refused."""
        then, sent = self._barriers.pop(xid, (None, ()))
        for one in sent:
            change = self._sent.pop(one, None)
            if change is not None and self.refused:
                self.refused.pop(subject(change), None)
        if then is not None:
            then()

    def confirmed(self, key: RuleKey) -> bool:
        """Whether the switch has said that it holds a rule, or told so itself."""
        if key not in self.holding.rules or not self._sent:
            return key in self.holding.rules
        pending = (one.rule.key for one in self._sent.values() if isinstance(one, PutRule))
        return key not in pending

    def unconfirmed(self) -> frozenset[RuleKey]:
        """Rules that were sent or deleted, and the switch has not said yet that it did so."""
        return frozenset(one.rule.key for one in self._sent.values() if isinstance(one, PutRule | DeleteRule))

    def holds(self, keys: Iterable[RuleKey]) -> bool:
        """Whether the switch holds all these rules."""
        return all(key in self.holding.rules for key in keys)

    def why_not(self, keys: Iterable[RuleKey]) -> str | None:
        """The reason for which the switch refused one of these rules; None when it refused none."""
        reasons = (self.refused[key].reason for key in keys if key in self.refused and key not in self.holding.rules)
        return next(reasons, None)


def _used_groups(holding: Holding) -> set[int]:
    return {one.number for rule in holding.rules.values() for one in rule.actions if isinstance(one, ToGroup)}


def _as_installed(change: Change, now: Seconds) -> Change:
    # The switch counts whole seconds, rounded up.
    if isinstance(change, PutRule) and change.rule.lease_until is not None:
        left = change.rule.lease_until - now
        return PutRule(replace(change.rule, lease_until=now + max(1, -(-left // 1))))
    return change
