"""Talking from inside a network namespace without starting a process there."""

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cpdb.errors import LabError

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def inside(namespace: Path, work: Callable[[], T]) -> T:
    """Return `work()` as run by a thread that lives in the network namespace at `namespace`; errors come through."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "cannot enter the network namespace", str(namespace))
            finally:
                os.close(descriptor)
            results.append(work())
        except (OSError, LabError, ValueError) as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def http_get(address: str, path: str, timeout_s: float = 2.0) -> bytes:
    """Return the body of `GET http://address:80/path`; OSError when it cannot be had within `timeout_s`."""
    with contextlib.closing(socket.create_connection((address, 80), timeout_s)) as link:
        link.settimeout(timeout_s)
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        data = b""
        while chunk := link.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError(f"{address}{path} answered {head[:60]!r}")
    return body
