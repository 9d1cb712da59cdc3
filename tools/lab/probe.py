"""Asks services for a sign of life from inside a client, and says in one line which of them never gave one.

python -m tools.lab.probe --for 20 10.77.0.101 10.77.0.102
"""

import argparse
import contextlib
import ctypes
import http.client
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
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


PAUSE_S = 0.2


def answers(address: str, timeout_s: float) -> bool:
    """Whether http://ADDRESS/stat answers 200 within the time."""
    connection = http.client.HTTPConnection(address, 80, timeout=timeout_s)
    try:
        connection.request("GET", "/stat")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_for(addresses: Sequence[str], seconds: float) -> list[str]:
    """Asks each address again and again; returns those that never answered within `seconds`."""
    silent, deadline = list(addresses), time.monotonic() + seconds
    while silent and time.monotonic() < deadline:
        silent = [address for address in silent if not answers(address, timeout_s=1.0)]
        if silent:
            time.sleep(PAUSE_S)
    return silent


def main() -> int:
    """0 when all answered, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Wait until services answer.")
    parser.add_argument("--for", dest="seconds", type=float, default=20.0, help="how long to try, seconds")
    parser.add_argument("address", nargs="+")
    options = parser.parse_args()
    silent = wait_for(options.address, options.seconds)
    if silent:
        print(f"no answer within {options.seconds:g} s from {', '.join(silent)}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
