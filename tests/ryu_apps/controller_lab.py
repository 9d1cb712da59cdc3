"""A small real network for tests: Open vSwitch leaf-spine, clients, servers on other leaves, our controller."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpdb import Destination, Link, Node, NodeKind, Store, VirtualIp, open_store
from forepath.demo.layout import ClientSpec, LabLayout
from ryu_apps import framework_name
from tools.lab.lab import Lab

VIP = "10.77.0.101"
MANAGER = Path(sys.executable).with_name("ryu-manager")
# An application of other people, which forwards by itself
LEARNING_SWITCH = {
    "ryu": "ryu.app.simple_switch_13",
    "os-ken": str(Path(__file__).with_name("learning_switch.py")),
}[framework_name()]
LAYOUT = LabLayout(
    clients=(
        ClientSpec("c1", "10.77.0.1", "02:00:0a:4d:00:01", "leaf1", 11),
        ClientSpec("c2", "10.77.0.2", "02:00:0a:4d:00:02", "leaf1", 12),
        ClientSpec("s1", "10.77.0.11", "02:00:0a:4d:00:11", "leaf2", 11),
        ClientSpec("s2", "10.77.0.12", "02:00:0a:4d:00:12", "leaf3", 11),
    )
)
_PIPED: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
ADDRESS = {client.name: client.address for client in LAYOUT.clients}


def declare(store: Store) -> None:
    """The inventory of LAYOUT as settings would declare it."""
    store.inventory.put_nodes(Node(one.name, NodeKind.SWITCH, dpid=one.dpid) for one in LAYOUT.switches)
    store.inventory.put_nodes(Node(one.name, NodeKind.CLIENT, one.address, one.mac) for one in LAYOUT.clients)
    store.inventory.put_links(Link(a, p, b, q, 2.5e6, declared=True) for a, p, b, q in LAYOUT.fabric_ports())
    destinations = tuple(
        Destination(name, ADDRESS[name], LAYOUT.client(name).mac, weight) for name, weight in (("s1", 100), ("s2", 0))
    )
    store.inventory.declare_virtual_ips([VirtualIp(VIP, "shop", 10, destinations)])


def eventually(check: Callable[[], object], within_s: float = 15.0) -> bool:
    """Whether `check` becomes true in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.1)
    return bool(check())


@dataclass
class Net:
    """The lab, its database, and ways to act in it."""

    lab: Lab
    store: Store
    url: str
    process: subprocess.Popen[bytes] | None = None
    # Settings of the controller beyond the database, by their names below [controller], as TOML values
    settings: dict[str, str] = field(default_factory=dict)

    def controller(self, *apps: str) -> subprocess.Popen[bytes]:
        """Starts ryu-manager with these applications."""
        argv = [str(MANAGER), *(apps or ("ryu_apps.controller",)), "--ofp-listen-host", "127.0.0.1"]
        argv += ["--ofp-tcp-listen-port", "6653"]
        file = self.lab.run_directory / "controller.toml"
        file.write_text("".join(f"controller.{name} = {value}\n" for name, value in self.settings.items()))
        environment = {"FOREPATH_DATABASE_URL": self.url, "FOREPATH_SETTINGS": str(file)}
        self.process = self.lab.popen("controller", argv, environment)
        return self.process

    def kill_controller(self) -> None:
        """The controller dies without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def controlled(self) -> bool:
        """Whether a controller is running."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """What all controllers logged so far."""
        return (self.lab.run_directory / "controller.log").read_text()

    def run(self, client: str, *argv: str, within_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Runs a command in a client's namespace."""
        process = self.lab.fabric.client_popen(
            client, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            out, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        return subprocess.CompletedProcess(argv, process.returncode, out, "")

    def pings(self, client: str, address: str, count: int = 1) -> bool:
        """Whether `client` gets all answers."""
        return self.run(client, "ping", "-c", str(count), "-i", "0.2", "-W", "2", address).returncode == 0

    @contextlib.contextmanager
    def background(self, client: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """A process in a client's namespace, ended afterwards."""
        process = self.lab.fabric.client_popen(
            client, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def network(directory: Path, layout: LabLayout = LAYOUT) -> Iterator[Net]:
    """A running network without controller; everything is gone afterwards. Only LAYOUT is declared."""
    url = f"sqlite:///{directory / 'cpdb.db'}"
    store = open_store(url)
    if layout is LAYOUT:
        declare(store)
    lab = Lab(layout, run_directory=directory / "run", vms=False)
    try:
        lab.start()
        yield Net(lab, store, url)
    finally:
        lab.stop()
        store.close()
