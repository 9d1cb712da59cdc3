"""A wire to a fake switch, which answers when the test says so."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ryu_apps.effects import Change
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.switch.errors import SwitchError
from ryu_apps.switch.session import Session
from ryu_apps.switch.wire import SentRequests
from ryu_apps.tables import TablePlaces


@dataclass
class Wire:
    """What is sent is done at once, or refused with the text that `refuse` gives."""

    switch: FakeSwitch
    dpid: int
    refuse: Callable[[Change], str | None] = lambda _change: None
    number: int = 0
    places: TablePlaces = field(default_factory=TablePlaces)
    errors: list[tuple[int, str]] = field(default_factory=list)
    barriers: list[int] = field(default_factory=list)
    requests: SentRequests = field(default_factory=SentRequests)

    def changes(self, changes: list[Change], now: float) -> list[int]:
        return [self._change(one, now) for one in changes]

    def _change(self, change: Change, now: float) -> int:
        self.number += 1
        reason = self.refuse(change)
        errors = self.switch.apply([change], now) if reason is None else [reason]
        self.errors += [(self.number, text) for text in errors]
        return self.number

    def barrier(self) -> int:
        self.number += 1
        self.barriers.append(self.number)
        return self.number

    def answer(self, session: Session, now: float) -> None:
        """Everything that was asked so far is answered."""
        for xid, text in self.errors:
            session.error(SwitchError(xid, text, b""), now)
        for xid in self.barriers:
            session.passed(xid)
        self.errors, self.barriers = [], []
