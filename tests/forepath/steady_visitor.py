"""A client that never stops: short requests one after the other, and slow ones that stay open for seconds.

python steady_visitor.py ADDRESS STOP_FILE      prints one JSON object once STOP_FILE is there
"""

import json
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

PAUSE_S = 0.05
SLOW_PARTS, PART_S = 6, 1.0
LIMIT_S = 12.0


class Visits:
    """What became of the requests: by whom (boot id) they were answered, and what failed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answered: Counter[str] = Counter()
        self.slow = 0
        self.failed: list[str] = []

    def short(self) -> None:
        with socket.create_connection((self.address, 80), timeout=LIMIT_S) as connection:
            connection.sendall(b"GET /stat HTTP/1.1\r\n\r\n")
            self.answered[json.loads(body(connection))["boot_id"]] += 1

    def long(self) -> None:
        with socket.create_connection((self.address, 80), timeout=LIMIT_S) as connection:
            connection.sendall(f"POST /work?spin=0 HTTP/1.1\r\nContent-Length: {SLOW_PARTS}\r\n\r\n".encode())
            for _ in range(SLOW_PARTS):
                time.sleep(PART_S)
                connection.sendall(b"x")
            assert json.loads(body(connection))["bytes"] == SLOW_PARTS
            self.slow += 1

    def attempt(self, what: str) -> None:
        began = time.time()
        try:
            getattr(self, what)()
        except (OSError, ValueError, KeyError, AssertionError) as error:
            self.failed.append(f"{what} at {began:.2f} after {time.time() - began:.2f} s: {error!r}")


def body(connection: socket.socket) -> bytes:
    """The answer's body; the guest closes when it has said everything."""
    found = b""
    while part := connection.recv(4096):
        found += part
    return found.partition(b"\r\n\r\n")[2]


def main(address: str, stop: str) -> None:
    visits, running = Visits(address), []
    print("ready", flush=True)
    last = 0.0
    while not Path(stop).exists():
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            running.append(threading.Thread(target=visits.attempt, args=("long",)))
            running[-1].start()
        visits.attempt("short")
        time.sleep(PAUSE_S)
    for one in running:
        one.join()
    print(json.dumps({"answered": visits.answered, "slow": visits.slow, "failed": visits.failed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
