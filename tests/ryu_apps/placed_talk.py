"""Talkers that tell who serves them: `placed_talk.py ROLE ...`."""

import json
import socket
import sys
import threading
from collections import Counter


def serve(name: str, port: str) -> None:
    """Answers every message with its name, on as many connections as come."""

    def talk(connection: socket.socket) -> None:
        with connection:
            while connection.recv(100):
                connection.sendall(name.encode())

    with socket.create_server(("0.0.0.0", int(port)), backlog=1024) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=talk, args=(connection,), daemon=True).start()


def _ask(connection: socket.socket) -> str:
    try:
        connection.sendall(b"x")
        return connection.recv(100).decode() or "closed"
    except OSError as error:
        return type(error).__name__


def visit(address: str, port: str, times: str) -> None:
    """Opens connections one after the other; prints who served how many."""
    found: Counter[str] = Counter()
    for _ in range(int(times)):
        try:
            with socket.create_connection((address, int(port)), timeout=5) as connection:
                found[_ask(connection)] += 1
        except OSError as error:
            found[type(error).__name__] += 1
    print(json.dumps(found))


def hold(address: str, port: str, count: str) -> None:
    """Opens connections and keeps them; for each line that it reads it prints who serves each of them."""
    held = [socket.create_connection((address, int(port)), timeout=5) for _ in range(int(count))]
    print(json.dumps([_ask(one) for one in held]), flush=True)
    for _ in sys.stdin:
        print(json.dumps([_ask(one) for one in held]), flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
