"""Bandwidth that people or programs ask for, what was granted of it, and what was obtained."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, insert, select, update

from cpdb.engine import reported
from cpdb.model import BytesPerS, Seconds
from cpdb.schema import bandwidth_requests as table


class RequestState(StrEnum):
    """What became of a request."""

    ASKED = "asked"
    GRANTED = "granted"
    PARTLY = "partly"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class BandwidthRequest:
    """`bytes_per_s` from `source` ("": every source) to `virtual_ip` until `until`; `why` tells of the decision."""

    source: str
    virtual_ip: str
    bytes_per_s: BytesPerS
    until: Seconds
    reason: str
    asked_by: str
    asked_at: Seconds
    priority: int | None = None
    tenant: str | None = None
    state: RequestState = RequestState.ASKED
    granted_bytes_per_s: BytesPerS = 0.0
    obtained_bytes_per_s: BytesPerS | None = None
    why: str = ""
    decided_at: Seconds | None = None
    id: int | None = None


REQUEST_COLUMNS = [table.c[item.name] for item in fields(BandwidthRequest)]
ALIVE = (RequestState.ASKED.value, RequestState.GRANTED.value, RequestState.PARTLY.value)


class Requests:
    """All requests, open and ended."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, item: BandwidthRequest) -> int:
        """Adds a request; returns its number."""
        with reported(self._engine, "asking for bandwidth"), self._engine.begin() as connection:
            result = connection.execute(insert(table).values(_row(item)))
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def amend(self, item: BandwidthRequest) -> None:
        """Writes what became of a request. It must have its number."""
        with reported(self._engine, f"amending request {item.id}"), self._engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == item.id).values(_row(item)))

    def withdraw(self, number: int, now: Seconds) -> bool:
        """Ends a request before its time; False when it was not open."""
        same = (table.c.id == number) & table.c.state.in_(ALIVE)
        news = {"state": RequestState.ENDED.value, "why": "withdrawn", "until": now}
        with reported(self._engine, f"withdrawing request {number}"), self._engine.begin() as connection:
            return connection.execute(update(table).where(same).values(news)).rowcount > 0

    def open(self, now: Seconds) -> list[BandwidthRequest]:
        """Requests that are asked or granted and not over at `now`, oldest first."""
        return self._read((table.c.until > now) & table.c.state.in_(ALIVE))

    def since(self, t: Seconds) -> list[BandwidthRequest]:
        """Requests that were asked after `t`, or are not over before it, oldest first."""
        return self._read((table.c.asked_at > t) | (table.c.until > t))

    def _read(self, which: Any) -> list[BandwidthRequest]:
        query = select(*REQUEST_COLUMNS).where(which).order_by(table.c.id)
        with reported(self._engine, "reading requests"), self._engine.connect() as connection:
            found = [BandwidthRequest(*row) for row in connection.execute(query)]
        return [replace(one, state=RequestState(one.state)) for one in found]


def _row(item: BandwidthRequest) -> dict[str, Any]:
    row = {one.name: getattr(item, one.name) for one in fields(BandwidthRequest) if one.name != "id"}
    return row | {"state": item.state.value}
