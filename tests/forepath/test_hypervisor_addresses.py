"""What is wrong with a hypervisor's address: one line each, and never a long wait."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from forepath.hypervisor_addresses import arrival_problem, connection_problem, explained, host_problems, shape_problem


@dataclass(frozen=True)
class Declared:
    name: str
    uri: str
    migration_uri: str | None = None


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
        "qemu+ssh://root@hA/system",
        "qemu+ssh://root@[fd00::1]:2222/system?keyfile=/etc/forepath/id",
        "qemu+tls://hA.example/system?pkipath=/etc/forepath/pki",
        "qemu+tcp://10.0.0.1:16509/system",
        "test:///default",
    ],
)
def test_well_formed_addresses_pass(uri: str) -> None:
    assert shape_problem(uri) is None


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hA", "is no address"),
        ("qemu+shh://root@hA/system", "unknown transport 'shh'"),
        ("qemu+ssh:///system", "names no host"),
        ("qemu+tls:///system", "names no host"),
        ("qemu+ssh://root@hA", "must end in /system"),
        ("qemu+tls://hA/sytem", "must end in /system"),
        ("qemu+ext:///system", "command=PROGRAM"),
    ],
)
def test_what_is_written_wrongly_is_said_without_connecting(uri: str, words: str) -> None:
    found = shape_problem(uri)
    assert found is not None
    assert words in found
    assert "\n" not in found


def test_an_address_that_only_this_machine_knows_is_no_way_for_others_to_arrive() -> None:
    here, there = Declared("hA", "qemu:///system"), Declared("hB", "qemu+ssh://root@hB/system")
    found = arrival_problem(here, [there])
    assert found is not None and "migration_uri" in found
    assert arrival_problem(here, []) is None
    assert arrival_problem(there, [here]) is None
    assert arrival_problem(Declared("hA", "qemu:///system", "qemu+tls://hA/system"), [there]) is None
    assert arrival_problem(Declared("hA", "qemu:///system", "qemu+tls:///system"), [there]) is not None


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("Cannot read CA certificate '/etc/pki/CA/cacert.pem': No such file or directory", "pkipath="),
        ("Cannot read private key '/etc/pki/libvirt/private/clientkey.pem': No such file", "own certificate"),
        ("Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied", "group libvirt"),
        ("Cannot recv data: root@hA: Permission denied (publickey): Connection reset", "ssh-copy-id"),
        ("Cannot recv data: Host key verification failed.\r\n: Connection reset by peer", "by hand with ssh"),
        ("The certificate hasn't got a known issuer", "of one CA"),
        ("unable to connect to server at 'hA:16514': No route to host", "switched on"),
    ],
)
def test_what_libvirt_says_comes_with_what_helps(said: str, helps: str) -> None:
    line = explained(said)
    assert said.split(":", maxsplit=1)[0] in line
    assert helps in line
    assert "\n" not in line and "\r" not in line


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    pytest.importorskip("libvirt")
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_host_that_says_nothing_costs_only_the_limit(listener: socket.socket) -> None:
    began = time.monotonic()
    found = connection_problem(f"qemu+tcp://127.0.0.1:{listener.getsockname()[1]}/system", answer_s=0.5)
    assert found is not None and "no answer within 0.5 s" in found
    assert time.monotonic() - began < 30


def test_a_host_that_refuses_is_told_from_one_that_is_off(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    found = connection_problem(f"qemu+tcp://127.0.0.1:{port}/system")
    assert found is not None and "nothing listens there" in found


@pytest.mark.parametrize(
    ("script", "helps"),
    [
        ("echo 'root@hA: Permission denied (publickey).' >&2; exit 255", "ssh-copy-id"),
        ("echo 'Host key verification failed.' >&2; exit 255", "by hand with ssh"),
        ("echo 'ssh: connect to host hA port 22: No route to host' >&2; exit 255", "switched on"),
    ],
)
def test_what_ssh_complains_of_comes_through(tmp_path: Path, script: str, helps: str) -> None:
    pytest.importorskip("libvirt")
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\n{script}\n")
    ssh.chmod(0o755)
    found = connection_problem(f"qemu+ssh://root@hA/system?command={ssh}", answer_s=20)
    assert found is not None and helps in found


def test_ssh_that_is_not_there_and_certificates_that_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    found = connection_problem(f"qemu+ssh://root@hA/system?command={tmp_path}/none", answer_s=20)
    assert found is not None and "install the ssh client" in found
    found = connection_problem(f"qemu+tls://127.0.0.1/system?pkipath={tmp_path}")
    assert found is not None and str(tmp_path) in found and "pkipath=" in found


def test_hosts_are_named_and_good_ones_are_not_mentioned(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    (tmp_path / "n1.xml").write_text(
        "<node><domain type='test'><name>v</name><memory unit='MiB'>64</memory>"
        "<os><type>hvm</type></os></domain></node>"
    )
    good = Declared("h1", f"test://{tmp_path}/n1.xml")
    bad = Declared("h2", "qemu+unix:///system?socket=/nowhere", "qemu+tls://h2/system")
    lines = list(host_problems([good, bad]))
    assert len(lines) == 1
    assert lines[0].startswith("host h2: qemu+unix:///system?socket=/nowhere: ")


def test_machines_that_no_host_has_or_that_bear_one_name_are_found(tmp_path: Path, forepath: Forepath) -> None:
    domain = (
        "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"
    )
    uuid = "4a3b0000-0000-4000-8000-0000000000{:02d}"
    hosts = {"hA": [("虚拟机1", 1), ("dup1", 2)], "hB": [("dup1", 3)]}
    text = ""
    for host, own in hosts.items():
        domains = "".join(domain.format(name, uuid.format(number)) for name, number in own)
        (tmp_path / f"{host}.xml").write_text(f"<node>{domains}</node>", encoding="utf-8")
        text += f'[[host]]\nname = "{host}"\nuri = "test://{tmp_path}/{host}.xml"\ncpu_cores = 8\nmemory_mib = 1024\n'
    for name in ("dup1", "nosuchvm", "虚拟机1"):
        text += f'[[vm]]\nname = "{name}"\ncpu_cores_base = 0.5\ncpu_cores_max = 2\n'
    (tmp_path / "forepath.toml").write_text(text, encoding="utf-8")
    problems = forepath("check", "--json", "-").json()["problems"]
    assert [line for line in problems if line.startswith("vm ")] == [
        "vm 'dup1': several machines bear this name, on hA and hB; none is touched until one is renamed",
        "vm 'nosuchvm': no declared host has a machine of this name; define it there, or leave it out here",
    ]
