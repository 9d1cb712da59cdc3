"""What talks while things break: one TCP connection that must live on, and datagrams that must all be counted.

python -m tools.chaos.talker serve ADDRESS
python -m tools.chaos.talker talk ADDRESS FOLDER     both rest while FOLDER/quiet exists
"""

import json
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

PORT = 9
BYTES_PER_S = 150_000.0
ECHO_EVERY_S = 0.2
# Of a connection that is silent for so long nobody expects anything any more.
PATIENCE_S = 60.0


def serve(address: str) -> None:
    """Answers every line of every connection, and takes datagrams."""
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind((address, PORT))
    threading.Thread(target=_drain, args=(sink,), daemon=True).start()
    with socket.create_server((address, PORT)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _drain(sink: socket.socket) -> None:
    while True:
        sink.recv(65536)


def _answer(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(4096):
            connection.sendall(data)


def talk(address: str, folder: Path) -> None:
    """Writes FOLDER/echo: when the last answer came, and how many connections that took so far."""
    quiet, connections = folder / "quiet", 0
    threading.Thread(target=_flood, args=(address, quiet), daemon=True).start()
    while True:
        with suppress(OSError), socket.create_connection((address, PORT), timeout=PATIENCE_S) as line:
            connections += 1
            while True:
                line.sendall(b"x")
                if not line.recv(1):
                    break
                fresh = folder / "echo.new"
                fresh.write_text(json.dumps({"at": time.time(), "connections": connections}))
                fresh.replace(folder / "echo")
                time.sleep(ECHO_EVERY_S)
                while quiet.exists():
                    time.sleep(ECHO_EVERY_S)
        time.sleep(ECHO_EVERY_S)


def _flood(address: str, quiet: Path) -> None:
    payload = b"x" * 1200
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        before, budget = time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            budget = 0.0 if quiet.exists() else min(budget + (now - before) * BYTES_PER_S, BYTES_PER_S)
            before = now
            while budget >= len(payload):
                budget -= len(payload)
                with suppress(OSError):
                    sender.sendto(payload, (address, PORT))
            time.sleep(0.01)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        talk(sys.argv[2], Path(sys.argv[3]))
