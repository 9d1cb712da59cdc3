"""The wrapper of Open vSwitch's library on a real database, with a thread in the place of the switch."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpdb import DriverError
from orchestrator.act.ovsdb import SwitchDatabase

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
SEARCH = "/usr/bin:/usr/sbin:/bin:/sbin"
pytestmark = pytest.mark.skipif(
    not SCHEMA.exists() or shutil.which("ovsdb-server", path=SEARCH) is None, reason="Open vSwitch is not installed"
)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20, env={"PATH": SEARCH}).stdout


class Switches:
    """A database of switches with one port, and whether somebody carries out what it says."""

    def __init__(self, directory: Path) -> None:
        self.remote = f"unix:{directory}/db.sock"
        file = str(directory / "conf.db")
        run("ovsdb-tool", "create", file, str(SCHEMA))
        words = ["ovsdb-server", file, f"--remote=p{self.remote}", f"--unixctl={directory}/ctl", "-vconsole:off"]
        self._server = subprocess.Popen(words, env={"PATH": SEARCH}, cwd=directory)
        while not (directory / "db.sock").exists():
            assert self._server.poll() is None
        self.vsctl("init")
        self.vsctl("add-br", "br0", "--", "add-port", "br0", "p1")
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow)

    def vsctl(self, *words: str) -> str:
        return run("ovs-vsctl", f"--db={self.remote}", "--no-wait", *words)

    def told(self, table: str, record: str, column: str) -> str:
        return self.vsctl("get", table, record, column).strip()

    def follow(self) -> None:
        """From now on a switch does what the database says."""
        self._follower.start()

    def _follow(self) -> None:
        while not self._over.wait(0.05):
            self.vsctl("set", "Open_vSwitch", ".", f"cur_cfg={self.told('Open_vSwitch', '.', 'next_cfg')}")

    def close(self) -> None:
        self._over.set()
        if self._follower.ident is not None:
            self._follower.join()
        self._server.kill()
        self._server.wait(10)


@pytest.fixture
def switches(tmp_path: Path) -> Iterator[Switches]:
    made = Switches(tmp_path)
    yield made
    made.close()


@pytest.fixture
def database(switches: Switches) -> Iterator[SwitchDatabase]:
    made = SwitchDatabase(switches.remote)
    yield made
    made.close()


def names(database: SwitchDatabase) -> set[str]:
    return {row.name for row in database.rows("Port")}


def test_rows_are_read_and_changed_in_one_connection(switches: Switches, database: SwitchDatabase) -> None:
    switches.follow()
    assert names(database) == {"br0", "p1"}
    with database.changing() as add:
        queue = add("Queue")
        queue.other_config = {"min-rate": "8"}
        qos = add("QoS")
        qos.type, qos.queues = "linux-htb", {1: queue}
        next(row for row in database.rows("Port") if row.name == "p1").qos = [qos]
    assert [row.other_config for row in database.rows("Queue")] == [{"min-rate": "8"}]
    assert switches.told("QoS", switches.told("Port", "p1", "qos"), "type") == "linux-htb"
    with database.changing():
        pass


def test_what_another_changed_meanwhile_is_not_overwritten(switches: Switches, database: SwitchDatabase) -> None:
    switches.follow()
    port = next(row for row in database.rows("Port") if row.name == "p1")
    switches.vsctl("set", "Port", "p1", "qos=@q", "--", "--id=@q", "create", "QoS", "type=linux-hfsc")
    with pytest.raises(DriverError, match="try again"), database.changing() as add:
        port.verify("qos")
        port.qos = [add("QoS")]
    assert "linux-hfsc" in switches.vsctl("list", "QoS")


def test_a_switch_that_carries_nothing_out_is_told_in_time(switches: Switches) -> None:
    database = SwitchDatabase(switches.remote, answer_s=0.5)
    with pytest.raises(DriverError, match=r"did not answer within 0\.5 s"), database.changing() as add:
        add("Queue").other_config = {"min-rate": "8"}
    assert len(database.rows("Queue")) == 1
    database.close()


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(DriverError, match="unix:/nonexistent: No such file") as caught:
        SwitchDatabase("unix:/nonexistent")
    assert "\n" not in str(caught.value)
