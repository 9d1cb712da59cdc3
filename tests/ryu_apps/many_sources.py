"""Many hosts behind one port: each frame has its sender's own MAC and address; counts what comes back to each."""

import socket
import struct
import sys
import time
from collections.abc import Collection
from pathlib import Path

PERIOD_S = 0.5
ETH_P_ALL = 3
PAYLOAD = bytes(200)


def echo(port: int) -> None:
    """Sends back whatever comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        own.bind(("0.0.0.0", port))
        print("ready", flush=True)
        while True:
            data, peer = own.recvfrom(2048)
            own.sendto(data, peer)


class Crowd:
    """Hosts 10.77.0.110 and on, on the one interface of this machine."""

    def __init__(self, to: str, port: int, count: int) -> None:
        device = next(one.name for one in Path("/sys/class/net").iterdir() if one.name != "lo")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((device, 0))
        self._frames = [frame(f"10.77.0.{110 + n}", to, port) for n in range(count)]
        self._heard: set[int] = set()

    def heard(self, within_s: float) -> int:
        """How many got an answer in time; the switches learn them meanwhile."""
        end = time.monotonic() + within_s
        while len(self._heard) < len(self._frames) and time.monotonic() < end:
            self.round([n for n in range(len(self._frames)) if n not in self._heard])
        return len(self._heard)

    def round(self, who: Collection[int]) -> int:
        """Each of these says one thing; how many answers came meanwhile."""
        due = time.monotonic() + PERIOD_S
        for n in who:
            self._socket.send(self._frames[n])
            time.sleep(PERIOD_S / 2 / len(self._frames))
        return self.collect(due)

    def collect(self, until: float) -> int:
        """Answers that come until then."""
        found = 0
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, (_, _, kind, *_) = self._socket.recvfrom(2048)
            except TimeoutError:
                break
            ours = data[12:14] == b"\x08\x00" and data[23] == 17 and data[:5] == b"\x02\x00\x00\x00\x77"
            if kind != socket.PACKET_OUTGOING and ours:
                self._heard.add(data[5])
                found += 1
        return found


def frame(source: str, to: str, port: int) -> bytes:
    """A UDP packet with an Ethernet source made of the sender's address."""
    number = int(source.rsplit(".", 1)[1]) - 110
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(PAYLOAD), 0, 0, 64, 17, 0, *map(socket.inet_aton, (source, to))
    )
    total = sum(struct.unpack("!10H", head))
    check = ~(total + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", check) + head[12:]
    ends = b"\xf2\xea" + socket.inet_aton(to) + b"\x02\x00\x00\x00\x77" + bytes([number])
    return ends + b"\x08\x00" + head + struct.pack("!HHHH", 9999, port, 8 + len(PAYLOAD), 0) + PAYLOAD


def ask(to: str, port: int, count: int, seconds: float) -> None:
    """Until everybody was heard once, then for `seconds`; prints how many were asked and answered."""
    crowd = Crowd(to, port, count)
    print(f"{crowd.heard(40)} were heard", flush=True)
    asked = answered = 0
    crowd.collect(time.monotonic() + 0.5)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked += count
        answered += crowd.round(range(count))
    answered += crowd.collect(time.monotonic() + 1)
    print(asked, answered, flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "echo":
        echo(int(rest[0]))
    else:
        ask(rest[0], int(rest[1]), int(rest[2]), float(rest[3]))
