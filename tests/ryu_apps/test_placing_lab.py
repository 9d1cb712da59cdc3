"""On real Open vSwitch: new connections follow weights, live ones stay, who does not answer gets nothing new."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, VIP, Net, eventually, network

from cpdb import (
    ActionRecord,
    Destination,
    DestinationChange,
    HealthReport,
    LiveCount,
    OutcomeKind,
    Standing,
    VirtualIp,
    WeightsReport,
)
from orchestrator import FakeHypervisors, OrchestratorConfig, SetWeights, Step
from orchestrator.act.executor import Executor
from orchestrator.proposal import Reason

pytestmark = pytest.mark.lab
TALK = (sys.executable, str(Path(__file__).with_name("placed_talk.py")))
PORT = "8080"
SERVERS: dict[str, subprocess.Popen[str]] = {}


@pytest.fixture(scope="module")
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("lab")) as net:
        behind = tuple(
            Destination(name, ADDRESS[name], LAYOUT.client(name).mac, weight)
            for name, weight in (("s1", 300), ("s2", 100))
        )
        vip = VirtualIp(VIP, "shop", 10, behind, affinity="connection", probe=f"tcp:{PORT}")
        net.store.inventory.declare_virtual_ips([vip])
        net.settings |= {"probes.every_s": "0.5", "probes.failures": "2"}
        yield net


@pytest.fixture
def net(_network: Net) -> Iterator[Net]:
    """Both services run, the controller has found them well, and all is as declared."""
    with serving(_network, "s1"), serving(_network, "s2"):
        if not _network.controlled():
            _network.controller()
        assert eventually(lambda: health(_network) == {"s1": "up", "s2": "up"}, 60), _network.log()
        yield _network
    for name in ("s1", "s2"):
        _network.store.inventory.forget_change(VIP, name)
    _network.store.wanted.clear(time.time())


@contextlib.contextmanager
def serving(net: Net, name: str) -> Iterator[None]:
    """The service of one server, which answers with its name."""
    with net.background(name, *TALK, "serve", name, PORT) as process:
        assert process.stdout is not None and process.stdout.readline()
        SERVERS[name] = process
        yield


def health(net: Net) -> dict[str, str]:
    rows = net.store.wanted.observed_of(HealthReport)
    return {row.key.partition("/")[2]: row.status for row in rows}


def visits(net: Net, times: int) -> dict[str, int]:
    found: dict[str, int] = json.loads(net.run("c1", *TALK, "visit", VIP, PORT, str(times), within_s=150).stdout)
    return found


def change(net: Net, name: str, standing: Standing) -> None:
    item = DestinationChange(VIP, name, ADDRESS[name], LAYOUT.client(name).mac, 100, standing, "test", "a test", 1.0)
    net.store.inventory.put_change(item)


class Held:
    """Connections that stay open while things change."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.first = self._line()

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        found: list[str] = json.loads(self._process.stdout.readline())
        return found

    def ask(self) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()


def test_weights_are_met_and_live_connections_survive_a_change_and_a_drain(net: Net) -> None:
    holder = net.lab.fabric.client_popen(
        "c2", [*TALK, "hold", VIP, PORT, "50"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        held = Held(holder)  # type: ignore[arg-type]
        assert set(held.first) == {"s1", "s2"}
        found = visits(net, 2000)
        assert found.keys() == {"s1", "s2"}
        assert abs(found["s1"] / 2000 - 0.75) <= 0.03
        row = carried_out(net, SetWeights(VIP, (), (("s1", 100), ("s2", 300))))
        places = "on leaf1, leaf2, leaf3"
        assert row.sentence == f"followed: new connections go by s1 25%, s2 75% {places}; live ones stay", net.log()
        # Done means done: the very next connections follow.
        assert visits(net, 100).get("s1", 0) < 50
        assert held.ask() == held.first
        change(net, "s2", Standing.DRAINING)
        assert eventually(lambda: told(net) == ("refused", "s2 gets nothing new: it is drained")), net.log()
        assert eventually(lambda: visits(net, 20).keys() == {"s1"}), net.log()
        assert held.ask() == held.first
        # Those that hold it up are counted.
        assert eventually(lambda: left(net) == [held.first.count("s2")], 30), (left(net), held.first)
        # The controller's death changes nothing, for live connections and for new ones; nor does its return.
        before, start = slots(net), time.time()
        net.kill_controller()
        assert visits(net, 40) == {"s1": 40}
        net.controller()
        assert eventually(lambda: visits(net, 5) and spoken(net, start), 30), net.log()
        assert slots(net) == before
        assert held.ask() == held.first
    finally:
        holder.kill()
        holder.communicate()


def carried_out(net: Net, action: SetWeights) -> ActionRecord:
    """The action's row after the orchestrator has followed it to its end."""
    executor = Executor(OrchestratorConfig(act=True), net.store, FakeHypervisors({}, {}, lambda _vm, _now: 0.0))
    begun = executor.begin(Step(action, "a test", Reason(), time.time(), 1.0), time.time())
    assert begun is not None and begun.outcome is OutcomeKind.PENDING
    ended: list[ActionRecord] = []
    assert eventually(lambda: ended.extend(executor.settle(time.time())) or ended)
    return ended[0]


def told(net: Net) -> tuple[str, str]:
    (row,) = net.store.wanted.observed_of(WeightsReport)
    return row.status, row.detail


def left(net: Net) -> list[int]:
    return [row.count for row in net.store.wanted.observed_of(LiveCount) if row.destination == "s2"]


def slots(net: Net) -> list[str]:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "--no-names", "dump-flows", "leaf1", "table=9"]
    return sorted(subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()[1:])


def spoken(net: Net, start: float) -> int:
    rows = net.store.facts.communications(start)
    return sum(row.new_connections for row in rows if row.source == "c1" and row.virtual_ip == VIP)


def test_who_does_not_answer_and_who_has_a_double_gets_nothing_new(net: Net) -> None:
    SERVERS["s1"].kill()
    assert eventually(lambda: health(net)["s1"] == "down"), net.log()
    assert eventually(lambda: visits(net, 10) == {"s2": 10}), net.log()
    with serving(net, "s1"):
        assert eventually(lambda: health(net)["s1"] == "up"), net.log()
        assert eventually(lambda: visits(net, 20).keys() == {"s1", "s2"}), net.log()
        claim_address_of_s1(net)
        assert eventually(lambda: health(net)["s1"] == "frozen"), net.log()
        # That for a while nobody answered may still be told beside it.
        assert eventually(lambda: doubles(net) == [f"{VIP}/s1"]), net.log()
        assert eventually(lambda: visits(net, 10) == {"s2": 10}), net.log()
    # What a conflict was is not kept: the next test's controller looks anew.
    net.kill_controller()


def doubles(net: Net) -> list[str]:
    return [one.key for one in net.store.alarms.open() if one.kind == "duplicate"]


def claim_address_of_s1(net: Net) -> None:
    """Another client says once that it has the address of s1."""
    send = "import socket,sys; s=socket.socket(17,3,3); s.bind(('c2-eth0',0)); s.send(bytes.fromhex(sys.argv[1]))"
    mac, address = LAYOUT.client("c2").mac.replace(":", ""), socket.inet_aton(ADDRESS["s1"]).hex()
    frame = "ff" * 6 + mac + "0806" + "0001080006040001" + mac + address + "00" * 6 + address
    net.run("c2", sys.executable, "-c", send, frame)
