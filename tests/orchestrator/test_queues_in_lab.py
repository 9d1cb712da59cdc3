"""Guaranteed queues on a real switch: a marked pair gets through a flood, and nothing stays behind."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpdb import DriverError
from orchestrator import OvsQueues, QueueSpec

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(60),
]
CAPACITY = 1_250_000.0
SPEC = QueueSpec("leaf>h1", "q-h1", CAPACITY)
BRIDGE, MARKED, UNMARKED = "qleaf", 46 << 2, 0
SECONDS = 2.0
RECEIVE = """
import json, socket, sys, time
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for port, one in enumerate(sockets, 5001):
    one.bind(("0.0.0.0", port)); one.setblocking(False)
print("ready", flush=True)
counts, end = [0, 0], time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for n, one in enumerate(sockets):
        try:
            while True:
                one.recv(2000); counts[n] += 1
        except BlockingIOError:
            pass
    time.sleep(0.001)
print(json.dumps(counts))
"""
SEND = """
import socket, sys, time
port, tos, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
sent, start = 0, time.monotonic()
while (spent := time.monotonic() - start) < seconds:
    while sent < spent * rate / 1000:
        one.sendto(bytes(972), ("10.9.0.3", port)); sent += 1
    time.sleep(0.001)
print(sent)
"""


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout


def inside(host: str, code: str, *words: object) -> "subprocess.Popen[str]":
    argv = ["ip", "netns", "exec", f"q-{host}", sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def bridge() -> Iterator[None]:
    """One userspace switch with two senders, h2 and h3, and a receiver, h1."""
    from tools.lab.switches import start_daemons

    start_daemons()
    run("ovs-vsctl", "--timeout=10", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
    hosts = {"h1": "10.9.0.3", "h2": "10.9.0.1", "h3": "10.9.0.2"}
    for host, address in hosts.items():
        run("ip", "netns", "add", f"q-{host}")
        run("ip", "link", "add", f"q-{host}", "type", "veth", "peer", "name", "eth0", "netns", f"q-{host}")
        run("ip", "-n", f"q-{host}", "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", f"q-{host}", "link", "set", "eth0", "up")
        run("ip", "netns", "exec", f"q-{host}", "ethtool", "-K", "eth0", "tx", "off", "gso", "off")
        run("ip", "link", "set", f"q-{host}", "up")
        run("ovs-vsctl", "--timeout=10", "add-port", BRIDGE, f"q-{host}")
    yield
    run("ovs-vsctl", "--timeout=10", "del-br", BRIDGE)
    for host in hosts:
        run("ip", "link", "delete", f"q-{host}")
        run("ip", "netns", "delete", f"q-{host}")


@pytest.fixture
def queues(bridge: None) -> Iterator[OvsQueues]:
    made = OvsQueues((SPEC,))
    yield made
    made.remove(SPEC)


def loss(tos: int) -> float:
    """Share of the victim's packets that is lost, at 40 % of the capacity beside a flood of three times of it."""
    sink = inside("h1", RECEIVE, SECONDS + 1.5)
    assert sink.stdout is not None
    sink.stdout.readline()
    flood = inside("h3", SEND, 5002, UNMARKED, 3 * CAPACITY, SECONDS)
    victim = inside("h2", SEND, 5001, tos, 0.4 * CAPACITY, SECONDS)
    sent = int(victim.communicate(timeout=20)[0])
    flooded = int(flood.communicate(timeout=20)[0])
    got, other = json.loads(sink.communicate(timeout=20)[0])
    assert flooded * 1000 > 1.5 * CAPACITY * SECONDS
    assert other * 1000 < 1.3 * CAPACITY * SECONDS
    return 1 - got / sent


def rows() -> str:
    return run("ovs-vsctl", "list", "qos") + run("ovs-vsctl", "list", "queue")


def queue_length() -> int:
    return int(Path("/sys/class/net", SPEC.device, "tx_queue_len").read_text())


def test_a_marked_pair_gets_through_a_flood_that_drowns_an_unmarked_one(queues: OvsQueues) -> None:
    assert queues.ensure(SPEC)
    assert queues.faults(SPEC) == ()
    assert loss(UNMARKED) > 0.15
    before, _ = queues.counts(SPEC)
    assert loss(MARKED) < 0.05
    sent, dropped = queues.counts(SPEC)
    assert sent - before > 500
    assert dropped < 0.05 * sent


def test_doing_it_twice_changes_nothing(queues: OvsQueues) -> None:
    queues.ensure(SPEC)
    before = rows()
    assert queues.ensure(SPEC) == ()
    assert rows() == before


@pytest.mark.parametrize(
    "harm",
    [
        ("ovs-vsctl", "clear", "port", SPEC.device, "qos"),
        ("tc", "filter", "delete", "dev", SPEC.device, "parent", "1:"),
        ("tc", "qdisc", "delete", "dev", SPEC.device, "root"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_what_was_broken_by_hand_is_found_and_repaired(queues: OvsQueues, harm: tuple[str, ...]) -> None:
    queues.ensure(SPEC)
    run(*harm)
    broken = queues.faults(SPEC)
    assert broken
    assert queues.ensure(SPEC) == broken
    assert queues.faults(SPEC) == ()
    assert "flowid 1:2" in run("tc", "filter", "show", "dev", SPEC.device, "parent", "1:")
    assert "class htb 1:2 " in run("tc", "class", "show", "dev", SPEC.device)


def test_another_share_replaces_the_queue(queues: OvsQueues) -> None:
    queues.ensure(SPEC)
    half = QueueSpec(SPEC.link, SPEC.device, CAPACITY, 0.5)
    assert queues.ensure(half) == ("its QoS has other rates",)
    assert rows().count("_uuid") == 3


def test_removal_leaves_nothing(queues: OvsQueues) -> None:
    before = queue_length()
    queues.ensure(SPEC)
    assert queue_length() == 50
    queues.remove(SPEC)
    queues.remove(SPEC)
    assert rows() == ""
    assert queue_length() == before
    assert "htb" not in run("tc", "qdisc", "show", "dev", SPEC.device)
    assert queues.faults(SPEC) == ("it has no QoS",)


def test_a_qos_of_somebody_else_is_left_alone(queues: OvsQueues) -> None:
    words = ("set", "port", SPEC.device, "qos=@a", "--", "--id=@a", "create", "qos", "type=linux-htb")
    run("ovs-vsctl", "--", *words)
    before = rows()
    with pytest.raises(DriverError, match="did not make"):
        queues.ensure(SPEC)
    queues.remove(SPEC)
    assert rows() == before
    run("ovs-vsctl", "clear", "port", SPEC.device, "qos", "--", "--all", "destroy", "qos")


def test_a_port_that_does_not_exist_is_told(bridge: None) -> None:
    absent = QueueSpec("leaf>h9", "q-h9", CAPACITY)
    with pytest.raises(DriverError, match="no switch has a port q-h9"):
        OvsQueues((absent,)).ensure(absent)
