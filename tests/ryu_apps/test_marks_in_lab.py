"""A reservation that only marks: the switch says so, and with a queue on the way the marked pair gets through."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, VIP, Net, eventually, network

from cpdb import Pair, Reservation, ReservationReport
from orchestrator import OvsQueues, QueueSpec

pytestmark = pytest.mark.lab
TALK = (sys.executable, str(Path(__file__).with_name("talk.py")))
CAPACITY = 500_000.0
SECONDS = 3.0


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("lab")) as made:
        made.controller()
        assert eventually(lambda: made.pings("c1", ADDRESS["s1"])), made.log()
        assert eventually(lambda: made.pings("c1", VIP) and made.pings("c2", VIP)), made.log()
        yield made


def arrived(net: Net) -> float:
    """Share of what c2 sends (40 % of the capacity) that arrives while c1 floods the same virtual IP."""
    with (
        net.background("s1", *TALK, "serve_udp", "0.0.0.0", "9", str(SECONDS + 2)) as sink,
        net.background("s1", *TALK, "serve_udp", "0.0.0.0", "10", str(SECONDS + 2)) as other,
    ):
        for one in (sink, other):
            assert one.stdout is not None and one.stdout.readline()
        with net.background("c1", *TALK, "flood_udp", VIP, "10", str(3 * CAPACITY), str(SECONDS)):
            sent = int(net.run("c2", *TALK, "flood_udp", VIP, "9", str(0.4 * CAPACITY), str(SECONDS)).stdout)
        assert sink.stdout is not None
        return int(sink.stdout.readline()) / sent


def test_a_marked_pair_gets_its_guarantee_through_the_real_switches(net: Net) -> None:
    spec = QueueSpec("leaf2>s1", net.lab.layout.interfaces()["leaf2", "s1"], CAPACITY)
    queues = OvsQueues((spec,))
    queues.ensure(spec)
    try:
        assert arrived(net) < 0.85
        now = time.time()
        item = Reservation("m", Pair("c2", VIP), CAPACITY / 2, (), "test", "a test", now, now + 30, dscp=46)
        generation = net.store.wanted.reserve(item)

        def installed() -> bool:
            rows = [
                one
                for one in net.store.wanted.observed_of(ReservationReport)
                if one.key == "m" and one.status == "installed"
            ]
            return any(one.generation >= generation and "marked DSCP 46" in one.detail for one in rows)

        assert eventually(installed), net.log()
        assert arrived(net) > 0.95
        net.store.wanted.release("m", time.time())
        assert eventually(
            lambda: any(one.status == "removed" for one in net.store.wanted.observed_of(ReservationReport))
        )
        assert arrived(net) < 0.85
    finally:
        queues.remove(spec)
