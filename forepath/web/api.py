"""The API: what the page shows, as JSON, by the same questions; and changes, for whoever has the token."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from cpdb import ForepathError, SettingsError, StoreError
from forepath.moments import LAST
from forepath.output import finite
from forepath.web.address import PageAddress, ViewParameter
from forepath.web.changes import CHANGES, ChangeDesk
from forepath.web.conduct import tell_newest, tell_strip
from forepath.web.reader import Reader
from forepath.web.views import VIEWS, View

PREFIX = "/api/v1"
# A list is cut here whatever is asked for; `left_out` tells how many rows are missing.
MOST_ROWS = 2000
# Whoever asks is remembered by address, and so many of them.
MOST_ASKERS = 1000
PROBLEMS = {400: "a parameter is wrong", 404: "there is no such thing", 429: "too many requests", 503: "no database"}
AT = ViewParameter("at", "a past moment: 2026-11-28T03:00, 03:00, -10m or last; without, the present")
STATUS = View("/status", "Whether forepath acts, and how old everything is", tell_strip, "strip")


class RateLimit:
    """So many requests a second from each address, and twice as many at once."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._left: dict[str, tuple[float, float]] = {}

    def admits(self, origin: str) -> bool:
        """Whether this one is still within the limit."""
        now, most = self._clock(), 2 * self._per_s
        left, at = self._left.pop(origin, (most, now))
        left = min(most, left + (now - at) * self._per_s)
        while len(self._left) >= MOST_ASKERS:
            del self._left[next(iter(self._left))]
        self._left[origin] = (max(0.0, left - 1.0), now)
        return left >= 1.0


def make_api(reader: Reader, desk: ChangeDesk) -> APIRouter:
    """The routes under PREFIX."""
    api = APIRouter(prefix=PREFIX)
    for view in (STATUS, *VIEWS):
        path = "/topology" if view.path == "/" else view.path
        responses: dict[int | str, dict[str, Any]] = {
            200: {"description": view.question.__doc__ or ""},
            **{code: {"description": text} for code, text in PROBLEMS.items()},
        }
        extra = {"parameters": [_described(one) for one in (*view.parameters, AT)]}
        options: dict[str, Any] = {"summary": view.title, "operation_id": path.strip("/"), "openapi_extra": extra}
        api.add_api_route(path, partial(_tell, reader, view), responses=responses, **options)
    for name, wanted in CHANGES.items():
        body = {"content": {"application/json": {"schema": wanted.model_json_schema()}}, "required": True}
        api.add_api_route(
            f"/{name}", partial(_change, desk, name), methods=["POST"], summary=wanted.__doc__, operation_id=name,
            openapi_extra={"requestBody": body},
        )  # fmt: skip
    return api


def _described(one: ViewParameter) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "string"} if isinstance(one.default, str) else {"type": "number", "minimum": 0}
    kind |= {"maximum": one.most} if one.most else {}
    kind |= {"enum": list(one.options)} if one.options else {}
    return {"name": one.name, "in": "query", "description": one.about, "schema": kind | {"default": one.default}}


async def _tell(reader: Reader, view: View, request: Request) -> Response:
    address = PageAddress(view.path, dict(request.query_params))
    try:
        known = {one.name for one in (*view.parameters, AT)}
        if unknown := address.words.keys() - known:
            raise SettingsError(f"?{min(unknown)}=: unknown here; known are {', '.join(sorted(known))}")
        newest = (await reader.ask(tell_newest)).value if address.word("at") == LAST else None
        arguments, at = view.arguments(address), address.at(reader.clock(), newest)
    except SettingsError as error:
        return _said(400, {"error": str(error)})
    try:
        answer = await reader.ask(view.question, *arguments, at=at)
    except SettingsError as error:
        return _said(404, {"error": str(error)})
    if answer.trouble is not None:
        return _said(503, {"error": answer.trouble})
    return _said(200, bounded(answer.value))


def bounded(told: Any) -> Any:
    """The same with lists of at most MOST_ROWS, and how many rows are missing of each."""
    long = {name: len(rows) - MOST_ROWS for name, rows in told.items() if isinstance(rows, list)}
    long = {name: count for name, count in long.items() if count > 0}
    return {**told, **{name: told[name][:MOST_ROWS] for name in long}, "left_out": long} if long else told


async def _change(desk: ChangeDesk, what: str, request: Request) -> Response:
    objection = desk.objection(request.headers.get("authorization", ""))
    if objection is not None:
        return _said(403, {"error": objection})
    try:
        wanted = CHANGES[what].model_validate_json(await request.body())
    except ValueError as error:
        return _said(400, {"error": str(error)})
    origin = request.client.host if request.client else "unknown"
    try:
        return _said(200, await asyncio.to_thread(desk.carry_out, what, wanted, origin))
    except StoreError as error:
        return _said(503, {"error": str(error)})
    except ForepathError as error:
        return _said(409, {"error": str(error)})


def _said(status: int, told: Any) -> Response:
    return Response(json.dumps(finite(told), default=str), status, media_type="application/json")
