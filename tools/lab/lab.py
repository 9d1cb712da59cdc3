"""The lab: real switches, real clients, real VMs on one machine, started and stopped as one thing, on a stage."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, Self

from cpdb.errors import LabError
from forepath.demo.layout import LabLayout
from forepath.demo.results import Sample
from tools.lab import hypervisors, stage
from tools.lab.assets import Assets, load_assets
from tools.lab.hypervisors import HypervisorPlace
from tools.lab.machines import Machines, read_host_cpu, read_vm_cpu
from tools.lab.switches import LinkCounters, SwitchFabric, link_counters

STOPPING_S = 5.0
Progress = Callable[[str, float], None]


def _silent(_step: str, _share: float) -> None:
    return None


class _Processes:
    """Processes of a lab: each logs to `<name>.log`, and name, pid and start time of each stand in `pids`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, argv: list[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        """Starts one; LabError when it cannot be run."""
        with (self._directory / f"{name}.log").open("ab") as log:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | dict(env or {})
                )
            except OSError as error:
                raise LabError(f"{name}: cannot run {argv[0]}: {error.strerror}") from error
        self._running.append(process)
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        with (self._directory / "pids").open("a") as pids:
            pids.write(f"{name} {process.pid} {started}\n")
        return process

    def stop(self) -> None:
        """Ends all, those that do not listen by force."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOPPING_S
        for process in self._running:
            try:
                process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running = []


class Lab:
    """Switches, clients and (with `vms`) hypervisor hosts and VMs of a layout. Use as a context manager on a stage.

    `run_directory` receives `pids` (name, pid, start time of each process started with `popen`) and `<name>.log`.
    Without `assets` those of the project's `.lab` directory are used. Every failure is a LabError of one line.
    """

    def __init__(
        self,
        layout: LabLayout | None = None,
        run_directory: Path = Path(".run/lab"),
        assets: Assets | None = None,
        vms: bool = True,
    ) -> None:
        self.layout = layout or LabLayout()
        self.run_directory = run_directory.resolve()
        self.vms = vms
        self.spins_per_ms = 0.0
        self._assets = assets
        self._fabric: SwitchFabric | None = None
        self._places: dict[str, HypervisorPlace] = {}
        # The first process of each host: with it ends all that runs there
        self.hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._machines: Machines | None = None
        self._processes = _Processes(self.run_directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- start and stop ------------------------------------------------------------------------------------

    def start(self, progress: Progress = _silent) -> None:
        """Build everything; `progress` hears each step and the share done (0 to 1). On failure nothing is left."""
        stage.prefix()
        problem = stage.why_not(self.vms)
        if problem:
            raise LabError(problem)
        self.run_directory.mkdir(parents=True, exist_ok=True)
        (self.run_directory / "pids").write_text("")
        try:
            self._start(progress)
        except BaseException:
            self.stop()
            raise

    def _start(self, progress: Progress) -> None:
        if not self.vms:
            progress("starting switches and clients", 0.1)
            self._fabric = SwitchFabric(self.layout)
            self._fabric.start()
            progress("the network is up", 1.0)
            return
        progress("checking kernel, initramfs and emulator", 0.0)
        assets = self._assets or load_assets()
        self._fabric = SwitchFabric(self.layout)
        progress("starting switches, clients and hypervisor hosts", 0.05)
        self._fabric.start()
        self._start_hosts(assets)
        progress(f"booting {len(self.layout.vms)} virtual machines", 0.25)
        self.machines.boot()
        self.machines.wait_serving()
        self.machines.limit_all()
        progress("measuring the guests' speed", 0.85)
        self._calibrate()
        progress("the lab is up", 1.0)

    def _start_hosts(self, assets: Assets) -> None:
        self._places = hypervisors.places(self.layout)
        hypervisors.wire(self.layout, self.fabric.attach)
        for name, place in self._places.items():
            log = self.run_directory / "hosts" / name
            log.mkdir(parents=True, exist_ok=True)
            self.hosts[name] = hypervisors.start(place, assets.emulator_root, log)
        self._machines = Machines(self.layout, self._places, assets)
        with ThreadPoolExecutor(len(self._places)) as pool:
            found = pool.map(hypervisors.connect, self._places.values())
        self._machines.connections.update(zip(self._places, found, strict=True))

    def _calibrate(self) -> None:
        """Take the fastest guest: what a slower one lacks is the neighbour on the same core, not its own speed."""
        services = [vm.name for vm in self.layout.vms if vm.service]
        answers = [self.machines.get(vm, "/calibrate", timeout_s=10.0) for vm in services]
        self.spins_per_ms = max((float(answer["spins_per_ms"]) for answer in answers), default=0.0)

    def stop(self) -> None:
        """End processes, hosts, VMs, switches and clients. Safe to call twice and after a failed start."""
        self._processes.stop()
        if self._machines is not None:
            self._machines.close()
            self._machines = None
        for name, process in self.hosts.items():
            hypervisors.stop(self._places[name], process)
        self.hosts = {}
        if self._fabric is not None:
            hypervisors.unwire(self.layout)
            self._fabric.stop()
            self._fabric = None

    # ---- processes -----------------------------------------------------------------------------------------

    @property
    def fabric(self) -> SwitchFabric:
        """The running switches and clients."""
        if self._fabric is None:
            raise LabError("the lab is not running")
        return self._fabric

    @property
    def machines(self) -> Machines:
        """The running VMs."""
        if self._machines is None:
            raise LabError("this lab has no virtual machines")
        return self._machines

    def popen(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process of the lab; it logs to `<name>.log`, its pid is recorded, and `stop` ends it."""
        return self._processes.start(name, list(argv), env)

    def client_popen(
        self, client: str, argv: Sequence[str], name: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process inside `client`'s network namespace; otherwise as `popen`."""
        # A client stands for a machine of its own: other work of this one comes second.
        enter = ["nice", "-n", "-5", "mnexec", "-a", str(self.fabric.client_pid(client))]
        return self._processes.start(name or f"client-{client}", [*enter, *argv], env)

    # ---- looking and acting --------------------------------------------------------------------------------

    @property
    def uris(self) -> dict[str, str]:
        """libvirt address of each host for processes on the stage."""
        return {name: place.uri for name, place in self._places.items()}

    @property
    def migration_uris(self) -> dict[str, str]:
        """libvirt address of each host as a migration's destination."""
        return {name: place.migration_uri for name, place in self._places.items()}

    def link_counters(self) -> dict[tuple[str, str], LinkCounters]:
        """Truth about each direction (from, to) of each link, read from the kernel's queues."""
        return link_counters(self.layout)


def take(lab: Lab, now: float) -> Sample:
    """Read all counters of `lab`."""
    links = {f"{a}>{b}": astuple(counters) for (a, b), counters in lab.link_counters().items()}
    if not lab.vms:
        return Sample(now, links)
    return Sample(
        now,
        links,
        {
            vm: (c.cpu_seconds, c.throttled_seconds, c.vcpu_limit_cores, c.host, c.limit_cores)
            for vm, c in read_vm_cpu(lab.machines).items()
        },
        {h: (c.cpu_seconds, c.throttled_seconds, c.limit_cores) for h, c in read_host_cpu(lab.machines).items()},
    )


class Sampler:
    """Samples `lab` into the JSON lines file `path` from `start` to `stop`."""

    def __init__(self, lab: Lab, path: Path, interval_s: float = 1.0) -> None:
        self.lab = lab
        self.path = path
        self.interval_s = interval_s
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current sample."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        due = time.monotonic()
        with self.path.open("w", buffering=1) as out:
            while not self._stop.is_set():
                self._write_one(out)
                due += self.interval_s
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _write_one(self, out: Any) -> None:
        try:
            sample = take(self.lab, time.time())
        except (LabError, OSError, KeyError):
            self.failures += 1  # something is just being moved; the next second will do
            return
        row = {"t": sample.t, "links": sample.links, "vms": sample.vms, "hosts": sample.hosts}
        # "Infinity" is how Python's JSON writes and reads a missing limit.
        out.write(json.dumps(row) + "\n")
