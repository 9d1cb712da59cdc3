"""The passive mirror beside another application: rows appear, and the switches hold only the other's rules."""

import subprocess
import time
from collections.abc import Iterator

import pytest
from controller_lab import LEARNING_SWITCH, Net, eventually, network

from forepath.demo.layout import ClientSpec, LabLayout, SwitchSpec

pytestmark = pytest.mark.lab
C1, C2 = "02:00:0a:4d:00:01", "02:00:0a:4d:00:02"
# No loops: the other application floods.
LAYOUT = LabLayout(
    leaves=(SwitchSpec("leaf1", 0x11), SwitchSpec("leaf2", 0x12)),
    spines=(SwitchSpec("spine1", 0x21),),
    clients=(ClientSpec("c1", "10.77.0.1", C1, "leaf1", 11), ClientSpec("c2", "10.77.0.2", C2, "leaf2", 11)),
)


@pytest.fixture
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("lab"), LAYOUT) as made:
        made.controller(LEARNING_SWITCH, "ryu_apps.flow_mirror")
        yield made


def test_it_mirrors_what_others_install_and_installs_nothing(net: Net) -> None:
    assert eventually(lambda: net.pings("c1", "10.77.0.2"), 30), net.log()
    assert eventually(lambda: net.store.facts.communications(0.0)), net.log()
    start = time.time()
    assert net.pings("c1", "10.77.0.2", count=10)

    def packets() -> int:
        rows = net.store.facts.communications(start)
        return sum(row.packets for row in rows if (row.source, row.virtual_ip) == (C1, C2))

    assert eventually(lambda: packets() >= 10)
    time.sleep(1.5)
    # Three switches carried them, each counted them; they are told once (besides a few ARP frames).
    assert packets() < 18
    for switch in ("leaf1", "leaf2", "spine1"):
        argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", switch]
        dump = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert "cookie=0x0" in dump
        assert "f0ea" not in dump
