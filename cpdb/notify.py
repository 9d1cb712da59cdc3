"""Tells systemd, where it asked, that this process is ready, and again and again that it lives (sd_notify(3))."""

import contextlib
import os
import socket

SOCKET_VARIABLE = "NOTIFY_SOCKET"
READY, ALIVE = "READY=1", "WATCHDOG=1"


def notify_systemd(state: str) -> bool:
    """Sends READY or ALIVE; whether somebody was told. Without an answer it never waits."""
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.setblocking(False)
        # A name that begins with @ lies in no folder (unix(7)).
        to.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        return to.send(state.encode()) == len(state)
    return False
