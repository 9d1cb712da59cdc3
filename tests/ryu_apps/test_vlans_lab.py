"""VLANs on real switches: access switches of others put the tags on, and send them here on trunks."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from controller_lab import LAYOUT, Net, eventually, network
from test_joining_lab import EXPERIMENT, FRAMES, RAW
from test_placing_lab import PORT, TALK

from cpdb import Destination, VirtualIp
from forepath.demo.layout import ClientSpec

pytestmark = pytest.mark.lab
SAME, TRUNK = "10.77.0.50", 30
# Tags by host; of one address both clients are.
TAGS = {"a10": 10, "a20": 20, "s10": 10, "s20": 20}
HOSTS = (
    ClientSpec("a10", SAME, "02:00:0a:4d:01:10", "leaf1", 11),
    ClientSpec("a20", SAME, "02:00:0a:4d:01:20", "leaf1", 12),
    ClientSpec("t1", "10.77.0.70", "02:00:0a:4d:01:70", "leaf1", 13),
    ClientSpec("s10", "10.77.0.60", "02:00:0a:4d:02:10", "leaf2", 11),
    ClientSpec("s20", "10.77.0.61", "02:00:0a:4d:02:20", "leaf2", 12),
    ClientSpec("t2", "10.77.0.71", "02:00:0a:4d:02:71", "leaf2", 13),
)
TAGGED = replace(LAYOUT, clients=HOSTS)
SERVICES = {"10.77.0.110": "s10", "10.77.0.120": "s20"}


@contextlib.contextmanager
def access_switches() -> Iterator[None]:
    """Behind leaf1 and leaf2 a switch each that nobody controls: hosts on access ports, a trunk to the leaf."""
    try:
        for leaf, far in (("leaf1", "far1"), ("leaf2", "far2")):
            words = [
                "ovs-vsctl",
                "add-br",
                far,
                "--",
                "set",
                "bridge",
                far,
                "datapath_type=netdev",
                "fail_mode=standalone",
            ]
            for one in HOSTS:
                if one.switch == leaf and one.name in TAGS:
                    device = TAGGED.interfaces()[leaf, one.name]
                    words += ["--", "del-port", leaf, device]
                    words += ["--", "add-port", far, device, f"tag={TAGS[one.name]}"]
            for bridge, own, peer in ((leaf, f"{leaf}-trunk", f"{far}-trunk"), (far, f"{far}-trunk", f"{leaf}-trunk")):
                words += ["--", "add-port", bridge, own, "--", "set", "interface", own, "type=patch"]
                words += [f"options:peer={peer}", f"ofport_request={TRUNK}"]
            subprocess.run(words, check=True)
        yield
    finally:
        for far in ("far1", "far2"):
            subprocess.run(["ovs-vsctl", "--if-exists", "del-br", far], check=True)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("vlans"), TAGGED) as net, access_switches():
        for address, name in SERVICES.items():
            spec = TAGGED.client(name)
            behind = (Destination(name, spec.address, spec.mac, 100),)
            net.store.inventory.declare_virtual_ips(
                [*net.store.inventory.virtual_ips(), VirtualIp(address, name, 10, behind)]
            )
        net.controller()
        assert eventually(lambda: net.pings("a10", "10.77.0.60") and net.pings("a20", "10.77.0.61"), 30), net.log()
        yield net


def counted(net: Net, since: float) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for row in net.store.facts.communications(since):
        key = row.source, row.virtual_ip
        found[key] = found.get(key, 0) + row.new_connections
    return found


def test_one_address_in_two_vlans_is_two_hosts_and_neither_reaches_the_other(net: Net) -> None:
    assert net.pings("a10", "10.77.0.60", 3) and net.pings("a20", "10.77.0.61", 3)
    assert net.run("a10", "ping", "-c", "2", "-W", "1", "10.77.0.61").returncode != 0
    assert net.run("a20", "ping", "-c", "2", "-W", "1", "10.77.0.60").returncode != 0


def test_a_virtual_ip_is_answered_in_the_vlan_of_the_question_and_each_source_is_counted_for_itself(net: Net) -> None:
    since = time.time()
    with net.background("s10", *TALK, "serve", "s10", PORT), net.background("s20", *TALK, "serve", "s20", PORT):
        for client, address, times in (("a10", "10.77.0.110", 5), ("a20", "10.77.0.120", 9)):

            def visited(client: str = client, address: str = address) -> bool:
                return "s" in net.run(client, *TALK, "visit", address, PORT, "1").stdout

            assert eventually(visited, 20), net.log()
            out = net.run(client, *TALK, "visit", address, PORT, str(times)).stdout
            assert json.loads(out) == {SERVICES[address]: times}
    wanted = {(f"{SAME}@10", "10.77.0.110"): 5, (f"{SAME}@20", "10.77.0.120"): 9}
    assert eventually(lambda: all(counted(net, since).get(key, 0) >= least for key, least in wanted.items())), (
        counted(net, since),
        net.log(),
    )
    assert counted(net, since).keys() == wanted.keys()


def test_frames_with_two_tags_pass_once(net: Net) -> None:
    source = TAGGED.client("t1").mac.replace(":", "")
    frame = f"ffffffffffff{source}88a8001e81000028{EXPERIMENT:04x}" + 46 * "00"
    # A host's kernel takes the outer tag off: what is left begins with the inner one.
    with net.background("t2", *RAW, "count", "t2-eth0", "8100", "4") as ear:
        assert ear.stdout is not None and ear.stdout.readline() == "ready\n"
        assert net.run("t1", *RAW, "say", "t1-eth0", *[frame] * FRAMES).returncode == 0
        assert int(ear.communicate(timeout=20)[0].split()[-1]) == FRAMES
