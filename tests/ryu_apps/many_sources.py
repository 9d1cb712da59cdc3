"""Many hosts behind one port: each frame has its sender's own MAC and address; counts what comes back to each."""

import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random

PERIOD_S = 0.5
ETH_P_ALL = 3
TCP, UDP = 6, 17
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
        self._to, self._port, self._count, self.from_port = to, port, count, 9999
        self._heard: set[int] = set()

    def heard(self, within_s: float) -> int:
        """How many got an answer in time; the switches learn them meanwhile."""
        end = time.monotonic() + within_s
        while len(self._heard) < self._count and time.monotonic() < end:
            self.round([n for n in range(self._count) if n not in self._heard])
        return len(self._heard)

    def round(self, who: Collection[int]) -> int:
        """Each of these says one thing; how many answers came meanwhile."""
        due = time.monotonic() + PERIOD_S
        for n in who:
            self._socket.send(frame(f"10.77.0.{110 + n}", self._to, self.from_port, self._port))
            time.sleep(PERIOD_S / 2 / self._count)
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


def _sum16(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _ip_frame(source: str, to: str, protocol: int, body: bytes) -> bytes:
    number = int(source.rsplit(".", 1)[1]) - 110
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, ends)
    head = head[:10] + struct.pack("!H", _sum16(head)) + head[12:]
    macs = b"\xf2\xea" + socket.inet_aton(to) + b"\x02\x00\x00\x00\x77" + bytes([number])
    return macs + b"\x08\x00" + head + body


def frame(source: str, to: str, from_port: int, port: int) -> bytes:
    """A UDP packet with an Ethernet source made of the sender's address."""
    return _ip_frame(source, to, 17, struct.pack("!HHHH", from_port, port, 8 + len(PAYLOAD), 0) + PAYLOAD)


def datagram(source: str, to: str, ports: tuple[int, int], number: int) -> bytes:
    """A numbered UDP packet: its echo has the same number."""
    body = number.to_bytes(4) + PAYLOAD[:-4]
    return _ip_frame(source, to, 17, struct.pack("!HHHH", *ports, 8 + len(body), 0) + body)


def segment(source: str, to: str, ports: tuple[int, int], number: int) -> bytes:
    """A TCP segment of a connection that nobody knows: the reset that answers it has our `number` as its own."""
    body = struct.pack("!HHIIBBHHH", *ports, 1, number, 0x50, 0x10, 1024, 0, 0) + PAYLOAD
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!HH", 6, len(body))
    check = struct.pack("!H", _sum16(pseudo + body))
    return _ip_frame(source, to, 6, body[:16] + check + body[18:])


# One source sends 40 % of all over many connections, the others the rest by Zipf's law, each over two.
ELEPHANT_SHARE, ELEPHANT_CONNECTIONS = 0.4, 240
PACKETS_PER_S = 1200


def heavy_tailed(count: int) -> list[float]:
    """Each source's share of what all of them send."""
    tail = [1 / place**1.1 for place in range(1, count)]
    return [ELEPHANT_SHARE, *((1 - ELEPHANT_SHARE) * one / sum(tail) for one in tail)]


class HeavyCrowd(Crowd):
    """Sends numbered packets over connections by those shares; notes answers that were overtaken."""

    def run(self, to: str, port: int, seconds: float, protocol: int) -> tuple[int, int, int]:
        """How many were asked, answered, and answered after a later one of the same connection."""
        each = PACKETS_PER_S * seconds
        plan = [
            (n, 20_000 + place % (2 if n else ELEPHANT_CONNECTIONS))
            for n, share in enumerate(heavy_tailed(self._count))
            for place in range(round(share * each))
        ]
        Random(1).shuffle(plan)
        sent: Counter[tuple[int, int]] = Counter()
        newest: dict[tuple[int, int], int] = {}
        answered = overtaken = 0
        packet = segment if protocol == TCP else datagram
        begin = time.monotonic()
        self._socket.setblocking(False)
        for number, key in enumerate([*plan, None]):
            if key is not None:
                sent[key] += 1
                self._socket.send(packet(f"10.77.0.{110 + key[0]}", to, (key[1], port), sent[key]))
            due = begin + number / PACKETS_PER_S if key else time.monotonic() + 1
            for answer, at in self._answers(due, protocol):
                answered += 1
                overtaken += at < newest.get(answer, 0)
                newest[answer] = max(at, newest.get(answer, 0))
        return len(plan), answered, overtaken

    def _answers(self, until: float, protocol: int) -> Iterator[tuple[tuple[int, int], int]]:
        while True:
            try:
                data, (_, _, kind, *_) = self._socket.recvfrom(2048)
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(left, 0.002))
                continue
            ours = data[:5] == b"\x02\x00\x00\x00\x77" and data[12:14] == b"\x08\x00" and data[23] == protocol
            if kind != socket.PACKET_OUTGOING and ours:
                at = 38 if protocol == TCP else 42
                yield (data[5], int.from_bytes(data[36:38])), int.from_bytes(data[at : at + 4])


def ask(to: str, port: int, count: int, seconds: float) -> None:
    """Until everybody was heard once, then for `seconds`; prints how many were asked and answered.

    A connection of each lasts a second.
    """
    crowd = Crowd(to, port, count)
    print(f"{crowd.heard(40)} were heard", flush=True)
    asked = answered = 0
    crowd.collect(time.monotonic() + 0.5)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked += count
        crowd.from_port = 20_000 + int(time.monotonic()) % 40_000
        answered += crowd.round(range(count))
    answered += crowd.collect(time.monotonic() + 1)
    print(asked, answered, flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "echo":
        echo(int(rest[0]))
    elif kind == "heavy":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        crowd = HeavyCrowd(rest[0], int(rest[1]), int(rest[2]))
        print(f"{crowd.heard(40)} were heard", flush=True)
        signal.sigwait({signal.SIGUSR1})
        print(*crowd.run(rest[0], int(rest[1]), float(rest[3]), int(rest[4])), flush=True)
    else:
        ask(rest[0], int(rest[1]), int(rest[2]), float(rest[3]))
