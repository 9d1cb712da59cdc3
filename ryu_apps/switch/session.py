"""What is going on with one connected switch: what it holds, what was sent to it, and what it refused."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ryu_apps.effects import AddGroup, Change, DeleteGroup, DeleteRule, ModifyGroup, PutRule
from ryu_apps.openflow import (
    EntryFilter,
    MultipartKind,
    count_tables,
    decode_groups,
    decode_meters,
    decode_rules,
    has_failover,
    max_entries,
    max_meters,
)
from ryu_apps.rules import (
    OWNER,
    OWNER_MASK,
    OWNER_SHIFT,
    Desired,
    Kind,
    Meter,
    Rule,
    RuleKey,
    SwitchGroup,
    ToGroup,
    kind_of,
)
from ryu_apps.switch.abilities import SMALL_TABLES, Abilities, FullTables, is_full
from ryu_apps.switch.errors import SwitchError, unmatched
from ryu_apps.switch.reconcile import Holding, RefusedChanges, about, difference, undo
from ryu_apps.switch.window import ChangeWindow
from ryu_apps.switch.wire import Wire

Seconds = float

# After a connection, rules that nothing explains yet stay this long: their hosts and pairs may still turn up.
GRACE_S = 3.0
_OURS = EntryFilter(OWNER << OWNER_SHIFT, OWNER_MASK)
_MULTIPART_HEADER_BYTES = 16
_MORE = 1
_DELETIONS = (DeleteRule, DeleteGroup)
_QUESTIONS = (
    MultipartKind.TABLES,
    MultipartKind.METER_FEATURES,
    MultipartKind.METERS,
    MultipartKind.GROUP_FEATURES,
    MultipartKind.GROUPS,
)


@dataclass(slots=True)
class _Inventory:
    """What a switch has told so far of what it holds; `questions` are those without a whole answer."""

    questions: set[int] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    meters: list[Meter] = field(default_factory=list)
    groups: list[SwitchGroup] = field(default_factory=list)

    def is_whole_without(self, xid: int) -> bool:
        """Whether this answer was the last one; the question is done."""
        self.questions.discard(xid)
        return not self.questions

    def holding(self, first_meter: int) -> Holding:
        """What of it is ours; meters are from that number on."""
        return Holding.read(self.rules, self.meters, first_meter, self.groups)


@dataclass(slots=True)
class _SentChanges:
    """Changes that the switch has not confirmed yet, by transaction number, and who waits for what was sent before."""

    changes: dict[int, Change] = field(default_factory=dict)
    _barriers: dict[int, tuple[Callable[[], None], tuple[int, ...]]] = field(default_factory=dict)

    def add(self, numbers: Sequence[int], changes: Sequence[Change]) -> None:
        """Takes note of what was sent."""
        self.changes.update(zip(numbers, changes, strict=True))

    def wait(self, barrier: int, then: Callable[[], None]) -> None:
        """Calls `then` once everything so far is done."""
        self._barriers[barrier] = (then, tuple(self.changes))

    def is_barrier(self, xid: int) -> bool:
        """Whether somebody waits for this number."""
        return xid in self._barriers

    def pass_barrier(self, xid: int, refused: RefusedChanges) -> None:
        """Everything before it is done or was refused."""
        then, numbers = self._barriers.pop(xid, (None, ()))
        for number in numbers:
            change = self.changes.pop(number, None)
            if change is not None:
                refused.forget(change)
        if then is not None:
            then()


@dataclass(slots=True)
class Session:
    """One connection of one switch. It is `ready` once the switch told what it holds."""

    wire: Wire
    first_meter: int
    since: Seconds
    holding: Holding = field(default_factory=Holding)
    abilities: Abilities = field(default_factory=Abilities)
    window: ChangeWindow = field(default_factory=ChangeWindow)
    adopted: bool = False
    refused: RefusedChanges = field(default_factory=RefusedChanges)
    _inventory: _Inventory = field(default_factory=_Inventory)
    _sent: _SentChanges = field(default_factory=_SentChanges)
    _full: FullTables = field(default_factory=FullTables)

    @property
    def ready(self) -> bool:
        """Whether everything that the switch holds has been read."""
        return not self._inventory.questions

    @property
    def dpid(self) -> int:
        """The switch's number."""
        return self.wire.dpid

    @property
    def has_meters(self) -> bool:
        """Whether the switch has meters with our numbers."""
        return self.abilities.max_meters >= self.first_meter and not self.abilities.one_table

    @property
    def settled(self) -> bool:
        """Whether the switch has confirmed everything sent so far."""
        return not self._sent.changes

    def begin(self) -> None:
        """Asks what the switch holds of ours."""
        rules = self.wire.request(MultipartKind.FLOWS, _OURS)
        self._inventory.questions = {rules, *(self.wire.request(kind) for kind in _QUESTIONS)}

    def read(self, message: Any, now: Seconds) -> bool:
        """Takes a part of the answers to `begin`; False when the message answers something else."""
        inventory = self._inventory
        if message.xid not in inventory.questions:
            return False
        body = bytes(message.buf[_MULTIPART_HEADER_BYTES:])
        match message.type:
            case MultipartKind.FLOWS:
                inventory.rules += map(self.wire.places.read, decode_rules(body, now))
            case MultipartKind.METERS:
                inventory.meters += decode_meters(body)
            case MultipartKind.GROUPS:
                inventory.groups += decode_groups(body)
            case _:
                self.abilities = _with_features(self.abilities, message.type, body, self.wire.places.first_table)
        if message.type == MultipartKind.TABLES and self.abilities.tables <= SMALL_TABLES:
            inventory.questions.add(self.wire.request(MultipartKind.TABLE_FEATURES))
        if not message.flags & _MORE and inventory.is_whole_without(message.xid):
            self.holding = inventory.holding(self.first_meter)
        return True

    def error(self, error: SwitchError, now: Seconds) -> str:
        """The switch refused a message; returns what that was about."""
        xid, request = error.xid, self.wire.requests.take(error.xid)
        if xid in self._inventory.questions:
            # A switch without meters or groups says so this way.
            if self._inventory.is_whole_without(xid):
                self.holding = self._inventory.holding(self.first_meter)
        elif self._sent.is_barrier(xid):
            # Whoever waits must not wait for ever.
            self.passed(xid)
        change = self._sent.changes.pop(xid, None)
        if change is None:
            return request or unmatched(error)
        if isinstance(change, AddGroup | ModifyGroup) and "GROUP_EXISTS" not in error.reason:
            # Without groups everything still goes its first way.
            self.abilities = replace(self.abilities, has_failover=False)
        self.abilities = self.abilities.learn(change, error.reason)
        if isinstance(change, PutRule) and is_full(error.reason):
            self._full.refused(change.rule.table)
        if undo(change, error.reason, self.holding):
            self.refused.add(change, error.reason, now)
        return about(change)

    def settle_room(self, now: Seconds) -> None:
        """How much fits into tables that refused something, once all that was sent is done or refused."""
        if not self.settled:
            return
        room = self._full.settle(lambda: iter(self.holding.rules), self.abilities.room, now)
        if room != self.abilities.room:
            self.abilities = replace(self.abilities, room=room)
            # What fits now need not wait.
            self.refused.forget_where(is_full)

    def lost(self, key: RuleKey) -> bool:
        """The switch says that a rule is gone; True when that was not our doing, and it has to be sent again."""
        return self.settled and self.holding.rules.pop(key, None) is not None

    def reconcile(self, want: Desired, now: Seconds, may_delete: bool) -> bool:
        """Sends what is missing, as much of it as the switch is to have at once; True when anything was sent."""
        self.holding.expire(now)
        old = now - self.since > GRACE_S
        changes = [
            change
            for change in difference(self.holding, want)
            if not self.refused.holds_back(change, now)
            and (
                not isinstance(change, DeleteRule | DeleteGroup) or (may_delete and _may_go(change, self.holding, old))
            )
        ]
        if self.abilities.room:
            # In a full table there is no place for the new before the old has gone.
            changes.sort(key=lambda change: not isinstance(change, DeleteRule))
        room, waiting = self.window.room(len(self._sent.changes), now), len(changes)
        changes = changes[:room]
        self.window.sent(len(changes), waiting - len(changes), now)
        if changes:
            self._sent.add(self.wire.changes(changes, now), changes)
        self.holding.apply(_as_installed(change, now) for change in changes)
        return bool(changes)

    def barrier(self, then: Callable[[], None]) -> None:
        """Calls `then` once the switch has done everything sent so far."""
        self._sent.wait(self.wire.barrier(), then)

    def passed(self, xid: int) -> None:
        """A barrier's answer: everything before it is done or was refused."""
        self._sent.pass_barrier(xid, self.refused)

    def confirmed(self, key: RuleKey) -> bool:
        """Whether the switch has said that it holds a rule, or told so itself."""
        if key not in self.holding.rules or self.settled:
            return key in self.holding.rules
        pending = (change.rule.key for change in self._sent.changes.values() if isinstance(change, PutRule))
        return key not in pending

    def unconfirmed(self) -> frozenset[RuleKey]:
        """Rules that were sent or deleted, and the switch has not said yet that it did so."""
        changes = self._sent.changes.values()
        return frozenset(change.rule.key for change in changes if isinstance(change, PutRule | DeleteRule))

    def why_not(self, keys: Iterable[RuleKey]) -> str | None:
        """The reason for which the switch refused one of these rules; None when it refused none."""
        return self.refused.reason(key for key in keys if key not in self.holding.rules)


def _with_features(abilities: Abilities, kind: int, body: bytes, first_table: int) -> Abilities:
    match kind:
        case MultipartKind.GROUP_FEATURES:
            return replace(abilities, has_failover=has_failover(body))
        case MultipartKind.METER_FEATURES:
            return replace(abilities, max_meters=max_meters(body))
        case MultipartKind.TABLES:
            return replace(abilities, tables=max(1, count_tables(body) - first_table))
        case MultipartKind.TABLE_FEATURES:
            room = {table - first_table: entries for table, entries in max_entries(body).items()}
            return replace(abilities, room={**abilities.room, **room})
    return abilities


def _may_go(change: DeleteRule | DeleteGroup, holding: Holding, old: bool) -> bool:
    # `old`: since the connection there was time enough for everything to turn up.
    if isinstance(change, DeleteRule):
        return old or kind_of(change.rule.cookie) in (Kind.LIMIT, Kind.DROP)
    # A group would take the rules that use it along.
    return old and change.number not in _used_groups(holding)


def _used_groups(holding: Holding) -> set[int]:
    rules = holding.rules.values()
    return {action.number for rule in rules for action in rule.actions if isinstance(action, ToGroup)}


def _as_installed(change: Change, now: Seconds) -> Change:
    # The switch counts whole seconds, rounded up.
    if isinstance(change, PutRule) and change.rule.lease_until is not None:
        left = change.rule.lease_until - now
        return PutRule(replace(change.rule, lease_until=now + max(1, -(-left // 1))))
    return change
