"""Bandwidth that people or programs ask for, what was granted of it, and what was obtained."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine

from cpdb.model import BytesPerS, Seconds
from cpdb.schema import bandwidth_requests as table
from cpdb.state.repository import Condition, Repository


class RequestState(StrEnum):
    """What became of a request."""

    ASKED = "asked"
    GRANTED = "granted"
    PARTLY = "partly"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """What was decided about a request and why, and what was measured of it since."""

    state: RequestState = RequestState.ASKED
    granted_bytes_per_s: BytesPerS = 0.0
    obtained_bytes_per_s: BytesPerS | None = None
    why: str = ""
    decided_at: Seconds | None = None


@dataclass(frozen=True, slots=True)
class BandwidthRequest:
    """`bytes_per_s` from `source` ("": every source) to `virtual_ip` until `until`."""

    source: str
    virtual_ip: str
    bytes_per_s: BytesPerS
    until: Seconds
    reason: str
    asked_by: str
    asked_at: Seconds
    priority: int | None = None
    tenant: str | None = None
    answer: RequestAnswer = field(default_factory=RequestAnswer)
    id: int | None = None

    def answered(self, **news: Any) -> "BandwidthRequest":
        """The same request with these fields of its answer changed."""
        return replace(self, answer=replace(self.answer, **news))


ALIVE = table.c.state.in_([RequestState.ASKED.value, RequestState.GRANTED.value, RequestState.PARTLY.value])


class Requests:
    """All requests, open and ended."""

    def __init__(self, engine: Engine) -> None:
        self._requests = Repository(engine, table, BandwidthRequest)

    def ask(self, item: BandwidthRequest) -> int:
        """Adds a request; returns its number."""
        return self._requests.add(item)

    def amend(self, item: BandwidthRequest) -> None:
        """Writes what became of a request. It must have its number."""
        self._requests.amend(item, table.c.id == item.id)

    def withdraw(self, number: int, now: Seconds) -> bool:
        """Ends a request before its time; False when it was not open."""
        news = {"state": RequestState.ENDED.value, "why": "withdrawn", "until": now}
        return self._requests.change(news, table.c.id == number, ALIVE) > 0

    def open(self, now: Seconds) -> list[BandwidthRequest]:
        """Requests that are asked or granted and not over at `now`, oldest first."""
        return self._read((table.c.until > now) & ALIVE)

    def since(self, t: Seconds) -> list[BandwidthRequest]:
        """Requests that were asked after `t`, or are not over before it, oldest first."""
        return self._read((table.c.asked_at > t) | (table.c.until > t))

    def _read(self, which: Condition) -> list[BandwidthRequest]:
        return self._requests.read(which, order_by=[table.c.id])
