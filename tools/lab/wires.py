"""Rate limits and counters of the lab's links, with the kernel's own queues (tc)."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forepath.demo.layout import LabLayout
from tools.lab.commands import run, run_batch

# Short, or floods waiting in the queues fill the send buffer that all ports of the userspace switch share
# (208 KiB; a full-sized packet takes 2.3 KB of it), and ports without any flood lose packets, too.
QUEUE_PACKETS = 45
FABRIC_QUEUE_PACKETS = 25
# Switches IPv6 off in the namespace in which a shell runs it, so that only the clients' own traffic is on the wires.
NO_IPV6 = "cd /proc/sys/net/ipv6/conf 2>/dev/null && for f in */disable_ipv6; do echo 1 >$f; done; true"


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """What one direction of a link let through since it exists, and the packets it dropped for lack of bandwidth."""

    bytes: int
    packets: int
    drops: int


def rate_limit(
    devices: Iterable[tuple[str, float]], enter: tuple[str, ...] = (), queue_packets: int = QUEUE_PACKETS
) -> None:
    """Limit what each (device, bytes/s) sends. `enter` is a command prefix that reaches another namespace."""
    pairs = list(devices)
    run_batch([*enter, "ip", "-batch", "-"], [f"link set dev {d} txqueuelen {queue_packets}" for d, _ in pairs])
    lines = []
    for device, bytes_per_s in pairs:
        lines += [
            f"qdisc replace dev {device} root handle 1: htb default 1",
            f"class replace dev {device} parent 1: classid 1:1 htb rate {int(bytes_per_s * 8)}bit burst 6k cburst 6k",
            f"qdisc replace dev {device} parent 1:1 handle 10: pfifo limit {queue_packets}",
        ]
    run_batch([*enter, "tc", "-batch", "-"], lines)


def _roots(text: str) -> dict[str, LinkCounters]:
    rows: list[dict[str, Any]] = json.loads(text or "[]")
    return {
        row["dev"]: LinkCounters(row["bytes"], row["packets"], row["drops"])
        for row in rows
        if row.get("root") and row.get("kind") == "htb"
    }


def _received(device: str) -> LinkCounters:
    base = Path("/sys/class/net", device, "statistics")
    return LinkCounters(int((base / "rx_bytes").read_text()), int((base / "rx_packets").read_text()), 0)


def link_counters(layout: LabLayout, host_device: str = "dp") -> dict[tuple[str, str], LinkCounters]:
    """Return counters of every (from, to): what left a switch, and what a host or a client sent to its switch."""
    sent = _roots(run(["tc", "-s", "-j", "qdisc", "show"], timeout_s=10))
    devices = layout.interfaces()
    counters = {ends: sent[device] for ends, device in devices.items() if device in sent}
    for client in layout.clients:
        with contextlib.suppress(OSError):
            counters[client.name, client.switch] = _received(devices[client.switch, client.name])
    for host in layout.hypervisors:
        if Path("/run/netns", host.name).exists():
            text = run(["tc", "-n", host.name, "-s", "-j", "qdisc", "show"], timeout_s=10)
            if host_device in (rows := _roots(text)):
                counters[host.name, host.switch] = rows[host_device]
    return counters
