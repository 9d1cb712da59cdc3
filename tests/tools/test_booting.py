"""A machine that stops while it boots is told at once; one that is slow, or moves, is waited for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest

from cpdb.errors import LabError
from forepath.demo.layout import HypervisorSpec, LabLayout, LabVm
from tools.lab.assets import Assets
from tools.lab.hypervisors import HypervisorPlace
from tools.lab.machines import Machines, last_words, stopped_on

State = tuple[int, int] | None
BOOTED = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
INCOMING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
PANICKED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
KILLED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
CRASHED = (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED)
MOVED_AWAY = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
NEVER_STARTED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN)


@pytest.mark.parametrize(
    ("seen", "host"),
    [
        ({"hA": PANICKED}, "hA"),
        ({"hB": KILLED}, "hB"),
        ({"hA": CRASHED}, "hA"),
        ({"hA": MOVED_AWAY, "hB": PANICKED}, "hB"),
        ({"hA": BOOTED}, None),
        ({"hA": BOOTED, "hB": INCOMING}, None),
        ({"hA": PANICKED, "hB": INCOMING}, None),
        ({"hA": PANICKED, "hB": BOOTED}, None),
        ({"hA": MOVED_AWAY}, None),
        ({"hA": NEVER_STARTED}, None),
        ({"hA": PANICKED, "hB": None}, None),
        ({"hA": None}, None),
        ({}, None),
    ],
)
def test_only_what_runs_nowhere_has_stopped(seen: Mapping[str, State], host: str | None) -> None:
    assert stopped_on(seen) == host


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ("", ""),
        ("\r\n  \n", ""),
        ("loading\r\ninit: no such file\r\n\n", "init: no such file"),
        (
            "[    1.5] Kernel panic - not syncing: no root\r\n[    1.6]  <TASK>\r\n[    1.7] Kernel Offset: disabled",
            "Kernel panic - not syncing: no root",
        ),
        ("[  2.0] BUG: unable to handle\n[  2.1] Oops: 0002\n[  2.2] more", "Oops: 0002"),
        ("\x1b\x07one\x00 line", "one line"),
    ],
)
def test_the_console_is_quoted_where_it_tells_most(tmp_path: Path, console: str, words: str) -> None:
    path = tmp_path / "g.console"
    path.write_bytes(console.encode())
    assert last_words(path) == words


def test_of_a_long_console_only_the_end_is_read_and_a_missing_one_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g.console"
    path.write_bytes(b"Kernel panic of long ago\n" + b"\xff" * 100_000 + b"\nthe end " + b"x" * 1000)
    assert last_words(path).startswith("the end xxx")
    assert len(last_words(path)) <= 200
    assert last_words(tmp_path / "none") == ""


@dataclass
class Host:
    """A libvirtd that knows at most one machine, whose states it tells one after the other, the last for ever."""

    states: list[State | str] = field(default_factory=list)
    asked: int = 0

    def lookupByName(self, _name: str) -> "Host":  # noqa: N802
        return self

    def state(self) -> tuple[int, int]:
        now = self.states[min(self.asked, len(self.states) - 1)]
        self.asked += 1
        if isinstance(now, tuple):
            return now
        error = libvirt.libvirtError("no answer")
        error.err = (libvirt.VIR_ERR_NO_DOMAIN if now == "absent" else libvirt.VIR_ERR_RPC, 0, "", 0, "", "", "", 0, 0)
        raise error

    def isActive(self) -> bool:  # noqa: N802
        return False  # for the guest never answers here


def machines(tmp_path: Path, **hosts: Host) -> Machines:
    layout = LabLayout(vms=(LabVm("g1", "hA", "10.77.0.31", "52:54:00:77:00:1f", 0.5),))
    places: dict[str, Any] = {}
    for name in hosts:
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / name).mkdir()
        (tmp_path / name / "log-libvirt").symlink_to(tmp_path / "logs" / name)
        places[name] = HypervisorPlace(HypervisorSpec(name, "leaf1", 1, "192.0.2.1"), tmp_path / name, "group")
    made = Machines(layout, places, Assets(tmp_path, tmp_path, tmp_path, None))
    made.connections.update(hosts)
    return made


def test_the_wait_ends_with_what_the_console_says(tmp_path: Path) -> None:
    one = machines(tmp_path, hA=Host([PANICKED]), hB=Host(["absent"]))
    console = tmp_path / "logs" / "hA" / "g1.console"
    console.write_text("[    1.5] Kernel panic - not syncing: no root\r\n[    1.7] Kernel Offset: disabled\r\n")
    with pytest.raises(LabError) as caught:
        one.wait_serving(60.0)
    panic = "Kernel panic - not syncing: no root"
    assert str(caught.value) == f"g1 stopped on hA while booting: {panic} (see {console})"


def test_a_machine_without_a_word_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="g1 stopped on hB while booting: its console is empty"):
        machines(tmp_path, hA=Host(["absent"]), hB=Host([KILLED])).wait_serving(60.0)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ([BOOTED], ["absent"]),
        # An old definition is all that the one host had when it was asked; then the machine came from the other.
        ([PANICKED, BOOTED], ["absent"]),
        ([PANICKED], ["silent"]),
        ([PANICKED, "absent"], ["absent", PANICKED, "absent"]),
    ],
    ids=["slow", "moving", "not known", "not twice on the same host"],
)
def test_the_others_are_waited_for(tmp_path: Path, here: list[State | str], there: list[State | str]) -> None:
    with pytest.raises(LabError, match="did not come up within"):
        machines(tmp_path, hA=Host(here), hB=Host(there)).wait_serving(0.5)
