"""The only door to the controller framework: every other file imports framework names from here.

So the framework can be replaced in one place: `ryu_apps.frameworks` says which it is.
"""

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from ryu_apps.frameworks import framework_name

with warnings.catch_warnings():
    # The framework predates this Python, and says so at length.
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import patcher, tpool
    from eventlet.green import socket as green_socket
    from oslo_config import cfg

    _made: Any = importlib.import_module(f"ryu_apps.frameworks.on_{framework_name().replace('-', '_')}")

FrameworkApp, ofp_event, ofproto, parser = _made.FrameworkApp, _made.ofp_event, _made.ofproto, _made.parser
hub, stock, run_manager = _made.hub, _made.stock, _made.run_manager
HANDSHAKE_DISPATCHER: str = _made.handler.HANDSHAKE_DISPATCHER
CONFIG_DISPATCHER: str = _made.handler.CONFIG_DISPATCHER
MAIN_DISPATCHER: str = _made.handler.MAIN_DISPATCHER
DEAD_DISPATCHER: str = _made.handler.DEAD_DISPATCHER
OPENFLOW_13 = ofproto.OFP_VERSION
CONF = _made.options.CONF
# One native thread for the database: no two threads then ever wait for one of its (green) locks.
_DATABASE_THREADS = 1

_log = structlog.get_logger("ryu_apps.framework")
Handler = TypeVar("Handler", bound=Callable[..., None])


def handles(event: type | list[type], *states: str) -> Callable[[Handler], Handler]:
    """Marks a method as the handler of an event, or of several, while a switch is in one of `states`."""
    decorate: Callable[[Handler], Handler] = _made.handler.set_ev_cls(event, list(states))
    return decorate


def off_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in a native thread; this green thread waits, all others go on."""
    if not tpool._setup_already:
        tpool.set_num_threads(_DATABASE_THREADS)
    return tpool.execute(function, *arguments)


def beside(step: Callable[[], bool], every_s: float, wake: Callable[[], None]) -> None:
    """Calls `step` again and again in a native thread; after each time that it says True, `wake` is called here."""
    here, there = green_socket.socketpair()
    raw, native, clock = patcher.original("os"), patcher.original("threading"), patcher.original("time")

    def look() -> None:
        while True:
            if step():
                raw.write(there.fileno(), b"!")
            clock.sleep(every_s)

    def listen() -> None:
        while here.recv(4096):
            wake()

    native.Thread(target=look, daemon=True, name="beside").start()
    spawn(listen)


def spawn(function: Callable[..., None], *arguments: Any) -> Any:
    """Starts a green thread."""
    return hub.spawn(function, *arguments)


def kill(thread: Any) -> None:
    """Ends a green thread."""
    hub.kill(thread)


def sleep(seconds: float) -> None:
    """Lets the others run for so long."""
    hub.sleep(seconds)


def exclusive_listen(host: str, port: int) -> Any:
    """A listening socket that no other program shares. Raises OSError."""
    family = green_socket.AF_INET6 if ":" in host else green_socket.AF_INET
    return eventlet.listen((host, port), family=family, reuse_port=False)


def alarm_clock() -> Any:
    """Something to wait for with `wait(seconds)`, that `set()` ends early; `clear()` readies it again."""
    return hub.Event()


def unbounded_queue() -> Any:
    """A queue whose `put` never waits."""
    return hub.Queue(None)


class Loops:
    """Green threads that do something again and again; nothing that goes wrong in one is fatal. Counts `failures`."""

    def __init__(self) -> None:
        self.failures = 0

    def every(self, period_s: float, doing: str, body: Callable[[float], None], due: Any = None) -> None:
        """Calls `body(now)` again and again, at once when `due` is set."""
        due = due or alarm_clock()

        def loop() -> None:
            while True:
                due.clear()
                self.attempt(doing, lambda: body(time.time()))
                due.wait(period_s)

        spawn(loop)

    def later(self, wait_s: float, doing: str, body: Callable[[float], None]) -> None:
        """Calls `body(now)` once, after a while."""

        def wait() -> None:
            sleep(wait_s)
            self.attempt(doing, lambda: body(time.time()))

        spawn(wait)

    def attempt(self, doing: str, body: Callable[[], None]) -> None:
        """Whatever goes wrong in `body` is logged and counted."""
        try:
            body()
        except Exception:  # noqa: BLE001
            self.failures += 1
            _log.exception("loop goes on after an error", doing=doing, failures=self.failures)


def offline_datapath() -> Any:
    """A datapath that can encode and decode messages but has no connection."""
    return _made.ProtocolDesc(version=OPENFLOW_13)


__all__ = [
    "CONF",
    "CONFIG_DISPATCHER",
    "DEAD_DISPATCHER",
    "HANDSHAKE_DISPATCHER",
    "MAIN_DISPATCHER",
    "OPENFLOW_13",
    "FrameworkApp",
    "Loops",
    "alarm_clock",
    "beside",
    "cfg",
    "exclusive_listen",
    "handles",
    "hub",
    "kill",
    "off_loop",
    "offline_datapath",
    "ofp_event",
    "ofproto",
    "parser",
    "run_manager",
    "sleep",
    "spawn",
    "stock",
    "unbounded_queue",
]
