"""A guest on real switches: other people's applications, or the switches alone, forward as they did without us."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from controller_lab import LEARNING_SWITCH, MANAGER, VIP, Net, eventually, network

from cpdb import Destination, Link, Node, NodeKind, VirtualIp
from forepath.demo.layout import ClientSpec, LabLayout, SwitchSpec
from ryu_apps import framework_name
from ryu_apps.tables import TABLES
from ryu_apps.telemetry.foreign import HIDDEN
from tools.lab.stage import run

pytestmark = pytest.mark.lab
# No loops: others flood. c2 is moved to a network of its own for the router.
LAYOUT = LabLayout(
    leaves=(SwitchSpec("leaf1", 0x11), SwitchSpec("leaf2", 0x12)),
    spines=(SwitchSpec("spine1", 0x21),),
    clients=(
        ClientSpec("c1", "10.77.0.1", "02:00:0a:4d:00:01", "leaf1", 11),
        ClientSpec("c2", "10.77.0.2", "02:00:0a:4d:00:02", "leaf1", 12),
        ClientSpec("s1", "10.77.0.11", "02:00:0a:4d:00:11", "leaf2", 11),
    ),
)
OFCTL = ("ovs-ofctl", "-O", "OpenFlow13")
SWITCHES = ("leaf1", "leaf2", "spine1")
# Of no network that the router knows: answers from its own would not be routed.
ROUTED_VIP, ROUTED = "10.99.0.1", "10.78.0.2"
REST = "http://127.0.0.1:8089/router/{:016x}"
TALK = str(Path(__file__).with_name("talk.py"))
SIZE, TIMES = 200_000, 3


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("guest"), LAYOUT) as net:
        store = net.store
        store.inventory.put_nodes(Node(one.name, NodeKind.SWITCH, dpid=one.dpid) for one in LAYOUT.switches)
        store.inventory.put_nodes(
            Node(one.name, NodeKind.CLIENT, ROUTED if one.name == "c2" else one.address, one.mac)
            for one in LAYOUT.clients
        )
        store.inventory.put_links(Link(a, p, b, q, 2.5e6, declared=True) for a, p, b, q in LAYOUT.fabric_ports())
        behind = (Destination("s1", "10.77.0.11", LAYOUT.client("s1").mac, 100),)
        routed = (Destination("c2", ROUTED, LAYOUT.client("c2").mac, 100),)
        vips = [VirtualIp(VIP, "shop", 10, behind), VirtualIp(ROUTED_VIP, "routed", 10, routed)]
        store.inventory.declare_virtual_ips(vips)
        yield net


@contextmanager
def running(net: Net, name: str, process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)
        assert "Traceback" not in (net.lab.run_directory / f"{name}.log").read_text()


def connect(*ports: int) -> None:
    for switch in SWITCHES:
        argv = ["ovs-vsctl"]
        for port in ports:
            target = f'target="tcp:127.0.0.1:{port}"'
            argv += ["--", f"--id=@c{port}", "create", "controller", target, "max_backoff=1000"]
        run([*argv, "--", "set", "bridge", switch, "controller=" + ",".join(f"@c{port}" for port in ports)])


@contextmanager
def other(net: Net, app: str, *words: str) -> Iterator[None]:
    """Another application at a controller of its own, beside ours; what it leaves is deleted afterwards."""
    connect(6653, 6654)
    argv = [str(MANAGER), app, "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6654", *words]
    with running(net, "other", net.lab.popen("other", argv)):
        try:
            yield
        finally:
            connect(6653)
            for switch in SWITCHES:
                run([*OFCTL, "del-flows", switch])


@contextmanager
def guest(net: Net, **settings: object) -> Iterator[None]:
    net.settings = {"mode": "'guest'", **{name: repr(value) for name, value in settings.items()}}
    with running(net, "controller", net.controller()):
        yield


def flows(switch: str) -> list[str]:
    return [line.strip() for line in run([*OFCTL, "--no-stats", "dump-flows", switch]).splitlines()]


def theirs() -> dict[str, list[str]]:
    return {
        switch: sorted(line for line in flows(switch) if "0xf0e" not in line and "table=" not in line)
        for switch in SWITCHES
    }


def answers(net: Net, address: str) -> str:
    """What ten questions to an address bring: how many were sent, answered, and answered twice."""
    out = net.run("c1", "ping", "-c", "10", "-i", "0.05", "-W", "2", address).stdout
    found = re.search(r"(\d+) packets transmitted, (\d+) received(, \+(\d+) duplicates)?", out)
    return found[0] if found else out


def transferred(net: Net, address: str, server: str, listen: str) -> str:
    """Bytes that arrive over TCP at `address`, connection by connection."""
    with net.background(server, sys.executable, TALK, "serve_tcp", listen, "5001") as talk:
        assert talk.stdout is not None and talk.stdout.readline() == "ready\n"
        return net.run("c1", sys.executable, TALK, "connect_tcp", address, "5001", str(TIMES), str(SIZE)).stdout.strip()


def counted(net: Net, since: float, virtual_ip: str) -> int:
    rows = net.store.facts.communications(since)
    return sum(row.bytes for row in rows if (row.source, row.virtual_ip) == ("c1", virtual_ip))


def sent(net: Net) -> int:
    return int(net.run("c1", "cat", "/sys/class/net/c1-eth0/statistics/tx_bytes").stdout)


def counts_what_passes(net: Net, virtual_ip: str, server: str, listen: str) -> None:
    """A virtual IP serves, and what is counted is what was sent with its headers."""
    assert eventually(lambda: net.pings("c1", virtual_ip), 30), net.log()
    since, before = time.time(), sent(net)
    assert transferred(net, virtual_ip, server, listen) == " ".join([str(SIZE)] * TIMES)
    passed = sent(net) - before
    assert eventually(lambda: counted(net, since, virtual_ip) > 0.98 * passed)
    time.sleep(1.5)
    # The first look may hold the last packets before.
    assert counted(net, since, virtual_ip) < 1.02 * passed


ALL = "10 packets transmitted, 10 received"


def test_beside_the_learning_switch_nothing_is_different_but_what_is_counted(net: Net) -> None:
    with other(net, LEARNING_SWITCH):
        assert eventually(lambda: net.pings("c1", "10.77.0.11"), 30)
        without = answers(net, "10.77.0.11"), transferred(net, "10.77.0.11", "s1", "10.77.0.11"), theirs()
        assert without[:2] == (ALL, " ".join([str(SIZE)] * TIMES))
        with guest(net, guest_next=0):
            counts_what_passes(net, VIP, "s1", "10.77.0.11")
            assert (answers(net, "10.77.0.11"), transferred(net, "10.77.0.11", "s1", "10.77.0.11")) == without[:2]
            after = theirs()
            assert all(set(rules) <= set(after[switch]) for switch, rules in without[2].items())
            assert answers(net, VIP) == ALL
            first = "cookie=0x7,priority=65000,ip,nw_dst=10.77.0.0/16,actions=resubmit(,100)"
            for rule in (first, "table=100,actions=NORMAL"):
                run([*OFCTL, "add-flow", "leaf1", rule])
            with net.background("c1", "ping", "-i", "0.1", VIP):
                assert eventually(
                    lambda: [one for one in net.store.alarms.at(time.time()) if one.kind == HIDDEN], 25
                ), net.log()
            (alarm,) = [one for one in net.store.alarms.at(time.time()) if one.kind == HIDDEN]
            assert alarm.node == "leaf1" and "ipv4_dst=10.77.0.0/255.255.0.0" in alarm.detail


def rest(dpid: int, body: dict[str, str]) -> str:
    request = urllib.request.Request(REST.format(dpid), json.dumps(body).encode(), method="POST")
    with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read())
    return "not there yet"


@pytest.mark.skipif(framework_name() != "ryu", reason="os-ken brings no application that routes")
def test_beside_the_router_other_networks_are_reached_as_before(net: Net) -> None:
    gateway = ("ip", "route", "replace", "default", "via")
    for argv in (
        ("c2", "ip", "addr", "flush", "dev", "c2-eth0"),
        ("c2", "ip", "addr", "add", f"{ROUTED}/24", "dev", "c2-eth0"),
        ("c2", *gateway, "10.78.0.254"),
        ("c1", *gateway, "10.77.0.254"),
    ):
        net.run(*argv)
    with other(net, "ryu.app.rest_router", "--wsapi-host", "127.0.0.1", "--wsapi-port", "8089"):
        dpid = LAYOUT.leaves[0].dpid
        for address in ("10.77.0.254/24", "10.78.0.254/24"):
            assert eventually(lambda address=address: "success" in rest(dpid, {"address": address}), 20)
        assert eventually(lambda: net.pings("c1", ROUTED), 30)
        without = answers(net, ROUTED), transferred(net, ROUTED, "c2", ROUTED)
        assert without == (ALL, " ".join([str(SIZE)] * TIMES))
        with guest(net, guest_next=0):
            counts_what_passes(net, ROUTED_VIP, "c2", ROUTED)
            assert (answers(net, ROUTED), transferred(net, ROUTED, "c2", ROUTED)) == without


def test_the_switch_by_itself_forwards_behind_tables_of_somebody_else(net: Net) -> None:
    front = ("priority=0,actions=goto_table:20", "priority=5,arp,actions=goto_table:20")
    for switch in SWITCHES:
        for rule in front:
            run([*OFCTL, "add-flow", switch, rule])
    before = {switch: flows(switch) for switch in SWITCHES}
    with guest(net, first_table=20):
        counts_what_passes(net, VIP, "s1", "10.77.0.11")
        assert answers(net, "10.77.0.11") == ALL
        for switch in SWITCHES:
            ours = [line for line in flows(switch) if line not in before[switch]]
            tables = set(map(int, re.findall(r"(?:table[=:]|resubmit\(,)(\d+)", " ".join(ours))))
            assert len(before[switch]) + len(ours) == len(flows(switch))
            assert tables <= set(range(20, 20 + TABLES)) and all("0xf0e" in line for line in ours)
