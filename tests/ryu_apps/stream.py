"""A steady stream of small datagrams, and the longest time in which none of them arrived: `stream.py ROLE ...`."""

import socket
import sys
import time

EVERY_S = 0.002
PATIENCE_S = 20.0


def send(address: str, port: str, seconds: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        number, start = 0, time.monotonic()
        while (passed := time.monotonic() - start) < float(seconds):
            while number * EVERY_S < passed:
                sender.sendto(str(number).encode(), (address, int(port)))
                number += 1
            time.sleep(EVERY_S)
    print(number)


def receive(address: str, port: str, seconds: str) -> None:
    """Says when the first one is there; then how many came, and for how many sent in a row none did."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, int(port)))
        server.settimeout(0.2)
        print("ready", flush=True)
        end, count, last, longest = time.monotonic() + PATIENCE_S, 0, 0, 0
        while time.monotonic() < end:
            try:
                number = int(server.recv(2048))
            except TimeoutError:
                continue
            if not count:
                print("begun", flush=True)
                end, last = time.monotonic() + float(seconds), number
            longest = max(longest, number - last - 1)
            count, last = count + 1, number
    print(count, longest * EVERY_S, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
