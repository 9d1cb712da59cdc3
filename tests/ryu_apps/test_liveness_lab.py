"""Real Open vSwitch: a destination falls silent while 1,000 connections are opened, and hardly any of them fails."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, VIP, Net, eventually, network

from cpdb import Destination, HealthReport, HealthStatus, VirtualIp
from ryu_apps.services.pairs import choose

pytestmark = pytest.mark.lab
TALK = (sys.executable, str(Path(__file__).with_name("many_connections.py")))
PORT, COUNT, SECONDS = "8080", 1000, 6
BEHIND = tuple(Destination(name, ADDRESS[name], LAYOUT.client(name).mac, 100) for name in ("s1", "s2"))


@pytest.fixture(params=["source", "connection"])
def net(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Net]:
    with network(tmp_path) as made:
        made.store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, BEHIND, affinity=request.param)])
        made.controller()
        assert eventually(lambda: all(made.pings("c1", ADDRESS[name]) for name in ("s1", "s2")), 30), made.log()
        assert eventually(lambda: made.pings("c1", VIP), 30), made.log()
        yield made


def statuses(net: Net) -> dict[str, HealthStatus]:
    return {one.destination: one.status for one in net.store.wanted.observed_of(HealthReport)}


def test_one_in_a_hundred_connections_fails_at_most(net: Net) -> None:
    served = choose(ADDRESS["c1"], VIP, BEHIND)
    assert served is not None
    with net.background("s1", *TALK, "serve", PORT) as one, net.background("s2", *TALK, "serve", PORT) as other:
        for server in (one, other):
            assert server.stdout is not None and server.stdout.readline() == "serving\n"
        with net.background("c1", *TALK, "open", VIP, PORT, str(COUNT), str(SECONDS)) as client:
            assert client.stdout is not None and client.stdout.readline() == "opening\n"
            assert eventually(lambda: statuses(net).get(served.name) is HealthStatus.UP, 3.0), net.log()
            # Its link stays up: it is only silent, as a machine that hangs.
            net.run(served.name, "ip", "addr", "flush", "dev", f"{served.name}-eth0")
            said = json.loads(client.stdout.readline())
    print(said)
    assert said["failed"] <= COUNT / 100, net.log()
    assert statuses(net)[served.name] is HealthStatus.DOWN
