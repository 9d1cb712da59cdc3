"""What is told to the database is told once: again after a while, and withdrawn when it is gone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from operator import eq
from typing import Generic, TypeVar

from cpdb.model import Seconds

Key = TypeVar("Key")
Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class News(Generic[Key, Fact]):
    """What is to be written: facts that are new or due again, and the last word on those that are gone, by key."""

    said: Mapping[Key, Fact]
    gone: Mapping[Key, Fact]


@dataclass(slots=True)
class Publisher(Generic[Key, Fact]):
    """Remembers what was said, and decides what is to be said next; it writes nothing itself.

    A fact that is the `same` as what was said is said again after `again_s`; another one no sooner than `pause_s`
    after the last word on its key.
    """

    again_s: Seconds = inf
    pause_s: Seconds = 0.0
    same: Callable[[Fact, Fact], bool] = eq
    _said: dict[Key, tuple[Fact, Seconds]] = field(default_factory=dict)

    def publish(self, facts: Mapping[Key, Fact | None], now: Seconds) -> News[Key, Fact]:
        """What is to be written of these facts; None means that nothing is known just now, and what was said stands."""
        due = {key: fact for key, fact in facts.items() if fact is not None and self._due(key, fact, now)}
        gone = {key: self._said.pop(key)[0] for key in [key for key in self._said if key not in facts]}
        self._said |= {key: (fact, now) for key, fact in due.items()}
        return News(due, gone)

    def _due(self, key: Key, fact: Fact, now: Seconds) -> bool:
        if key not in self._said:
            return True
        before, at = self._said[key]
        return now - at >= (self.again_s if self.same(before, fact) else self.pause_s)

    def said(self, key: Key) -> Fact | None:
        """The last word on a key that is not gone."""
        before = self._said.get(key)
        return before[0] if before else None

    def forget(self, key: Key) -> None:
        """The next fact about a key is said whatever it is."""
        self._said.pop(key, None)
