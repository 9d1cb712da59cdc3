"""Real switches and clients."""

import sys
import time
from pathlib import Path

import pytest

from cpdb.errors import LabError
from forepath.demo.layout import MBIT
from tools.lab.lab import Lab
from tools.lab.stage import run

pytestmark = pytest.mark.lab

FLOOD = """
import socket, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect((sys.argv[1], 9))
start, sent = time.time(), 0
while time.time() - start < 2.5:
    while sent * 1242 < (time.time() - start) * float(sys.argv[2]):
        try:
            link.send(bytes(1200))
        except ConnectionRefusedError:
            pass
        sent += 1
    time.sleep(0.005)
"""


def test_clients_reach_each_other(network: Lab) -> None:
    ping = network.client_popen("c1", ["ping", "-c", "3", "-i", "0.2", "-W", "2", "10.77.0.4"], name="ping")
    assert ping.wait(20) == 0, (network.run_directory / "ping.log").read_text()


def test_switches_have_the_ports_of_the_layout(network: Lab) -> None:
    for switch in network.layout.switches:
        text = run(["ovs-ofctl", "-O", "OpenFlow13", "show", switch.name])
        assert f"dpid:{switch.dpid:016x}" in text
    shown = run(["ovs-ofctl", "-O", "OpenFlow13", "show", "leaf1"])
    for client in network.layout.clients:
        assert f" {client.port}(leaf1-eth{client.port})" in shown


def test_counters_see_what_a_client_sends(network: Lab) -> None:
    before = network.link_counters()["c2", "leaf1"]
    ping = network.client_popen("c2", ["ping", "-c", "5", "-i", "0.05", "-s", "1000", "10.77.0.3"], name="ping2")
    assert ping.wait(20) == 0
    after = network.link_counters()["c2", "leaf1"]
    assert after.bytes - before.bytes >= 5 * 1000
    assert after.packets - before.packets >= 5


def test_a_flood_in_one_port_does_not_starve_another(network: Lab) -> None:
    """c4 floods the fabric twofold towards an address behind the spine; c1 and c2 talk as if nothing was."""
    run(["ovs-ofctl", "-O", "OpenFlow13", "add-flow", "leaf1", "priority=9,in_port=14,udp,actions=output:1"])
    before = network.link_counters()["leaf1", "spine1"]
    enter = ["mnexec", "-a", str(network.fabric.client_pid("c4"))]
    neighbour = ["10.77.0.99", "lladdr", "02:00:00:00:00:99", "dev", "c4-eth0"]
    run([*enter, "ip", "neigh", "replace", *neighbour])
    flood = network.client_popen("c4", [sys.executable, "-c", FLOOD, "10.77.0.99", str(40 * MBIT)], name="flood")
    time.sleep(0.5)
    ping = network.client_popen("c1", ["ping", "-c", "10", "-i", "0.1", "-W", "1", "10.77.0.2"], name="ping3")
    assert ping.wait(30) == 0
    flood.wait(30)
    after = network.link_counters()["leaf1", "spine1"]
    assert " 0% packet loss" in (network.run_directory / "ping3.log").read_text()
    assert after.drops > before.drops
    assert after.bytes - before.bytes < 20 * MBIT * 6


def test_processes_are_recorded_and_a_wrong_command_is_one_line(network: Lab, tmp_path: Path) -> None:
    process = network.popen("short", ["true"])
    assert process.wait(10) == 0
    recorded = (network.run_directory / "pids").read_text().splitlines()
    assert any(line.startswith(f"short {process.pid} ") for line in recorded)
    with pytest.raises(LabError, match="cannot run /no/such/program"):
        network.popen("wrong", ["/no/such/program"])


def test_without_vms_there_are_none(network: Lab) -> None:
    with pytest.raises(LabError, match="no virtual machines"):
        assert network.machines
