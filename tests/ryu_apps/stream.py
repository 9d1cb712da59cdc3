"""A steady stream of numbered datagrams: how long none arrived, and how many were overtaken: `stream.py ROLE ...`."""

import socket
import sys
import time

EVERY_S = 0.002
PATIENCE_S = 20.0


def send(address: str, port: str, seconds: str, size: str = "0") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        number, start = 0, time.monotonic()
        while (passed := time.monotonic() - start) < float(seconds):
            while number * EVERY_S < passed:
                sender.sendto(str(number).encode().ljust(int(size)), (address, int(port)))
                number += 1
            time.sleep(EVERY_S)
    print(number)


def receive(address: str, port: str, seconds: str) -> None:
    """Says when the first one is there; then how many came, for how long none did, how many were overtaken."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, int(port)))
        server.settimeout(0.2)
        print("ready", flush=True)
        end, count, last, longest, overtaken = time.monotonic() + PATIENCE_S, 0, 0, 0, 0
        while time.monotonic() < end:
            try:
                number = int(server.recv(2048))
            except TimeoutError:
                continue
            if not count:
                print("begun", flush=True)
                end, last = time.monotonic() + float(seconds), number
            longest, overtaken = max(longest, number - last - 1), overtaken + (number < last)
            count, last = count + 1, max(number, last)
    print(count, longest * EVERY_S, overtaken, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
