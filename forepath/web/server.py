"""The process of `forepath web`: one server for page and API, on loopback unless told otherwise."""

import signal
import socket
import ssl
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from nicegui import ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cpdb import is_loopback
from forepath.settings import Settings
from forepath.web.api import PREFIX, RateLimit, make_api
from forepath.web.changes import ChangeDesk
from forepath.web.page import add_pages
from forepath.web.reader import Reader
from ryu_apps import LiveContext, TlsFiles

MOST_BODY_BYTES = 64 * 1024
# Nothing is loaded from elsewhere; the page kit compiles its templates in the browser.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
)


def make_app(reader: Reader, settings: Settings, host: str) -> FastAPI:
    """Page and API, as one application; a loopback address answers to no other name (DNS rebinding)."""
    app = FastAPI(title="forepath", docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}/openapi.json")
    app.include_router(make_api(reader, ChangeDesk(settings)))
    add_pages(reader)
    limit = RateLimit(settings.web.requests_per_s)

    @app.middleware("http")
    async def guarded(request: Request, go_on: Any) -> Response:
        origin = request.client.host if request.client else "unknown"
        if request.url.path.startswith(PREFIX) and not limit.admits(origin):
            return JSONResponse({"error": "too many requests; ask more slowly"}, 429, {"Retry-After": "1"})
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            return JSONResponse({"error": "too large"}, 413)
        response: Response = await go_on(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    if is_loopback(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "::1", "[::1]", host])
    ui.run_with(
        app, title="forepath", dark=None, language="en-US", tailwind=False, binding_refresh_interval=None,
        show_welcome_message=False, reconnect_timeout=10.0, message_history_length=100, favicon="🔭",
    )  # fmt: skip
    return app


class FollowingContext(ssl.SSLContext):
    """What the server takes for its context: each connection gets that of the files as they are by then."""

    def __new__(cls, _live: LiveContext) -> Self:
        """As every context is made."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, live: LiveContext) -> None:
        self._live = live

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """The way in which asyncio begins a connection."""
        return self._live.current().wrap_bio(*arguments, **named)


def serve(settings: Settings, listening: socket.socket, files: TlsFiles | None = None) -> None:
    """Serves there until SIGINT, SIGTERM or SIGHUP; with `files` by TLS. Raises SettingsError."""
    reader, host = Reader(settings), str(listening.getsockname()[0])
    told: dict[str, Any] = {"log_level": "warning", "access_log": False}
    if files is not None:
        told |= {"ssl_certfile": files.certificate, "ssl_keyfile": files.key}
    config = uvicorn.Config(make_app(reader, settings, host), **told)
    if files is not None:
        live = LiveContext(files)
        live.current()
        config.load()
        config.ssl = FollowingContext(live)
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run(sockets=[listening])
    finally:
        reader.close()
