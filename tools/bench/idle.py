"""CPU of a controller that has nothing to do: one switch with 10,000 of its rules, and nobody who speaks.

`python -m tools.bench.idle [SECONDS]` prints one JSON object: `cores_used` as set by default, while counters are read
only each minute, and while the database is read only each minute, too: what ticking and publishing alone cost.
"""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from socket import inet_aton

from cpdb import FILE_VARIABLE, Destination, Node, NodeKind, VirtualIp, open_store
from ryu_apps.rules import Kind, Table, cookie, pair_number
from tools.bench.replayed_switch import MULTIPART_REPLY, MULTIPART_REQUEST, ReplayedSwitch, message
from tools.bench.sustained import cpu_s

PORT, DPID, VIP = 6655, 0x51, "10.99.0.1"
# Two rules that count, two that rewrite and one that forwards, for each of so many sources: 10,000 rules
SOURCES = 2_000
_SETTLE_S = 25.0
_START_S = 30.0
_FLOWS = 1
# Answers that say "no groups, no meters", by kind and length; OpenFlow 1.3.5, 7.3.5.11 and 7.3.5.14
_FEATURES = {8: 40, 11: 16}
_OWNER_MASK_ONLY = 0xFFFF << 48


def _address(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 255}"


def _mac(number: int) -> str:
    return f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"


def _entry(table: int, priority: int, number: int, actions: bytes, source: str) -> bytes:
    """A flow entry of a pair as a switch tells it; OpenFlow 1.3.5, 7.3.5.2."""
    match = struct.pack(
        "!HHIHI4sI4s6x", 1, 26, 0x80000A02, 0x0800, 0x80001604, inet_aton(source), 0x80001804, inet_aton(VIP)
    )
    goto = struct.pack("!HHB3x", 1, 8, table + 1)
    apply = struct.pack("!HH4x", 4, 8 + len(actions)) + actions if actions else b""
    size = 48 + len(match) + len(apply) + len(goto)
    head = struct.pack("!HBxIIHHHH4xQQQ", size, table, 100, 0, priority, 0, 0, 0, number, 1_000, 1_000_000)
    return head + match + apply + goto


def _rewrite(mac: str, address: str) -> bytes:
    to_mac = struct.pack("!HHI6s2x", 25, 16, 0x80000606, bytes.fromhex(mac.replace(":", "")))
    return to_mac + struct.pack("!HHI4s4x", 25, 16, 0x80001804, inet_aton(address))


class IdleSwitch(ReplayedSwitch):
    """Shows the pairs of an earlier controller when it is asked what it holds, and counters that do not move."""

    def __init__(self, port: int) -> None:
        super().__init__(port, DPID, 0)
        held = [
            _entry(
                Table.REWRITE,
                20,
                cookie(Table.REWRITE, Kind.TO_DESTINATION, pair_number(_address(n), VIP)),
                _TO,
                _address(n),
            )
            for n in range(1, SOURCES + 1)
        ]
        counted = [
            _entry(
                Table.ACCOUNT, priority, cookie(Table.ACCOUNT, kind, pair_number(_address(n), VIP)), b"", _address(n)
            )
            for n in range(1, SOURCES + 1)
            for priority, kind in ((20, Kind.PAIR), (30, Kind.PAIR_SYN))
        ]
        self._held, self._counted = _parts(held), _parts(counted)

    def answer(self, kind: int, xid: int, body: bytes) -> bytes:
        """What the switch says to one message."""
        if kind == MULTIPART_REQUEST and int.from_bytes(body[:2]) == _FLOWS:
            parts = self._held if int.from_bytes(body[32:40]) == _OWNER_MASK_ONLY else self._counted
            return b"".join(
                message(MULTIPART_REPLY, xid, struct.pack("!HH4x", _FLOWS, place < len(parts) - 1) + part)
                for place, part in enumerate(parts)
            )
        if kind == MULTIPART_REQUEST and (size := _FEATURES.get(int.from_bytes(body[:2]))):
            return message(MULTIPART_REPLY, xid, body[:2] + bytes(6 + size))
        return super().answer(kind, xid, body)


_TO = _rewrite("02:00:00:02:00:01", "10.2.0.1")


def _parts(entries: list[bytes], size: int = 400) -> list[bytes]:
    return [b"".join(entries[first : first + size]) for first in range(0, len(entries), size)]


def fill(url: str) -> None:
    """An inventory in which every source has been seen before."""
    with contextlib.closing(open_store(url)) as store:
        nodes = [Node("leaf1", NodeKind.SWITCH, dpid=DPID)]
        nodes += [Node(f"c{n}", NodeKind.CLIENT, _address(n), _mac(n), None, "leaf1", 1) for n in range(1, SOURCES + 1)]
        nodes.append(Node("s1", NodeKind.CLIENT, "10.2.0.1", "02:00:00:02:00:01", None, "leaf1", 1))
        store.inventory.put_nodes(nodes)
        service = Destination("s1", "10.2.0.1", "02:00:00:02:00:01", 100)
        store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 0, (service,), probe="none")])


def cores_used(poll_s: float, wanted_s: float, seconds: float) -> float:
    """CPU of the controller's process, all its threads, over some seconds in which nothing happens."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/cpdb.db"
        fill(url)
        (Path(folder) / "forepath.toml").write_text(
            f"[controller]\npoll_s = {poll_s}\nwanted_s = {wanted_s}\n", encoding="utf-8"
        )
        argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.controller"]
        argv += ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(PORT)]
        env = os.environ | {"FOREPATH_DATABASE_URL": url, FILE_VARIABLE: f"{folder}/forepath.toml"}
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(argv, env=env, cwd=folder, stdout=log, stderr=log)
        try:
            switch = _connected()
            threading.Thread(target=_serve, args=(switch,), daemon=True).start()
            time.sleep(_SETTLE_S)
            began, before = time.monotonic(), cpu_s(process.pid)
            time.sleep(seconds)
            used = (cpu_s(process.pid) - before) / (time.monotonic() - began)
            switch.close()
            return used
        finally:
            process.kill()
            process.wait()


def _serve(switch: IdleSwitch) -> None:
    with contextlib.suppress(OSError):
        switch.serve()


def _connected() -> IdleSwitch:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
            return IdleSwitch(PORT)
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on port {PORT} within {_START_S:g} s")
        time.sleep(0.2)


def main(words: list[str]) -> None:
    """Entry point."""
    seconds = float(words[0]) if words else 20.0
    used = {
        "as_set_by_default": cores_used(1.0, 0.5, seconds),
        "counters_read_each_minute": cores_used(60.0, 0.5, seconds),
        "counters_and_database_read_each_minute": cores_used(60.0, 60.0, seconds),
    }
    json.dump({"rules": 5 * SOURCES, "seconds": seconds, "cores_used": used}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
