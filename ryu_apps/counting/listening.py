"""Receives sFlow datagrams beside the event loop's other work."""

import socket
import time
from collections.abc import Callable

from cpdb import SettingsError
from ryu_apps.framework import sleep

_LARGEST = 65536
_BUFFER_BYTES = 4 << 20
# A flood of datagrams must not keep the switches waiting.
_TURN = 32

Take = Callable[[bytes, str, float], None]


def bound(listen: str) -> socket.socket:
    """A socket that receives on HOST:PORT. Raises SettingsError when that cannot be."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        receiver.bind((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, OverflowError) as error:
        receiver.close()
        raise SettingsError(f"[forepath] sflow_listen {listen}: {error}; name an address of this machine") from error
    return receiver


def receive(receiver: socket.socket, take: Take) -> None:
    """Hands every datagram to `take(data, address, now)`, for ever."""
    count = 0
    while True:
        data, peer = receiver.recvfrom(_LARGEST)
        take(data, str(peer[0]), time.time())
        count += 1
        if count % _TURN == 0:
            sleep(0)
