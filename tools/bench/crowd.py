"""Many hosts behind one port: servers that answer for thousands of addresses, and sources that open connections.

`python -m tools.bench.crowd announce | serve DEVICE COUNT` and `... open DEVICE PLAN`, inside a namespace. Each frame
has its sender's own MAC and address; a connection is a TCP opening and its answer.
"""

import json
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from ipaddress import IPv4Address

from ryu_apps import virtual_mac
from ryu_apps.rules import ETH_ARP, ETH_IPV4
from ryu_apps.topology import frames
from tools.bench.destinations import FIRST_DESTINATION, FIRST_SOURCE, FIRST_VIRTUAL_IP, BenchHost, host, speaks

# What a machine waits before it says its first word again, and twice as long each time after (RFC 6298)
RETRY_S = 1.0
ANNOUNCED_PER_S = 1000.0
PORT, FIRST_PORT = 80, 1024
SYN, SYN_ACK = 0x02, 0x12
_ALL = 3
_TCP = struct.Struct("!HHIIBBHHH")
_TCP_AT, _FLAGS_AT, _FRAME_BYTES = 34, 47, 54


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """Sources `first` to `first + count` open `each` connections, source after source, `per_s` a second in all.

    `port` is the first of their own ports: with another one the connections are new. 0 a second: all at once.
    """

    vips: int
    count: int
    each: int = 1
    per_s: float = 0.0
    port: int = FIRST_PORT
    first: int = 0
    patience_s: float = 60.0


def opened(device: str) -> socket.socket:
    """A socket that sends and hears whole frames."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        raw.setsockopt(socket.SOL_SOCKET, option, 1 << 24)
    raw.bind((device, 0))
    return raw


# ---- servers


def announce(device: str, count: int) -> None:
    """Says where `count` destinations are, again and again: what comes faster than the controller reads is lost."""
    raw = opened(device)
    while True:
        for number in range(count):
            raw.send(speaks(host(FIRST_DESTINATION, number)))
            time.sleep(1.0 / ANNOUNCED_PER_S)


def serve(device: str, count: int) -> None:
    """Answers questions for `count` destinations, and every opening."""
    raw = opened(device)
    known = {one.address: one for one in (host(FIRST_DESTINATION, number) for number in range(count))}
    print("ready", flush=True)
    while True:
        data, (_, _, kind, *_) = raw.recvfrom(2048)
        reply = None if kind == socket.PACKET_OUTGOING else answer(data, known)
        if reply is not None:
            raw.send(reply)


def answer(data: bytes, known: dict[str, BenchHost]) -> bytes | None:
    """What a server sends back: who holds an address, or that a connection is open; None for anything else."""
    frame = frames.parse(data)
    if frame is None:
        return None
    if frame.arp is not None:
        one = known.get(frame.arp.target) if frame.arp.operation == frames.REQUEST else None
        ours = one is not None and frame.arp.sender != frame.arp.target
        return frames.question_answer(frame.arp, one.mac) if one is not None and ours else None
    if frame.eth_type != ETH_IPV4 or len(data) < _FRAME_BYTES or data[23] != 6 or data[_FLAGS_AT] != SYN:
        return None
    ports = data[_TCP_AT + 2 : _TCP_AT + 4] + data[_TCP_AT : _TCP_AT + 2]
    head = data[6:12] + data[:6] + data[12:26] + data[30:34] + data[26:30]
    return head + ports + data[38:_FLAGS_AT] + bytes([SYN_ACK]) + data[_FLAGS_AT + 1 : _FRAME_BYTES]


# ---- sources


def opening(source: BenchHost, port: int, to: str) -> bytes:
    """The frame that opens a connection to a virtual IP, as a source sends it that knows the virtual MAC."""
    ends = IPv4Address(source.address).packed + IPv4Address(to).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
    total = sum(struct.unpack("!10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", check) + head[12:]
    macs = frames.mac_bytes(virtual_mac(to)) + frames.mac_bytes(source.mac)
    return macs + struct.pack("!H", ETH_IPV4) + head + _TCP.pack(port, PORT, 1, 0, 0x50, SYN, 65535, 0, 0)


class CrowdHosts:
    """Connections by (source address, own port), and when each was begun and answered."""

    def __init__(self, raw: socket.socket, plan: ConnectionPlan) -> None:
        self._raw, self._plan = raw, plan
        sources = (host(FIRST_SOURCE, number) for number in range(plan.first, plan.first + plan.count))
        self._known = {one.address: one for one in sources}
        self.begun: dict[bytes, float] = {}
        self.took: dict[bytes, float] = {}
        self.strangers = 0

    def run(self) -> None:
        """Opens all, each again where no answer came, and ends when all are served or patience is over."""
        todo, begin = self._frames(), time.monotonic()
        gap_s = 1.0 / self._plan.per_s if self._plan.per_s else 0.0
        waiting = [(begin + number * gap_s, 0, key) for number, key in enumerate(todo)]
        end = begin + len(todo) * gap_s + self._plan.patience_s
        while len(self.took) < len(todo) and time.monotonic() < end:
            due, tries, key = heappop(waiting)
            self._hear(min(due, end), len(todo))
            if key not in self.took:
                self._raw.send(todo[key])
                self.begun.setdefault(key, time.monotonic())
                heappush(waiting, (time.monotonic() + RETRY_S * 2**tries, tries + 1, key))

    def _frames(self) -> dict[bytes, bytes]:
        plan, found = self._plan, {}
        for turn in range(plan.each):
            for number in range(plan.first, plan.first + plan.count):
                source, port = host(FIRST_SOURCE, number), plan.port + turn
                to = str(IPv4Address(FIRST_VIRTUAL_IP + number % plan.vips))
                found[IPv4Address(source.address).packed + port.to_bytes(2, "big")] = opening(source, port, to)
        return found

    def _hear(self, until: float, wanted: int) -> None:
        """Takes all answers that are there, and those that come until then; until so many are served at most."""
        while len(self.took) < wanted:
            self._raw.settimeout(max(until - time.monotonic(), 0.0))
            try:
                data, (_, _, kind, *_) = self._raw.recvfrom(2048)
            except (TimeoutError, BlockingIOError):
                return
            if kind != socket.PACKET_OUTGOING:
                self._answered(data)

    def _answered(self, data: bytes) -> None:
        if data[12:14] == ETH_ARP.to_bytes(2, "big"):
            # As any machine does, a source says where it is when it is asked.
            reply = answer(data, self._known)
            if reply is not None:
                self._raw.send(reply)
            return
        if len(data) < _FRAME_BYTES or data[12:14] != b"\x08\x00" or data[_FLAGS_AT] != SYN_ACK:
            return
        key = data[30:34] + data[_TCP_AT + 2 : _TCP_AT + 4]
        first = FIRST_VIRTUAL_IP + (int.from_bytes(data[30:34], "big") - FIRST_SOURCE) % self._plan.vips
        if key not in self.begun:
            # Of connections that were opened before
            return
        if int.from_bytes(data[26:30], "big") != first:
            self.strangers += 1
        elif key not in self.took:
            self.took[key] = time.monotonic() - self.begun[key]


def told(crowd: CrowdHosts, plan: ConnectionPlan) -> dict[str, float]:
    """What became of the connections: how many were served, at the first try, and after how many seconds."""
    took = sorted(crowd.took.values()) or [plan.patience_s]
    return {
        "opened": float(len(crowd.begun)),
        "served": float(len(crowd.took)),
        "served_at_once": float(sum(one < RETRY_S for one in crowd.took.values())),
        "from_strangers": float(crowd.strangers),
        "median_s": took[len(took) // 2],
        "p95_s": took[int(0.95 * len(took))],
        "slowest_s": took[-1],
    }


def main(words: list[str]) -> None:
    """Entry point in a namespace."""
    kind, device, rest = words
    if kind in ("announce", "serve"):
        {"announce": announce, "serve": serve}[kind](device, int(rest))
    plan = ConnectionPlan(**json.loads(rest))
    crowd = CrowdHosts(opened(device), plan)
    crowd.run()
    print(json.dumps(told(crowd, plan)))


def arguments(plan: ConnectionPlan) -> str:
    """The plan as `open` takes it."""
    return json.dumps(asdict(plan))


if __name__ == "__main__":
    main(sys.argv[1:])
