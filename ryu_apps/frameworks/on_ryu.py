"""Ryu 4.34, mended so that it starts on this Python."""

import eventlet.wsgi

if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
    # Ryu imports this name, for websockets only; eventlet 0.31 dropped it.
    eventlet.wsgi.ALREADY_HANDLED = []

from ryu import cfg as options
from ryu.base.app_manager import RyuApp as FrameworkApp
from ryu.controller import controller as stock
from ryu.controller import handler, ofp_event
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3 as ofproto
from ryu.ofproto import ofproto_v1_3_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

__all__ = ["FrameworkApp", "ProtocolDesc", "handler", "hub", "ofp_event", "ofproto", "options", "parser", "stock"]


def run_manager() -> None:
    """Runs the applications of the command line until they end."""
    # Importing it sets up logs and declares its options.
    from ryu.cmd.manager import main

    main()
