"""The network part of the lab: Open vSwitch in user space, and Mininet for switches, links and clients."""

import contextlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import OVSSwitch
from mininet.topo import Topo

from forepath.demo.layout import LabLayout
from tools.lab.stage import run, run_batch

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


_DB = Path("/etc/openvswitch/conf.db")
_SOCKET = "/run/openvswitch/db.sock"


def start_daemons() -> None:
    """Start ovsdb-server and ovs-vswitchd of this stage; a second call changes nothing."""
    if Path("/run/openvswitch/ovs-vswitchd.pid").exists():
        return
    if not _DB.exists():
        run(["ovsdb-tool", "create", _DB, "/usr/share/openvswitch/vswitch.ovsschema"])
    remote = "--remote=db:Open_vSwitch,Open_vSwitch,manager_options"
    quiet = ["--pidfile", "--detach", "--no-chdir", "-vconsole:off", "--log-file"]
    run(["ovsdb-server", _DB, f"--remote=punix:{_SOCKET}", remote, *quiet])
    run(["ovs-vsctl", "--no-wait", "init"])
    # All ports share one send buffer; a larger one keeps a busy port from starving the others. Not every kernel
    # lets a namespace set it: the short queues of the links do the main work.
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/core/wmem_default").write_text("4194304")
    # It stands for switches with hardware of their own: other work of this machine comes second.
    run(["nice", "-n", "-10", "ovs-vswitchd", f"unix:{_SOCKET}", *quiet])


class SwitchFabric:
    """Switches and clients of a layout, started by `start`; port numbers and names are those of the layout."""

    def __init__(self, layout: LabLayout) -> None:
        self.layout = layout
        self._net: Any = None

    def start(self) -> None:
        """Build and start everything; LabError when a tool refuses."""
        # Nothing but the clients' own traffic shall be on the wires.
        run(["sh", "-c", NO_IPV6])
        start_daemons()
        setLogLevel("critical")
        # Mininet would otherwise raise limits of the whole machine.
        Mininet.inited = True
        switch = partial(OVSSwitch, datapath="user", protocols="OpenFlow13", failMode="secure")
        self._net = Mininet(topo=self._topology(), switch=switch, controller=None, autoSetMacs=False)
        self._net.start()
        self._shape()
        self._point_at_controller()

    def _topology(self) -> Topo:
        layout, topo = self.layout, Topo()
        for switch in layout.switches:
            topo.addSwitch(switch.name, dpid=f"{switch.dpid:016x}")
        for a, a_port, b, b_port in layout.fabric_ports():
            topo.addLink(a, b, port1=a_port, port2=b_port)
        for client in layout.clients:
            topo.addHost(client.name, ip=f"{client.address}/{layout.prefix_length}", mac=client.mac)
            topo.addLink(client.name, client.switch, port1=0, port2=client.port)
        return topo

    def _shape(self) -> None:
        layout, devices = self.layout, self.layout.interfaces()
        switches = {switch.name for switch in layout.switches}
        fabric = [device for (_, to), device in devices.items() if to in switches]
        rate_limit([(device, layout.fabric_bytes_per_s) for device in fabric], queue_packets=FABRIC_QUEUE_PACKETS)
        rate_limit((devices[c.switch, c.name], c.capacity_bytes_per_s) for c in layout.clients)
        for client in layout.clients:
            enter = ("mnexec", "-a", str(self.client_pid(client.name)))
            device = f"{client.name}-eth0"
            run([*enter, "sh", "-c", NO_IPV6])
            # Segments and checksums must be real on the wire: the userspace switch takes packets as they are.
            run([*enter, "ethtool", "-K", device, "tx", "off", "gso", "off", "tso", "off", "gro", "off"])
            rate_limit([(device, client.capacity_bytes_per_s)], enter)

    def _point_at_controller(self) -> None:
        words = ["ovs-vsctl"]
        for switch in self.layout.switches:
            words += ["--", "set-controller", switch.name, self.layout.controller]
            words += ["--", "set", "controller", switch.name, "max_backoff=1000", "inactivity_probe=5000"]
        run(words)

    def attach(self, host: str, device: str) -> None:
        """Plug `device` into the port that the layout gives to the hypervisor `host`."""
        spec = self.layout.hypervisor(host)
        wanted = ["--", "set", "interface", device, f"ofport_request={spec.port}"]
        run(["ovs-vsctl", "--may-exist", "add-port", spec.switch, device, *wanted])

    def client_pid(self, client: str) -> int:
        """Return the pid of the shell that holds the client's namespace."""
        return int(self._net.get(client).shell.pid)

    def client_popen(self, client: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start `argv` inside the client's network namespace."""
        return subprocess.Popen(["mnexec", "-a", str(self.client_pid(client)), *argv], **options)

    def stop(self) -> None:
        """Take switches, links and clients away; the daemons stay until the stage ends."""
        if self._net is not None:
            self._net.stop()
            self._net = None
            # Rows of queues outlive their ports, and the next lab on this stage would find them.
            run(["ovs-vsctl", "--", "--all", "destroy", "qos", "--", "--all", "destroy", "queue"])


def normal_flows(switches: Sequence[str]) -> None:
    """Let each of the given switches learn by itself, for work without a controller.

    Name a loop-free part of the fabric only (all leaves and one spine): a switch without flows drops everything.
    """
    for switch in switches:
        run(["ovs-ofctl", "-O", "OpenFlow13", "add-flow", switch, "priority=1,actions=NORMAL"])
