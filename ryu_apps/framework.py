"""The only file that names the controller framework: every other one imports framework names from here.

So the framework can be replaced in one place.
"""

import struct
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

with warnings.catch_warnings():
    # The framework predates this Python, and says so at length.
    warnings.simplefilter("ignore")
    import eventlet.wsgi

    if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
        # Ryu 4.34 imports this name, for websockets only; eventlet 0.31 dropped it.
        eventlet.wsgi.ALREADY_HANDLED = []

    from eventlet import tpool
    from oslo_config import cfg
    from ryu import cfg as ryu_cfg
    from ryu.base.app_manager import RyuApp
    from ryu.controller import ofp_event
    from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.lib import hub
    from ryu.ofproto import ofproto_v1_3 as ofproto
    from ryu.ofproto import ofproto_v1_3_parser as parser
    from ryu.ofproto.ofproto_protocol import ProtocolDesc

from ryu_apps.guard import MalformedMessage, check_multipart

OPENFLOW_13 = ofproto.OFP_VERSION
CONF = ryu_cfg.CONF
_log = structlog.get_logger("ryu_apps.framework")
# One native thread for the database: no two threads then ever wait for one of its (green) locks.
_DATABASE_THREADS = 1

Handler = TypeVar("Handler", bound=Callable[..., None])

_FLOW_HEAD = struct.Struct("!HBxIIHHHH4xQQQ").unpack_from


class LazyFlowStats:
    """One flow entry of a statistics reply: counters at once, match and instructions only when asked for.

    Decoding everything costs a hundred times more, and counters with a cookie are all that polling needs.
    """

    def __init__(self, buf: bytes, offset: int) -> None:
        self._buf, self._offset, self._decoded = buf, offset, None
        (
            self.length,
            self.table_id,
            self.duration_sec,
            self.duration_nsec,
            self.priority,
            self.idle_timeout,
            self.hard_timeout,
            self.flags,
            self.cookie,
            self.packet_count,
            self.byte_count,
        ) = _FLOW_HEAD(buf, offset)

    @classmethod
    def parser(cls, buf: bytes, offset: int) -> "LazyFlowStats":
        """The framework's hook."""
        return cls(buf, offset)

    def _full(self) -> Any:
        if self._decoded is None:
            self._decoded = parser.OFPFlowStats.parser(self._buf, self._offset)
        return self._decoded

    @property
    def match(self) -> Any:
        """The decoded match."""
        return self._full().match

    @property
    def instructions(self) -> Any:
        """The decoded instructions."""
        return self._full().instructions


def _guarded(parse: Callable[..., Any]) -> Callable[..., Any]:
    def multipart(datapath: Any, *rest: Any) -> Any:
        # The framework's parsers take (datapath, version, type, length, xid, bytes).
        try:
            check_multipart(rest[-1])
        except MalformedMessage as error:
            _log.warning("message dropped", peer=str(datapath.address), dpid=datapath.id, reason=str(error))
            return None
        return parse(datapath, *rest)

    return multipart


def harden() -> None:
    """Puts the length guard before the framework's parser and the fast decoder in it. Safe to call twice."""
    if parser.OFPFlowStatsReply.cls_stats_body_cls is LazyFlowStats:
        return
    parser.OFPFlowStatsReply.cls_stats_body_cls = LazyFlowStats
    parsers = parser._MSG_PARSERS
    parsers[ofproto.OFPT_MULTIPART_REPLY] = _guarded(parsers[ofproto.OFPT_MULTIPART_REPLY])


def handles(event: type, *states: str) -> Callable[[Handler], Handler]:
    """Marks a method as the handler of an event while a switch is in one of `states`."""
    decorate: Callable[[Handler], Handler] = set_ev_cls(event, list(states))
    return decorate


def off_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in a native thread; this green thread waits, all others go on."""
    if not tpool._setup_already:
        tpool.set_num_threads(_DATABASE_THREADS)
    return tpool.execute(function, *arguments)


def spawn(function: Callable[..., None], *arguments: Any) -> Any:
    """Starts a green thread."""
    return hub.spawn(function, *arguments)


def kill(thread: Any) -> None:
    """Ends a green thread."""
    hub.kill(thread)


def sleep(seconds: float) -> None:
    """Lets the others run for so long."""
    hub.sleep(seconds)


def unbounded_queue() -> Any:
    """A queue whose `put` never waits."""
    return hub.Queue(None)


def offline_datapath() -> Any:
    """A datapath that can encode and decode messages but has no connection."""
    return ProtocolDesc(version=OPENFLOW_13)


__all__ = [
    "CONF",
    "DEAD_DISPATCHER",
    "MAIN_DISPATCHER",
    "OPENFLOW_13",
    "RyuApp",
    "cfg",
    "handles",
    "harden",
    "kill",
    "off_loop",
    "offline_datapath",
    "ofp_event",
    "ofproto",
    "parser",
    "sleep",
    "spawn",
    "unbounded_queue",
]
