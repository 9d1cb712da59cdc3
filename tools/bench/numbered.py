"""Numbered datagrams of many pairs with heavy-tailed rates, and who counts them.

`python -m tools.bench.numbered send DEVICE PLAN` and `... receive FILE`, inside a namespace. A source has a MAC and an
address of its own, and some connections at a time.
"""

import errno
import json
import socket
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from ryu_apps import virtual_mac
from ryu_apps.rules import ETH_IPV4
from ryu_apps.topology import frames
from tools.bench.crowd import answer, opened
from tools.bench.destinations import BenchHost

PORT, FRAME_BYTES, CONNECTIONS = 9, 1000, 4
# Where this machine was too busy to send in time, a packet is left out: a burst would fill queues that are empty.
LATE_S = 0.05
_HEAD_BYTES = 14 + 20 + 8
_NUMBER = struct.Struct("!BI")


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """`each` sources behind each of `edges` switches send, `bytes_per_s` all together, no pair more than `most`."""

    edge: int
    phase: int
    seconds: float
    seed: int
    bytes_per_s: float
    most: float
    edges: int = 4
    each: int = 12


def virtual_ip(edge: int) -> str:
    """That of the server behind a switch."""
    return f"10.77.100.{edge}"


def source(edge: int, number: int) -> BenchHost:
    """One of the sources behind a switch."""
    return BenchHost(f"10.77.{edge}.{number + 1}", f"02:00:0a:4d:{edge:02x}:{number + 1:02x}")


def destination(plan: TrafficPlan, number: int) -> str:
    """Whom a source talks to: a server in the other half of the network."""
    half = plan.edges // 2
    return virtual_ip((plan.edge - 1 + half - (plan.edge - 1) % half + number % half) % plan.edges + 1)


def pair_rates(plan: TrafficPlan) -> Iterator[np.ndarray]:
    """Bytes/s of all pairs each second: Pareto (shape 1.2), each renewed after 60 s on average, with some noise."""
    rng = np.random.default_rng(plan.seed)
    pairs = plan.edges * plan.each
    rates = rng.pareto(1.2, pairs) + 1
    while True:
        rates = np.where(rng.random(pairs) < 1 / 60, rng.pareto(1.2, pairs) + 1, rates)
        scaled = rates / rates.sum() * plan.bytes_per_s
        yield np.minimum(scaled * rng.lognormal(0, 0.1, pairs), plan.most)


class NumberedSource:
    """Sends packets of all its pairs by a Poisson process each; a connection lasts 20 s on average."""

    def __init__(self, device: str, plan: TrafficPlan) -> None:
        self._raw, self._plan = opened(device), plan
        self._raw.setblocking(False)
        self._known = {one.address: one for one in (source(plan.edge, number) for number in range(plan.each))}
        self._rng = np.random.default_rng((plan.seed, plan.edge))
        self._ports = 20_000 + np.arange(plan.each * CONNECTIONS).reshape(plan.each, CONNECTIONS)
        self._next_port = int(self._ports.max()) + 1
        self._numbers: Counter[tuple[int, int]] = Counter()
        self.sent = self.late = 0

    def run(self) -> None:
        """Until the plan's time is over."""
        begin, every, second = time.monotonic(), pair_rates(self._plan), -1
        own = slice((self._plan.edge - 1) * self._plan.each, self._plan.edge * self._plan.each)
        waiting = [(begin + float(self._rng.random()), number) for number in range(self._plan.each)]
        heapify(waiting)
        while waiting[0][0] < begin + self._plan.seconds:
            due, number = heappop(waiting)
            while second < int(due - begin):
                gaps_s, second = FRAME_BYTES / next(every)[own], second + 1
                self._renew()
            self._hear(due)
            if time.monotonic() - due > LATE_S or not self._send(number):
                self.late += 1
            heappush(waiting, (due + float(self._rng.exponential(gaps_s[number])), number))

    def _renew(self) -> None:
        for place in np.argwhere(self._rng.random(self._ports.shape) < 1 / 20):
            self._ports[tuple(place)] = self._next_port = self._next_port % 60_000 + 1

    def _hear(self, until: float) -> None:
        """Says where it is when it is asked, and waits."""
        while True:
            try:
                data, (_, _, kind, *_) = self._raw.recvfrom(2048)
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(left, 0.005))
                continue
            reply = answer(data, self._known) if kind != socket.PACKET_OUTGOING else None
            if reply is not None:
                self._raw.send(reply)

    def _send(self, number: int) -> bool:
        """Whether this machine's own queue had room for it."""
        port = int(self._ports[number, self._rng.integers(CONNECTIONS)])
        count = self._numbers[number, port] + 1
        body = _NUMBER.pack(self._plan.phase, count).ljust(FRAME_BYTES - _HEAD_BYTES, b"\0")
        try:
            self._raw.send(datagram(source(self._plan.edge, number), destination(self._plan, number), port, body))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return False
        self._numbers[number, port], self.sent = count, self.sent + 1
        return True


def datagram(sender: BenchHost, to: str, port: int, body: bytes) -> bytes:
    """A frame with a UDP packet, as one who knows the virtual MAC sends it."""
    ends = IPv4Address(sender.address).packed + IPv4Address(to).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(body), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", check) + head[12:]
    macs = frames.mac_bytes(virtual_mac(to)) + frames.mac_bytes(sender.mac)
    return macs + struct.pack("!H", ETH_IPV4) + head + struct.pack("!HHHH", port, PORT, 8 + len(body), 0) + body


def receive(file: Path) -> None:
    """Writes down each second how many came of each phase, and how many of these after a later one of theirs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        own.bind(("0.0.0.0", PORT))
        own.settimeout(0.5)
        newest: dict[tuple[int, object], int] = {}
        found: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        told = 0.0
        while True:
            try:
                data, peer = own.recvfrom(2048)
                phase, number = _NUMBER.unpack_from(data)
                last = newest.get((phase, peer), 0)
                newest[phase, peer] = max(last, number)
                found[phase][0] += 1
                found[phase][1] += number < last
            except TimeoutError:
                pass
            if time.monotonic() - told > 1:
                told = time.monotonic()
                file.with_suffix(".new").write_text(json.dumps(found))
                file.with_suffix(".new").replace(file)


def arguments(plan: TrafficPlan) -> str:
    """The plan as `send` takes it."""
    return json.dumps(asdict(plan))


def main(words: list[str]) -> None:
    """Entry point in a namespace."""
    if words[0] == "receive":
        receive(Path(words[1]))
    sender = NumberedSource(words[1], TrafficPlan(**json.loads(words[2])))
    sender.run()
    print(json.dumps({"sent": sender.sent, "late": sender.late}))


if __name__ == "__main__":
    main(sys.argv[1:])
