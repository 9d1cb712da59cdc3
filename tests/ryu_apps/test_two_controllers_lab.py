"""Two controllers on one database and real switches: one is master, and whichever ends, every byte is told once."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from controller_lab import ADDRESS, LAYOUT, MANAGER, VIP, Net, eventually, network
from test_faults_lab import RATE, load

from cpdb import ControlClaim

pytestmark = pytest.mark.lab
SAME = 0.005
PORTS = (6653, 6654)


class Pair:
    """Two controllers by port, and what switches say of them."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int) -> None:
        argv = [
            str(MANAGER),
            "ryu_apps.controller",
            "--ofp-listen-host",
            "127.0.0.1",
            "--ofp-tcp-listen-port",
            str(port),
        ]
        self.running[port] = self.net.lab.popen(f"controller-{port}", argv, {"FOREPATH_DATABASE_URL": self.net.url})

    def log(self) -> str:
        return "\n".join(file.read_text() for file in self.net.lab.run_directory.glob("controller-*.log"))

    def reaches(self, port: int) -> bool:
        """Whether all switches are connected to it."""
        picture = self.net.store.leases.claim(ControlClaim("a test"), 0.1)
        return any(
            f":{port}/" in one.name and len(one.connected) == len(LAYOUT.switches) for one in picture.controllers
        )

    def master(self) -> int:
        """Port of the one that is master of all switches; 0 while there is none."""
        now = self.net.store.leases.now()
        names = {held.holder for held in self.net.store.leases.masters(now).values()}
        whole = len(self.net.store.leases.masters(now)) == len(LAYOUT.switches)
        return int(re.findall(r":(\d+)/", names.pop())[0]) if len(names) == 1 and whole else 0

    def end(self, port: int, number: signal.Signals) -> None:
        process = self.running.pop(port)
        os.kill(process.pid, number)
        process.wait(timeout=15)

    def takes_over(self, before: int) -> float:
        """Seconds until the other one's rules could be changed: it is master by its lease."""
        began = time.monotonic()
        assert eventually(lambda: self.master() not in (0, before), 15), self.log()
        return time.monotonic() - began


STANDBY_LEARNS_S = 10.0


def rules() -> set[str]:
    """Our rules of all switches, with how old they are."""
    found = set()
    for switch in LAYOUT.switches:
        argv = [
            "ovs-ofctl",
            "-O",
            "OpenFlow13",
            "dump-flows",
            switch.name,
            "cookie=0xf0ea000000000000/0xffff000000000000",
        ]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        found |= {f"{switch.name} {line}" for line in text.splitlines() if "cookie=" in line}
    return found


def younger(than_s: float) -> list[str]:
    return [line for line in rules() if float(re.findall(r"duration=([\d.]+)s", line)[0]) < than_s]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with network(tmp_path_factory.mktemp("two")) as net:
        both = Pair(net)
        places = [f"tcp:127.0.0.1:{port}" for port in PORTS]
        for port in PORTS:
            both.start(port)
        for switch in LAYOUT.switches:
            subprocess.run(["ovs-vsctl", "set-controller", switch.name, *places], check=True)
        assert eventually(lambda: all(map(both.reaches, PORTS)), 40), both.log()
        assert eventually(both.master, 20), both.log()
        assert eventually(lambda: net.pings("c1", VIP) and net.pings("c1", ADDRESS["s1"]), 30), both.log()
        # Switches come back to a port that refused them only after up to 8 s; who stands by then has links to learn.
        time.sleep(STANDBY_LEARNS_S)
        yield both


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_other_takes_over_and_every_byte_is_told_once(pair: Pair, number: signal.Signals) -> None:
    before = pair.master()
    with load(pair.net, 11) as ended:
        time.sleep(3)
        pair.end(before, number)
        took_s = pair.takes_over(before)
        print(f"{number.name}: taken over after {took_s:.2f} s")
        time.sleep(4)
        # Nothing was sent anew: each rule is as old as the time before the takeover.
        assert not (young := younger(4)), "\n".join(sorted(young)) + pair.log()
        got, sent = ended()
    print(f"told {got}, sent {sent}")
    assert sent > 8 * RATE
    assert got == pytest.approx(sent, rel=SAME), pair.log()
    pair.start(before)
    assert eventually(lambda: pair.reaches(before), 40), pair.log()
    assert pair.master() not in (0, before)


def test_one_that_was_stopped_and_wakes_up_changes_and_tells_nothing(pair: Pair) -> None:
    assert eventually(lambda: len(pair.net.store.leases.masters(pair.net.store.leases.now())) == 5)
    before = pair.master()
    sleeper = pair.running[before]
    with load(pair.net, 11) as ended:
        time.sleep(3)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            pair.takes_over(before)
            time.sleep(2)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        time.sleep(3)
        assert pair.master() not in (0, before)
        got, sent = ended()
    print(f"told {got}, sent {sent}")
    assert got == pytest.approx(sent, rel=SAME), pair.log()
