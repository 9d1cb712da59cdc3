"""What networks live from besides unicast IPv4 goes on under our controller: DHCP, IPv6, addresses that move."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, Net, eventually, network

pytestmark = pytest.mark.lab
RAW = (sys.executable, str(Path(__file__).with_name("raw.py")))
# IEEE 802: for local experiments
EXPERIMENT = 0x88B5
FRAMES = 20
ALL_BUT_C1 = ("c2", "s1", "s2")
PREFIX = "fd00:77::"
DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] && echo "bound $ip" && ip addr add "$ip/24" dev "$interface"
exit 0
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("joining")) as net:
        net.controller()
        assert eventually(lambda: net.pings("c1", ADDRESS["s1"]) and net.pings("c2", ADDRESS["s2"]), 30), net.log()
        for client in ADDRESS:
            device = f"{client}-eth0"
            net.run(client, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        yield net


@contextlib.contextmanager
def dnsmasq(net: Net, client: str, *more: str) -> Iterator[None]:
    argv = ("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--log-dhcp", f"--interface={client}-eth0")
    leases = net.lab.run_directory / "leases"
    with net.background(client, *argv, f"--dhcp-leasefile={leases}", *more):
        yield


def counted(net: Net, sender: str, frames: int) -> dict[str, int]:
    """How many group frames each other host got when `sender` sent so many."""
    device = "{}-eth0".format
    source = LAYOUT.client(sender).mac.replace(":", "")
    frame = "ffffffffffff" + source + f"{EXPERIMENT:04x}" + 46 * "00"
    with contextlib.ExitStack() as stack:
        ears = {}
        for name in sorted({*ADDRESS}):
            argv = (*RAW, "count", device(name), f"{EXPERIMENT:x}", "2")
            ears[name] = stack.enter_context(net.background(name, *argv))
            assert ears[name].stdout is not None
            assert ears[name].stdout.readline() == "ready\n"
        assert net.run(sender, *RAW, "say", device(sender), *[frame] * frames).returncode == 0
        return {name: int(ear.communicate(timeout=20)[0].split()[-1]) for name, ear in ears.items()}


def once_each(net: Net) -> bool:
    counts = counted(net, "c1", FRAMES)
    assert max(counts.values()) <= FRAMES, counts
    return counts == {"c1": 0} | dict.fromkeys(ALL_BUT_C1, FRAMES)


def test_broadcast_reaches_everybody_once_also_after_a_link_of_the_tree_has_gone(net: Net) -> None:
    assert eventually(lambda: once_each(net), 20)
    for device in ("leaf1-eth1", "leaf1-eth2"):
        subprocess.run(["ip", "link", "set", device, "down"], check=True)
        try:
            assert eventually(lambda: once_each(net), 20)
        finally:
            subprocess.run(["ip", "link", "set", device, "up"], check=True)
            assert eventually(lambda: net.pings("c1", ADDRESS["s1"]), 20)
        assert eventually(lambda: once_each(net), 20)


def test_a_client_gets_its_address_by_dhcp_from_another_leaf(net: Net) -> None:
    script = net.lab.run_directory / "bound.sh"
    script.write_text(DHCP_SCRIPT)
    script.chmod(0o755)
    net.run("c1", "ip", "addr", "flush", "dev", "c1-eth0", "scope", "global")
    try:
        with dnsmasq(net, "s2", "--dhcp-range=10.77.0.200,10.77.0.220,255.255.255.0,2m"):
            argv = ("busybox", "udhcpc", "-i", "c1-eth0", "-f", "-n", "-q", "-t", "8", "-T", "2", "-s", str(script))
            out = net.run("c1", *argv, within_s=40).stdout
        assert "bound 10.77.0.2" in out, out
        assert eventually(lambda: net.pings("c1", ADDRESS["s1"])), net.log()
    finally:
        net.run("c1", "ip", "addr", "flush", "dev", "c1-eth0", "scope", "global")
        net.run("c1", "ip", "addr", "add", f"{ADDRESS['c1']}/24", "dev", "c1-eth0")


def test_ipv6_neighbours_find_each_other_and_take_addresses_from_a_router(net: Net) -> None:
    def address(client: str, scope: str) -> str | None:
        out = net.run(client, "ip", "-6", "-o", "addr", "show", "dev", f"{client}-eth0", "scope", scope).stdout
        words = [line.split()[3].partition("/")[0] for line in out.splitlines() if "tentative" not in line]
        return next((word for word in words if word.startswith(("fe80", "fd00"))), None)

    assert eventually(lambda: address("s1", "link") and address("c1", "link"))
    local = address("s1", "link")
    assert eventually(lambda: net.pings("c1", f"{local}%c1-eth0"), 20), net.log()
    net.run("s2", "ip", "addr", "add", f"{PREFIX}1/64", "dev", "s2-eth0")
    with dnsmasq(net, "s2", "--enable-ra", f"--dhcp-range={PREFIX},ra-only,64,10m", "--ra-param=s2-eth0,5,600"):
        assert eventually(lambda: address("c1", "global") and address("c2", "global"), 40)
        assert eventually(lambda: net.pings("c1", address("c2", "global") or ""), 20), net.log()


def test_an_address_that_moves_to_another_leaf_takes_its_callers_along(net: Net) -> None:
    shared = "10.77.0.50"
    net.run("s1", "ip", "addr", "add", f"{shared}/24", "dev", "s1-eth0")
    assert eventually(lambda: net.pings("c1", shared)), net.log()
    net.run("s1", "ip", "addr", "del", f"{shared}/24", "dev", "s1-eth0")
    net.run("s2", "ip", "addr", "add", f"{shared}/24", "dev", "s2-eth0")
    net.run("s2", "busybox", "arping", "-U", "-c", "2", "-I", "s2-eth0", shared)
    known = net.run("c1", "ip", "neigh", "show", shared).stdout
    assert LAYOUT.client("s2").mac in known
    assert net.pings("c1", shared)
