"""Real Open vSwitch over TLS: only with its own certificate, put out when that is revoked, back with another."""

import datetime
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, MANAGER, Net, eventually, network

from forepath import authority

pytestmark = pytest.mark.lab
# One Open vSwitch is all switches here, and has one certificate.
OVS = "lab-ovs"


def vsctl(*words: object) -> str:
    argv = ["ovs-vsctl", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout


def connected() -> int:
    return vsctl("--columns=is_connected", "list", "controller").count("true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, now = tmp_path_factory.mktemp("tls"), datetime.datetime.now(datetime.UTC)
    authority.init_authority(made, "lab", 5, now)
    authority.issue(made, "controller", ["127.0.0.1"], 5, now)
    for name in (OVS, "mallory"):
        authority.issue(made, name, [], 5, now)
    return made


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Net]:
    with network(tmp_path_factory.mktemp("net")) as made:
        paths = {name: folder / file for name, file in zip(
            ("certificate", "key", "authority", "revoked"),
            ("controller.pem", "controller.key", "ca.pem", "revoked.pem"), strict=True)}  # fmt: skip
        lines = ["[tls]", *(f'{name} = "{path}"' for name, path in paths.items())]
        for one in LAYOUT.switches:
            lines.append(f'[[node]]\nname = "{one.name}"\nkind = "switch"\ndpid = {one.dpid}\ncertificate = "{OVS}"')
        file = folder / "controller.toml"
        file.write_text("\n".join(lines))
        environment = {"FOREPATH_DATABASE_URL": made.url, "FOREPATH_SETTINGS": str(file)}
        made.process = made.lab.popen("controller", [str(MANAGER), "ryu_apps.controller"], environment)
        yield made


def show(folder: Path, name: str) -> None:
    vsctl("set-ssl", folder / f"{name}.key", folder / f"{name}.pem", folder / "ca.pem")
    for one in LAYOUT.switches:
        vsctl("set-controller", one.name, "ssl:127.0.0.1:6653", "--", "set", "controller", one.name, "max_backoff=1000")


def alarms(net: Net) -> set[str]:
    return {one.key for one in net.store.alarms.open() if one.kind == "stranger"}


def test_open_vswitch_is_let_in_by_its_certificate_put_out_when_revoked_and_let_in_renewed(
    net: Net, folder: Path
) -> None:
    show(folder, "mallory")
    assert eventually(lambda: "certificate of another" in alarms(net), 30), net.log()
    time.sleep(1)
    assert "switch connected" not in net.log()
    show(folder, OVS)
    assert eventually(lambda: connected() == len(LAYOUT.switches), 30), net.log()
    assert eventually(lambda: net.pings("c1", ADDRESS["s1"]), 30), net.log()
    now = datetime.datetime.now(datetime.UTC)
    authority.revoke(folder, OVS, now)
    assert eventually(lambda: "certificate revoked" in alarms(net), 20), net.log()
    assert eventually(lambda: connected() == 0, 20), net.log()
    assert net.pings("c1", ADDRESS["s1"], 3)
    # Open vSwitch reads its files again by itself.
    authority.renew(folder, OVS, 5, now)
    assert eventually(lambda: connected() == len(LAYOUT.switches), 40), net.log()
    assert eventually(lambda: net.pings("c1", ADDRESS["s2"]), 30), net.log()
