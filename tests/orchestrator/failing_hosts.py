"""Two hypervisor hosts with real QEMU guests and nothing else, and the ways in which such hosts break."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import libvirt

from cpdb import LabError
from forepath.demo.layout import LabLayout, LabVm
from orchestrator import HostSpec
from tools.lab import hypervisors
from tools.lab.assets import load_assets
from tools.lab.hypervisors import LIBVIRTD, QEMU
from tools.lab.machines import Machines

GIB = 1 << 30
HOSTS = ("hA", "hB")


def guest(name: str, number: int, host: str = "hA") -> LabVm:
    """A machine whose CPU limit is half a core."""
    return LabVm(name, host, f"10.77.0.{number}", f"52:54:00:77:00:{number:02x}", 0.5)


GUESTS = (guest("g1", 31), guest("g2", 32))


def until(what: str, true: Callable[[], Any], limit_s: float = 20.0, look_every_s: float = 0.05) -> Any:
    """The first true answer; AssertionError naming `what` when none comes."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(look_every_s)
    raise AssertionError(f"not within {limit_s:g} s: {what}")


class FailingHosts:
    """hA with two guests, hB with none; on a stage, as a context manager."""

    def __init__(self, directory: Path, guests: tuple[LabVm, ...] = GUESTS) -> None:
        self.directory = directory
        self.layout = LabLayout(vms=guests)
        self.places = hypervisors.places(self.layout)
        self.machines = Machines(self.layout, self.places, load_assets())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            hypervisors.wire(self.layout, lambda _switch, _device: None)
            for name in HOSTS:
                self.power_on(name)
            self.machines.boot()
            self.machines.wait_serving()
            self.machines.limit_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.machines.close()
        for name in list(self.processes):
            self.power_cut(name)
        hypervisors.unwire(self.layout)

    # -- looking

    def specs(self) -> list[HostSpec]:
        """The two hosts as the orchestrator is told of them."""
        return [HostSpec(name, one.uri, one.migration_uri, 2.0, 2 * GIB) for name, one in self.places.items()]

    def answers(self, vm: str, host: str | None = None) -> str:
        """The guest's boot id: it is the same as long as the machine lives. LabError when it does not answer."""
        if host is not None and self.machines.host_of(vm) != host:
            raise LabError(f"{vm} is not on {host}")
        return str(self.machines.get(vm, "/stat", 5.0)["boot_id"])

    def defined(self, vm: str) -> dict[str, bool]:
        """Host -> whether the machine runs there, for every host that knows it."""
        found = {}
        for name, connection in self.machines.connections.items():
            for one in connection.listAllDomains():
                if one.name() == vm:
                    found[name] = bool(one.isActive())
        return found

    def moving(self, vm: str) -> bool:
        """Whether memory of the machine is being copied to another host."""
        for connection in self.machines.connections.values():
            with contextlib.suppress(libvirt.libvirtError):  # only the host that it leaves knows
                if int(connection.lookupByName(vm).jobStats().get("data_processed", 0)) > 0:
                    return True
        return False

    def pids(self, host: str, program: str) -> list[int]:
        """The processes of a host that run `program`."""
        return hypervisors.host_pids(self.processes[host].pid, program)

    # -- breaking and mending

    def power_on(self, host: str) -> None:
        log = self.directory / host
        self.processes[host] = hypervisors.start(self.places[host], self.machines.assets.emulator_root, log)
        self.connect(host)

    def connect(self, host: str) -> None:
        """A fresh connection of the test's own."""
        old = self.machines.connections.pop(host, None)
        if old is not None:
            with contextlib.suppress(Exception):
                old.close()
        self.machines.connections[host] = hypervisors.connect(self.places[host])

    def power_cut(self, host: str) -> None:
        """Everything on the host ends at once, its files too."""
        hypervisors.stop(self.places[host], self.processes.pop(host))

    def kill(self, host: str, program: str) -> None:
        hypervisors.kill(self.processes[host].pid, program)

    def restart_libvirtd(self, host: str, file: str = "libvirtd.conf", **settings: str | int) -> None:
        """With some settings of a file changed."""
        path = self.places[host].directory / "etc-libvirt" / file
        kept = [line for line in path.read_text().splitlines() if line.split(" = ")[0] not in settings]
        # json's strings and numbers are written as libvirt's are.
        path.write_text("\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), ""]))
        self.kill(host, LIBVIRTD)
        self.start_libvirtd(host)

    def start_libvirtd(self, host: str) -> None:
        """As its service manager would after a crash."""
        hypervisors.start_libvirtd(self.processes[host].pid)
        self.connect(host)

    def mend(self) -> None:
        """Daemons that a failed test left dead are started, so that the next one finds what it needs."""
        for host in HOSTS:
            if not self.pids(host, LIBVIRTD):
                self.start_libvirtd(host)

    @contextlib.contextmanager
    def frozen(self, vm: str) -> Iterator[None]:
        """The guest hangs: its emulator neither runs nor answers."""
        pid = self.emulator(vm)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def emulator(self, vm: str) -> int:
        """The process that is the machine."""
        for host in HOSTS:
            for pid in self.pids(host, QEMU):
                if f"guest={vm}," in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        raise AssertionError(f"no process is {vm}")

    @contextlib.contextmanager
    def slow(self, mbit_per_s: float) -> Iterator[None]:
        """The management network is so slow that a migration takes a while."""
        for host in HOSTS:
            _tc("add", host, f"tbf rate {mbit_per_s}mbit burst 64kb latency 200ms")
        try:
            yield
        finally:
            for host in HOSTS:
                _tc("del", host, "")

    @contextlib.contextmanager
    def cut(self, host: str) -> Iterator[None]:
        """The management network ends before the host."""
        subprocess.run(["ip", "link", "set", f"mgmt-{host}", "down"], check=True)
        try:
            yield
        finally:
            subprocess.run(["ip", "link", "set", f"mgmt-{host}", "up"], check=True)


def _tc(verb: str, host: str, rest: str) -> None:
    subprocess.run(["tc", "qdisc", verb, "dev", f"mgmt-{host}", "root", *rest.split()], check=True)
