"""A settings file from what is there: libvirt's own test driver, switches of bytes, and a database."""

import socket
import struct
import time
import tomllib
from pathlib import Path
from threading import Thread

import pytest
from lab_on_paper import Forepath

from cpdb import Communication, Link, Node, NodeKind, Store, SwitchReport
from forepath.init.file import Found, settings_text, still_to_say
from forepath.init.machines import FoundHost, FoundInterface, FoundMachine, look_at_host
from forepath.init.network import FoundNetwork, FoundService, SwitchVisit, look_at_switches, read_network
from forepath.settings import Settings
from tools.bench.replayed_switch import ReplayedSwitch, message

PACKET_IN, PACKET_OUT, FLOW_MOD, GROUP_MOD, PORT_MOD, METER_MOD = 10, 13, 14, 15, 16, 29
TEST_URI = "test:///default"


def read(text: str) -> Settings:
    return Settings.model_validate(tomllib.loads(text))


def test_a_hypervisor_is_looked_at_by_reading_alone() -> None:
    pytest.importorskip("libvirt")
    found = look_at_host(TEST_URI)
    (machine,) = found.machines
    assert found.cpu_cores == 16 and machine.name == "test" and machine.running and machine.vcpus == 2
    assert machine.interfaces == (FoundInterface("aa:bb:cc:dd:ee:ff", "192.168.122.3"),)


def test_the_file_is_written_once_and_differences_are_shown(forepath: Forepath, tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    words = ("init", "--libvirt", TEST_URI, "--write", "made.toml")
    assert "is written" in forepath(*words).out
    made = (tmp_path / "made.toml").read_text()
    assert read(made).host[0].cpu_cores == 16 and "guess" in made
    assert "says what is there" in forepath(*words).out
    (tmp_path / "made.toml").write_text(made.replace("memory_mib = 3072", "memory_mib = 1024"))
    said = forepath(*words)
    assert "-memory_mib = 1024" in said.out and "+memory_mib = 3072" in said.out
    assert "memory_mib = 1024" in (tmp_path / "made.toml").read_text()
    assert forepath(*words, "--replace").code == 0 and (tmp_path / "made.toml").read_text() == made


def test_the_demos_settings(forepath: Forepath) -> None:
    settings = read(forepath("init", "--demo").out)
    assert {one.name for one in settings.virtual_ip} == {"shop", "search", "backup"} and settings.vm


@pytest.mark.parametrize(
    "words,told",
    [
        ((), "say where to look"),
        (("--libvirt", "qemu:///nowhere"), "--libvirt qemu:///nowhere"),
        (("--listen", "here"), "write HOST:PORT"),
        (("--listen", "127.0.0.1:1", "--database", "sqlite:///x.db"), "choose one"),
        (("--database", "sqlite:///none.db"), "none.db"),
    ],
)
def test_nowhere_to_look_ends_in_one_line(forepath: Forepath, words: tuple[str, ...], told: str) -> None:
    said = forepath("init", *words)
    assert said.code != 0 and told in said.err


def test_a_machines_interface_at_a_port_stands_for_its_host(empty: Store) -> None:
    machine = FoundMachine("web1", True, 2, 4, 1024, (FoundInterface("02:00:00:00:00:01"),))
    host = FoundHost("hv one", "qemu:///system", 8, 16_384, (machine,))
    nodes = (
        Node("dpid:0000000000000011", NodeKind.SWITCH, dpid=17),
        Node("10.0.0.5", NodeKind.HOST, "10.0.0.5", "02:00:00:00:00:01", None, "dpid:0000000000000011", 3),
        Node("10.0.0.9", NodeKind.HOST, "10.0.0.9", "02:00:00:00:00:09", None, "dpid:0000000000000011", 4),
    )
    links = (
        Link("10.0.0.5", 0, "dpid:0000000000000011", 3, 1.25e8),
        Link("10.0.0.9", 0, "dpid:0000000000000011", 4, None),
    )
    found = Found((host,), FoundNetwork(nodes, links, (FoundService("10.0.0.5", 12),)))
    text = settings_text(found)
    settings = read(text)
    assert {(one.a, one.b, one.capacity_mbit_per_s) for one in settings.link} == {
        ("hv-one", "dpid:0000000000000011", 1000.0),
        ("10.0.0.9", "dpid:0000000000000011", 1000.0),
    }
    assert [(one.name, one.kind, one.address) for one in settings.node][1:] == [
        ("10.0.0.9", "client", "10.0.0.9"),
        ("web1", "vm", "10.0.0.5"),
    ]
    assert settings.vm[0].host == "hv-one" and settings.vm[0].vcpus_max == 4 and settings.node[0].dpid == 17
    assert "# 12 sources speak to it" in text and '{ name = "web1-service"' in text and "guess: the ports" in text
    # Three lines of the file are changed, and it says what forepath is to serve.
    begin, meant, end = (f"# {one}" for one in ("virtual_ip = [", "  { name", "]"))
    lines = [line[2:] if line.startswith((begin, meant)) or line == end else line for line in text.splitlines()]
    (service,) = read("\n".join(lines).replace('"..."', '"10.0.9.1"')).virtual_ip
    assert (service.name, service.address, service.destination[0].mac) == (
        "web1-service",
        "10.0.9.1",
        "02:00:00:00:00:01",
    )
    assert not any(line.startswith("which port leads") for line in still_to_say(found))


def test_what_many_speak_to_is_a_suggestion(empty: Store) -> None:
    rows = [Communication(f"10.0.0.{n}", "10.0.1.1", None, 100.0, 1.0, 10, 1, 1) for n in range(5)]
    empty.facts.add_communications([*rows, Communication("10.0.0.1", "10.0.1.2", None, 100.0, 1.0, 10, 1, 1)])
    assert read_network(empty).services == (FoundService("10.0.1.1", 5),)


def test_switches_are_called_as_they_call_themselves_where_that_tells_them_apart(empty: Store) -> None:
    dpids = {"dpid:0000000000000051": 0x51, "dpid:0000000000000052": 0x52, "dpid:0000000000000053": 0x53, "edge": 0x54}
    empty.inventory.put_nodes([Node(name, NodeKind.SWITCH, dpid=dpid) for name, dpid in dpids.items()])
    empty.inventory.put_nodes([Node("10.0.0.9", NodeKind.HOST, "10.0.0.9", None, None, "dpid:0000000000000051", 4)])
    empty.inventory.put_links([Link("dpid:0000000000000051", 1, "dpid:0000000000000052", 2, None)])
    calls = {0x51: "rack1", 0x52: "br0", 0x53: "br0", 0x54: "br-edge"}
    reports = [SwitchReport(dpid, name, {1: f"{name}-eth1"}, 100.0) for dpid, name in calls.items()]
    empty.wanted.observe(reports)
    found = read_network(empty)
    names = [one.name for one in found.switches if one.dpid in calls]
    assert names == ["rack1", "dpid:0000000000000052", "dpid:0000000000000053", "edge"]
    text = settings_text(Found((), found))
    links = {(one.a, one.b) for one in read(text).link}
    assert {("rack1", "dpid:0000000000000052"), ("rack1", "10.0.0.9")} <= links
    assert "# rack1-eth1" in text


class CabledSwitch(ReplayedSwitch):
    """Its one port leads to that of the `other`: what is sent out there comes in here, and is handed up."""

    def __init__(self, port: int, dpid: int, flows: int) -> None:
        super().__init__(port, dpid, flows)
        self.other: CabledSwitch | None = None
        self.heard: list[int] = []

    def answer(self, kind: int, xid: int, body: bytes) -> bytes:
        self.heard.append(kind)
        if kind == PACKET_OUT and self.other is not None:
            length = int.from_bytes(body[8:10])
            frame = body[16 + length :]
            match = struct.pack("!HHII4x", 1, 12, 0x80000004, 1)
            head = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), 1, 0, 0)
            self.other._socket.sendall(message(PACKET_IN, 0, head + match + b"\0\0" + frame))
        return super().answer(kind, xid, body)


def test_switches_that_connect_tell_their_links_and_get_no_rule(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    switches: list[CabledSwitch] = []

    def connect() -> None:
        until = time.monotonic() + 60
        while len(switches) < 2 and time.monotonic() < until:
            try:
                switches.append(CabledSwitch(port, 0x11 + len(switches), 8))
            except OSError:
                time.sleep(0.1)
        switches[0].other, switches[1].other = switches[1], switches[0]
        threads = [Thread(target=one.serve) for one in switches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    connecting = Thread(target=connect)
    connecting.start()
    found = look_at_switches(SwitchVisit("127.0.0.1", port, 15.0), lambda _: None)
    connecting.join()
    for one in switches:
        one.close()
    assert [one.dpid for one in found.switches] == [0x11, 0x12]
    assert [(one.a_port, one.b_port) for one in found.links] == [(1, 1)]
    assert found.services and found.services[0].sources == 8
    forbidden = {FLOW_MOD, GROUP_MOD, PORT_MOD, METER_MOD}
    assert all(PACKET_OUT in one.heard and not forbidden & set(one.heard) for one in switches)
    settings = read(settings_text(Found((), found)))
    assert len(settings.link) == 1 and len([one for one in settings.node if one.kind == "switch"]) == 2


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Exception, match="listen"):
        look_at_switches(SwitchVisit("127.0.0.1", taken.getsockname()[1], 20.0), lambda _: None)
