"""Real Open vSwitch, its controller stopped: where a link is down, others serve what is new."""

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from controller_lab import LAYOUT, VIP, Net, eventually, network
from test_failover_lab import link, ofctl
from test_placing_lab import PORT, health, serving, visits

from cpdb import Destination, VirtualIp
from forepath.demo.layout import ClientSpec

pytestmark = pytest.mark.lab
# The client and two destinations at one switch, the third elsewhere
BEHIND = tuple(
    ClientSpec(f"s{n}", f"10.77.0.1{n}", f"02:00:0a:4d:00:1{n}", leaf, 20 + n)
    for n, leaf in ((1, "leaf1"), (2, "leaf1"), (3, "leaf2"))
)
ALL = {one.name for one in BEHIND}


def declare(net: Net) -> None:
    behind = tuple(Destination(one.name, one.address, one.mac, 100) for one in BEHIND)
    vip = VirtualIp(VIP, "shop", 10, behind, affinity="connection", probe=f"tcp:{PORT}")
    net.store.inventory.declare_virtual_ips([vip])
    net.controller()


def told(net: Net, since: float) -> int:
    rows = net.store.facts.communications(since)
    return sum(row.new_connections for row in rows if row.virtual_ip == VIP)


def test_a_switch_turns_new_connections_away_from_a_dead_link_while_its_controller_is_stopped(tmp_path: Path) -> None:
    start, found = time.time(), Counter[str]()
    with network(tmp_path, replace(LAYOUT, clients=(LAYOUT.client("c1"), *BEHIND))) as net, ExitStack() as stack:
        for one in BEHIND:
            stack.enter_context(serving(net, one.name))
        declare(net)
        assert eventually(lambda: health(net) == dict.fromkeys(ALL, "up"), 60), net.log()
        assert eventually(lambda: ofctl("dump-flows", "leaf1", "table=7").count("ip,") >= 3), net.log()

        def visit(times: int) -> Counter[str]:
            nonlocal found
            new = Counter(visits(net, times))
            found += new
            return new

        assert visit(200).keys() == ALL
        assert net.process is not None
        os.kill(net.process.pid, signal.SIGSTOP)
        try:
            for device, others in (("leaf1-eth21", {"s2", "s3"}), ("leaf1-eth22", {"s3"})):
                link(device, "down")
                assert visit(200).keys() == others
        finally:
            os.kill(net.process.pid, signal.SIGCONT)
        # The controller hears of the links, then it finds the machines silent, and gives their share to others.
        while list(health(net).values()).count("down") < 2:
            assert visit(20).keys() == {"s3"}
        assert visit(100).keys() == {"s3"}
        for device in ("leaf1-eth21", "leaf1-eth22"):
            link(device, "up")
        assert eventually(lambda: health(net) == dict.fromkeys(ALL, "up"), 30), net.log()
        assert eventually(lambda: visit(50).keys() == ALL), net.log()
        # Each was counted once, but for the very first of a source that nobody had met.
        assert eventually(lambda: abs(found.total() - told(net, start)) <= 0.01 * found.total()), (found, net.log())
