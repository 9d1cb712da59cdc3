"""What is going on with one connected switch: what it holds, what was sent to it, and what it refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from ryu_apps.datapath import Wire, decode_meter, decode_rule
from ryu_apps.framework import ofproto
from ryu_apps.pipeline import Desired
from ryu_apps.reconcile import AddMeter, Change, DeleteRule, Holding, ModifyMeter, PutRule, difference
from ryu_apps.rules import OWNER, OWNER_MASK, OWNER_SHIFT, Kind, Meter, Rule, RuleKey, kind_of

Seconds = float

_log = structlog.get_logger("ryu_apps.session")
# A refused rule is tried again after this long: a full table may have room by then.
RETRY_S = 30.0
# After a connection, rules that nothing explains yet stay this long: their hosts and pairs may still turn up.
GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that the switch answered with an error."""

    change: Change
    reason: str
    t: Seconds


@dataclass(slots=True)
class Session:
    """One connection of one switch. It is `ready` once the switch told what it holds."""

    wire: Wire
    first_meter: int
    since: Seconds
    holding: Holding = field(default_factory=Holding)
    meters_most: int = 0
    adopted: bool = False
    refused: dict[RuleKey | int, Refusal] = field(default_factory=dict)
    _rules: list[Rule] = field(default_factory=list)
    _meters: list[Meter] = field(default_factory=list)
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
        self._asked = {self.wire.ask_rules(OWNER << OWNER_SHIFT, OWNER_MASK), *self.wire.ask_meters()}

    def read(self, message: Any, now: Seconds) -> bool:
        """Takes a part of the answers to `begin`; False when the message answers something else."""
        if message.xid not in self._asked:
            return False
        kind = message.type
        if kind == ofproto.OFPMP_FLOW:
            self._rules += [decode_rule(one, now) for one in message.body]
        elif kind == ofproto.OFPMP_METER_CONFIG:
            self._meters += [decode_meter(one) for one in message.body]
        elif message.body and message.body[0].band_types:
            self.meters_most = message.body[0].max_meter
        if not message.flags & ofproto.OFPMPF_REPLY_MORE:
            self._answered(message.xid)
        return True

    def _answered(self, xid: int) -> None:
        self._asked.discard(xid)
        if self.ready:
            self.holding = Holding.read(self._rules, self._meters, self.first_meter)

    def error(self, xid: int, reason: str, now: Seconds) -> None:
        """The switch refused a message."""
        if xid in self._asked:
            # A switch without meters says so this way.
            self._answered(xid)
            return
        change = self._sent.pop(xid, None)
        if change is None:
            return
        _log.warning("switch refused a change", dpid=f"{self.dpid:016x}", change=str(change), reason=reason)
        match change:
            case PutRule(rule):
                self.holding.rules.pop(rule.key, None)
                self.refused[rule.key] = Refusal(change, reason, now)
            case AddMeter(meter) if "METER_EXISTS" in reason:
                # Not what we thought it held: the next round sets it right.
                self.holding.meters[meter.number] = Meter(meter.number, -1, -1)
            case AddMeter(meter) | ModifyMeter(meter):
                self.holding.meters.pop(meter.number, None)
                self.refused[meter.number] = Refusal(change, reason, now)

    def lost(self, key: RuleKey) -> bool:
        """The switch says that a rule is gone; True when that was not our doing, and it has to be sent again."""
        return self.settled and self.holding.rules.pop(key, None) is not None

    def reconcile(self, want: Desired, now: Seconds, may_delete: bool) -> bool:
        """Sends what is missing; True when anything was sent."""
        self.holding.expire(now)
        changes = [one for one in difference(self.holding, want) if self._sensible(one, now, may_delete)]
        for change in changes:
            self._sent[self.wire.change(change, now)] = change
        self.holding.apply(_as_installed(change, now) for change in changes)
        return bool(changes)

    def _sensible(self, change: Change, now: Seconds, may_delete: bool) -> bool:
        if isinstance(change, DeleteRule):
            leased = kind_of(change.rule.cookie) in (Kind.LIMIT, Kind.QUENCH)
            return may_delete and (leased or now - self.since > GRACE_S)
        key = change.rule.key if isinstance(change, PutRule) else getattr(change, "meter", None)
        refusal = self.refused.get(key.number if isinstance(key, Meter) else key) if key is not None else None
        return refusal is None or _timeless(refusal.change) != _timeless(change) or now - refusal.t > RETRY_S

    def barrier(self, then: Callable[[], None]) -> None:
        """Calls `then` once the switch has done everything sent so far."""
        self._barriers[self.wire.barrier()] = (then, tuple(self._sent))

    def passed(self, xid: int) -> None:
        """A barrier's answer: everything before it is done or was refused."""
        then, sent = self._barriers.pop(xid, (None, ()))
        for one in sent:
            change = self._sent.pop(one, None)
            if isinstance(change, PutRule):
                self.refused.pop(change.rule.key, None)
        if then is not None:
            then()

    def holds(self, keys: Iterable[RuleKey]) -> bool:
        """Whether the switch holds all these rules."""
        return all(key in self.holding.rules for key in keys)

    def why_not(self, keys: Iterable[RuleKey]) -> str | None:
        """The reason for which the switch refused one of these rules; None when it refused none."""
        reasons = (self.refused[key].reason for key in keys if key in self.refused and key not in self.holding.rules)
        return next(reasons, None)


def _timeless(change: Change) -> Change:
    return PutRule(replace(change.rule, lease_until=None)) if isinstance(change, PutRule) else change


def _as_installed(change: Change, now: Seconds) -> Change:
    # The switch counts whole seconds, rounded up.
    if isinstance(change, PutRule) and change.rule.lease_until is not None:
        left = change.rule.lease_until - now
        return PutRule(replace(change.rule, lease_until=now + max(1, -(-left // 1))))
    return change
