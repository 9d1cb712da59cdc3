"""Two (or more) isolated hypervisor hosts on one machine, each with its own libvirtd, network and control groups."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import libvirt

from cpdb.errors import LabError
from forepath.demo.layout import HypervisorSpec, LabLayout
from tools.lab import cgroups, stage
from tools.lab.stage import run, run_batch
from tools.lab.switches import NO_IPV6, rate_limit

SCRIPTS = Path(__file__).parent / "hosts"
ROOT = Path("/run/forepath/hosts")
UPLINK = "dp"
BRIDGE = "br0"
# Programs of a host, as the kernel calls them
QEMU, LIBVIRTD = "qemu-system-x86", "libvirtd"
_LOGS = "log-libvirt"
_DIRECTORIES = ("etc-libvirt", "run-libvirt", "var-libvirt", "cache-libvirt", "dev")

# Errors are raised as exceptions; libvirt would print them as well.
libvirt.registerErrorHandler(lambda _context, _error: None, None)


@dataclass(frozen=True, slots=True)
class HypervisorPlace:
    """Where one host lives: its directory, network namespace and control group."""

    spec: HypervisorSpec
    directory: Path
    group: str

    @property
    def uri(self) -> str:
        """The address of its libvirtd for processes on the stage."""
        return f"qemu+unix:///system?socket={self.directory}/run-libvirt/libvirt-sock"

    @property
    def migration_uri(self) -> str:
        """The address of its libvirtd for another host's libvirtd."""
        return f"qemu+tcp://{self.spec.management_address}/system"

    @property
    def network(self) -> Path:
        """The file that names its network namespace."""
        return Path("/run/netns", self.spec.name)

    @property
    def logs(self) -> Path:
        """The directory that its machines know as /var/log/libvirt; it outlives the host."""
        return (self.directory / _LOGS).resolve()


def places(layout: LabLayout) -> dict[str, HypervisorPlace]:
    """Return the place of every hypervisor host of the layout on this stage."""
    prefix = stage.prefix()
    return {spec.name: HypervisorPlace(spec, ROOT / spec.name, f"{prefix}-{spec.name}") for spec in layout.hypervisors}


def wire(layout: LabLayout, attach: Callable[[str, str], None]) -> None:
    """Make each host's namespace, its bridge, its access link to its switch, and the management network among hosts."""
    unwire(layout)
    lines = [f"netns add {spec.name}" for spec in layout.hypervisors]
    lines.append("link add mgmt type bridge forward_delay 0")
    lines.append("link set mgmt up")
    for number, spec in enumerate(layout.hypervisors, start=1):
        device = layout.interfaces()[spec.switch, spec.name]
        lines += [
            f"link add {device} type veth peer name {UPLINK} netns {spec.name}",
            f"link add mgmt-{spec.name} type veth peer name mgmt netns {spec.name}",
            f"link set mgmt-{spec.name} master mgmt up",
            f"link set {device} up",
        ]
        run_batch(["ip", "-batch", "-"], lines)
        lines = []
        _inside(spec, f"10.77.0.{250 + number}/{layout.prefix_length}", layout)
        attach(spec.name, device)
        # After the switch took the device: it clears the queues of a device that it meets.
        rate_limit([(device, spec.access_bytes_per_s)])


def _inside(spec: HypervisorSpec, address: str, layout: LabLayout) -> None:
    """Furnish the host's namespace. Its own address serves only to look at its VMs, hence the fixed neighbours."""
    enter = ("ip", "netns", "exec", spec.name)
    run([*enter, "sh", "-c", NO_IPV6])
    lines = [
        "link set lo up",
        f"addr add {spec.management_address}/24 dev mgmt",
        "link set mgmt up",
        f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        f"link set {UPLINK} master {BRIDGE} up",
        f"link set {BRIDGE} up",
        f"addr add {address} dev {BRIDGE}",
    ]
    lines += [f"neigh replace {vm.address} lladdr {vm.mac} dev {BRIDGE} nud permanent" for vm in layout.vms]
    run_batch(["ip", "-n", spec.name, "-batch", "-"], lines)
    rate_limit([(UPLINK, spec.access_bytes_per_s)], enter)


def _write_settings(place: HypervisorPlace, log_directory: Path) -> None:
    for name in _DIRECTORIES:
        (place.directory / name).mkdir(parents=True, exist_ok=True)
    log_directory.mkdir(parents=True, exist_ok=True)
    link = place.directory / _LOGS
    link.unlink(missing_ok=True)
    link.symlink_to(log_directory)
    address, etc = place.spec.management_address, place.directory / "etc-libvirt"
    daemon: dict[str, str | int] = {
        "listen_tls": 0, "listen_tcp": 1, "listen_addr": address, "auth_tcp": "none", "auth_unix_rw": "none",
        "auth_unix_ro": "none", "unix_sock_group": "root", "host_uuid": str(uuid.uuid4()),
        "log_outputs": "3:file:/var/log/libvirt/libvirtd.log",
    }  # fmt: skip
    emulator: dict[str, str | int] = {
        "user": "root", "group": "root", "dynamic_ownership": 0, "remember_owner": 0, "security_driver": "none",
        "stdio_handler": "file", "migration_host": address,
    }  # fmt: skip
    (etc / "libvirtd.conf").write_text(_lines(daemon))
    lists = 'namespaces = []\ncgroup_controllers = [ "cpu", "cpuacct", "memory" ]\n'
    (etc / "qemu.conf").write_text(_lines(emulator) + lists)
    (place.directory / "hosts").write_text(f"127.0.0.1 localhost\n{address} {place.spec.name}\n")


def _lines(settings: Mapping[str, str | int]) -> str:
    quoted = {key: value if isinstance(value, int) else f'"{value}"' for key, value in settings.items()}
    return "".join(f"{key} = {value}\n" for key, value in quoted.items())


def start(place: HypervisorPlace, emulator_root: Path | None, log_directory: Path) -> subprocess.Popen[bytes]:
    """Start the host; its first process dies with the returned one. Wait for `connect` before use."""
    _write_settings(place, log_directory.resolve())
    cgroups.make(place.group)
    trees = " ".join(f"{tree.mount}={tree.options}" for tree in cgroups.trees())
    script, root = str(SCRIPTS / "host-start.sh"), str(emulator_root or "")
    with (log_directory / "host.log").open("wb") as log:
        return subprocess.Popen(
            ["bash", script, place.spec.name, str(place.directory), place.group, trees, root],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip


def connect(place: HypervisorPlace, timeout_s: float = 15.0) -> "libvirt.virConnect":
    """Return a connection to the host's libvirtd as soon as it answers; LabError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return libvirt.open(place.uri)
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                raise LabError(f"libvirtd of {place.spec.name} does not answer: {error}") from error
        time.sleep(0.05)


def host_pids(host: int, program: str) -> list[int]:
    """The processes of a host, of which the first has the pid `host`, that run `program`."""
    return [pid for pid in _below(host) if _name(pid) == program]


def kill(host: int, program: str) -> None:
    """Those of its processes end at once."""
    for pid in host_pids(host, program):
        os.kill(pid, signal.SIGKILL)


def start_libvirtd(host: int) -> None:
    """As its service manager would after a crash. Raises LabError when the old one does not end."""
    deadline = time.monotonic() + 20
    while host_pids(host, LIBVIRTD):
        if time.monotonic() > deadline:
            raise LabError("a libvirtd still runs")
        time.sleep(0.05)
    enter = ["nsenter", "-t", str(_children(host)[0]), "-m", "-u", "-p", "-n", "-C", "-r", "-w"]
    run([*enter, "libvirtd", "--listen", "-d", "-p", "/run/libvirt/libvirtd.pid"], timeout_s=20)


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _below(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _below(child)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def stop(place: HypervisorPlace, process: subprocess.Popen[bytes]) -> None:
    """Cut the host's power: everything in it ends at once; then remove what it left."""
    process.kill()
    process.wait()
    cgroups.remove(place.group)
    shutil.rmtree(place.directory, ignore_errors=True)


def unwire(layout: LabLayout) -> None:
    """Remove what `wire` made and is still there."""
    for spec in layout.hypervisors:
        # By name and at once: with its namespace alone a link would go some time later, in the next lab's way.
        for device in (layout.interfaces()[spec.switch, spec.name], f"mgmt-{spec.name}"):
            subprocess.run(["ip", "link", "del", device], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", spec.name], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", "mgmt"], capture_output=True, check=False)
