"""What is broken: real switches, two controllers, two predictors and two orchestrators on one database, and traffic."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpdb import MBIT, MIB, Store, open_store
from forepath.demo.layout import ClientSpec, LabLayout, LabVm
from forepath.demo.scene import as_toml
from forepath.settings import Settings, declare
from tools.chaos.hosts import ChaosHosts, has_hosts
from tools.lab import stage
from tools.lab.lab import Lab
from tools.lab.postgres import PostgresServer, private_postgres

VIP = "10.77.0.101"
LAYOUT = LabLayout(
    clients=(
        ClientSpec("c1", "10.77.0.1", "02:00:0a:4d:00:01", "leaf1", 11),
        ClientSpec("c2", "10.77.0.2", "02:00:0a:4d:00:02", "leaf1", 12),
        ClientSpec("s1", "10.77.0.11", "02:00:0a:4d:00:11", "leaf2", 11),
    ),
    vms=(
        LabVm("m1", "hA", "10.77.0.31", "52:54:00:77:00:1f", 0.2),
        LabVm("m2", "hB", "10.77.0.32", "52:54:00:77:00:20", 0.2),
    ),
    services=(),
)
SWITCHES = tuple(switch.name for switch in LAYOUT.switches)
PORTS = (6653, 6654)
# Somebody else's, which nobody may touch
FOREIGN = "cookie=0x77,table=3,priority=1,udp,tp_dst=4242,actions=drop"
_DAEMON = Path("/run/openvswitch/ovs-vswitchd.pid")
_FOREPATH = (sys.executable, "-m", "forepath")
_MANAGER = str(Path(sys.executable).with_name("ryu-manager"))
PROGRAMS = (
    *(f"controller-{port}" for port in PORTS),
    *(f"{kind}-{number}" for kind in ("predictor", "orchestrator") for number in (1, 2)),
)


def run(*words: str) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout


def scene_settings(database: Mapping[str, Any], state: Path, uris: Mapping[str, str]) -> Settings:
    """The layout as somebody would write it down; `uris` are the addresses of its hosts' libvirt, if it has hosts."""
    ends = [(a, p, b, q, LAYOUT.fabric_bytes_per_s / MBIT) for a, p, b, q in LAYOUT.fabric_ports()]
    ends += [(one.switch, one.port, one.name, 0, 100.0) for one in LAYOUT.clients]
    hosts = [one for one in LAYOUT.hypervisors if one.name in uris]
    ends += [(one.switch, one.port, one.name, 0, one.access_bytes_per_s / MBIT) for one in hosts]
    server = LAYOUT.client("s1")
    destination = {"name": "s1", "address": server.address, "mac": server.mac}
    nodes: list[dict[str, Any]] = [{"name": one.name, "kind": "switch", "dpid": one.dpid} for one in LAYOUT.switches]
    nodes += [{"name": one.name, "kind": "client", "address": one.address, "mac": one.mac} for one in LAYOUT.clients]
    links = [{"a": a, "a_port": p, "b": b, "b_port": q, "capacity_mbit_per_s": c} for a, p, b, q, c in ends]
    shop = {"name": "shop", "address": VIP, "priority": 1, "destination": [destination]}
    found = {
        "database": database,
        "controller": {"storage": {"state_dir": str(state)}},
        "node": nodes,
        "link": links,
        "virtual_ip": [shop],
        "host": [
            {"name": one.name, "uri": uris[one.name], "cpu_cores": one.cpu_cores, "memory_mib": one.memory_bytes // MIB}
            for one in hosts
        ],
        "vm": [
            {"name": one.name, "cpu_cores_base": one.quota_cores, "cpu_cores_max": one.quota_cores, "host": one.host}
            for one in LAYOUT.vms
            if hosts
        ],
    }
    return Settings.model_validate(found)


def add_foreign() -> None:
    """Another program's rule in a switch."""
    run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", "leaf1", FOREIGN)


@dataclass
class Scene:
    """The lab in `folder`, with a small disk of its own for the database (SQLite) and for what waits to be stored.

    Use `start`, and `stop` in any case. `clock` is the file that sets the clock of all that runs here. Hosts with
    machines are there where QEMU is.
    """

    folder: Path
    clock: Path
    on_postgres: bool = False
    disk_mb: int = 64
    retention: Mapping[str, float] = field(default_factory=dict)
    lab: Lab = field(init=False)
    hosts: ChaosHosts = field(init=False)
    store: Store = field(init=False)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    server: PostgresServer | None = None
    _closing: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Builds everything and lets traffic begin. Raises LabError off stage."""
        stage.prefix()
        self.disk.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "tmpfs", str(self.disk))
        if self.on_postgres:
            self.server = self._closing.enter_context(private_postgres())
        url = self.server.url if self.server else f"sqlite:///{self.disk / 'cpdb.db'}"
        self.lab = Lab(LAYOUT, run_directory=self.folder / "lab", vms=has_hosts())
        self.hosts = ChaosHosts(self.lab)
        self.lab.start()
        settings = scene_settings({"url": url, **self.retention}, self.disk / "state", self.lab.uris)
        (self.folder / "forepath.toml").write_text(as_toml(settings), encoding="utf-8")
        self.store = open_store(settings.database.url)
        declare(settings, self.store)
        for program in PROGRAMS:
            self.begin(program)
        self.connect(*PORTS)
        add_foreign()
        python = (sys.executable, "-m", "tools.chaos.talker")
        self.lab.client_popen("s1", [*python, "serve", LAYOUT.client("s1").address])
        self.lab.client_popen("c1", [*python, "talk", VIP, str(self.folder)])
        self.lab.client_popen("c2", ["ping", "-i", "1", "-q", VIP])

    def stop(self) -> None:
        """Takes everything down; safe after a failed start."""
        for name in [*self.running]:
            self.end(name, signal.SIGKILL)
        with suppress(AttributeError):
            self.lab.stop()
            self.store.close()
        self._closing.close()
        subprocess.run(["umount", "-l", str(self.disk)], capture_output=True, check=False)

    @property
    def disk(self) -> Path:
        """Where the database lies."""
        return self.folder / "disk"

    # ---- processes

    def begin(self, name: str) -> None:
        """Starts a program."""
        kind, _, number = name.partition("-")
        words = {"predictor": ("predict",), "orchestrator": ("orchestrate", "--act")}
        argv = [_MANAGER, "ryu_apps.controller", "--ofp-tcp-listen-port", number]
        if kind in words:
            argv = [*_FOREPATH, *words[kind]]
        environment = {"FOREPATH_SETTINGS": str(self.folder / "forepath.toml")}
        self.running[name] = self.lab.popen(name, ["nice", "-n", "2", *argv] if kind in words else argv, environment)

    def end(self, name: str, number: signal.Signals) -> None:
        """Ends a program by its recorded pid, in order or not."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, number)
        process.wait(timeout=20)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Stops a program or lets it go on."""
        os.kill(self.running[name].pid, number)

    def working(self, kind: str) -> str | None:
        """The name of the program that has the lease of its kind; None while nobody has."""
        now = self.store.leases.now()
        if kind == "controller":
            names = {held.holder for held in self.store.leases.masters(now).values()}
            return "controller-" + re.findall(r":(\d+)/", min(names))[0] if names else None
        held = self.store.leases.holder(kind, now)
        pid = int(held.holder.split("/")[1]) if held else 0
        return next((name for name, one in self.running.items() if pid and one.pid == pid), None)

    # ---- the network

    def connect(self, *ports: int, switches: Sequence[str] = SWITCHES) -> None:
        """To which controllers switches are connected."""
        for switch in switches:
            run("ovs-vsctl", "set-controller", switch, *(f"tcp:127.0.0.1:{port}" for port in ports))

    def restart_switches(self) -> None:
        """The switches' daemon dies and comes back, without any rule."""
        argv = Path(f"/proc/{_DAEMON.read_text().strip()}/cmdline").read_bytes().decode().split("\0")[:-1]
        os.kill(int(_DAEMON.read_text()), signal.SIGKILL)
        with suppress(FileNotFoundError):
            _DAEMON.unlink()
        subprocess.run(argv, check=True, timeout=30)
        add_foreign()

    def rules(self, switch: str, *filters: str) -> list[str]:
        """What a switch holds."""
        text = run("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", switch, *filters)
        return [line for line in text.splitlines() if "cookie=" in line]

    # ---- traffic

    def quiet(self, rests: bool) -> None:
        """Whether nothing is said for a while."""
        file = self.folder / "quiet"
        if rests:
            file.touch()
        else:
            file.unlink(missing_ok=True)

    def echo(self) -> tuple[float, int]:
        """When the last answer came, and how many connections that took."""
        try:
            found = json.loads((self.folder / "echo").read_text())
        except FileNotFoundError:
            return 0.0, 0
        return float(found["at"]), int(found["connections"])

    def counted(self) -> int:
        """Bytes that c1's interface has sent."""
        enter = ["mnexec", "-a", str(self.lab.fabric.client_pid("c1")), "cat", "/proc/net/dev"]
        line = next(line for line in run(*enter).splitlines() if "c1-eth0" in line)
        return int(line.split(":")[1].split()[8])

    def told(self) -> int:
        """Bytes from c1 to the virtual IP by the database."""
        rows = self.store.facts.communications(0.0)
        return sum(row.bytes for row in rows if (row.source, row.virtual_ip) == ("c1", VIP))

    def is_read(self) -> bool:
        """Whether c1's switch was read a moment ago."""
        now = time.time()
        return any(one.observer == "switch/leaf1" for one in self.store.facts.batches(0, now - 2.5))
