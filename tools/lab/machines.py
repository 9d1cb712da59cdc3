"""The lab's VMs: their definition, start, quotas, and their way back to where they began."""

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from cpdb.errors import LabError
from forepath.demo.layout import LabLayout, LabVm
from tools.lab import cgroups, probe
from tools.lab.assets import Assets
from tools.lab.hypervisors import BRIDGE, HypervisorPlace

# What is shut off for one of these reasons did not fail: it was never started, or it lives on elsewhere.
_NO_END = {
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT,
}
_TELLING = re.compile(r"kernel panic|oops|bug:|out of memory", re.IGNORECASE)
_KERNEL_TIME = re.compile(r"^\[ *\d+\.\d+\] *")
_READ_BYTES = 64 * 1024
_LONGEST_LINE = 200


def stopped_on(seen: Mapping[str, tuple[int, int] | None]) -> str | None:
    """Return the host on which a machine came to its end; None while it runs, moves, or nobody can know.

    `seen` maps each host that knows the machine to libvirt's (state, reason), or to None when it could not be asked.
    """
    states = [found and found[0] for found in seen.values()]
    if any(state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED) for state in states):
        return None
    return next((host for host, found in seen.items() if found and _is_end(*found)), None)


def _is_end(state: int, reason: int) -> bool:
    return state == libvirt.VIR_DOMAIN_CRASHED or reason not in _NO_END


def last_words(console: Path) -> str:
    """Return the last line of a console that names a failure, else its last line, without the kernel's time stamp.

    "" when the console is empty or cannot be read.
    """
    try:
        with console.open("rb") as file:
            file.seek(max(0, console.stat().st_size - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in map(_plain, re.split(r"[\r\n]+", text)) if line]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or [""])[-1][:_LONGEST_LINE]


def _plain(line: str) -> str:
    return _KERNEL_TIME.sub("", "".join(char for char in line if char.isprintable()).strip())


PERIOD_US = 100_000
_MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_PEER2PEER
)
# Offloads stay off at both ends: the userspace switch passes packets on as they are. While QEMU's translation cache is
# full a virtual CPU that is plugged in ends it (10.0: tcg/region.c, assertion in tcg_region_initial_alloc__locked):
# guests that had run for four minutes had filled 64 MiB.
_DOMAIN = """<domain type='qemu'><name>{name}</name>{most_memory}
 <memory unit='KiB'>{memory_kib}</memory><currentMemory unit='KiB'>{memory_kib}</currentMemory>
 <vcpu placement='static' current='{vcpus}'>{max_vcpus}</vcpu>
 <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initramfs}</initrd>
  <cmdline>console=ttyS0 quiet panic=-1 no_timer_check lab.ip={address} lab.burn={burn}</cmdline></os>
 <features><acpi/><apic/><tcg><tb-cache unit='MiB'>256</tb-cache></tcg></features>
 <cpu mode='custom' match='exact'><model>qemu64</model>{cells}</cpu>
 <on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
 <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><target dev='t-{name}'/>
   <model type='virtio'/><driver name='qemu'>
    <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off' mrg_rxbuf='off'/>
    <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver></interface>
  <serial type='file'><source path='/var/log/libvirt/{name}.console'/></serial>
  <memballoon model='virtio'><stats period='1'/></memballoon>{plug}
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""


_MOST_MEMORY = "\n <maxMemory slots='4' unit='KiB'>{most_kib}</maxMemory>"
_CELLS = "<numa><cell id='0' cpus='0-{last_vcpu}' memory='{memory_kib}' unit='KiB'/></numa>"
_PLUG = """
  <memory model='virtio-mem'><target><size unit='KiB'>{plug_kib}</size><node>0</node><block unit='MiB'>2</block>
   <requested unit='KiB'>0</requested></target></memory>"""


def domain_xml(vm: LabVm, layout: LabLayout, assets: Assets) -> str:
    """Return the libvirt definition of `vm`."""
    memory_kib, plug_kib = vm.memory_bytes // 1024, vm.plug_bytes // 1024
    return _DOMAIN.format(
        most_memory=_MOST_MEMORY.format(most_kib=memory_kib + plug_kib) if plug_kib else "",
        cells=_CELLS.format(last_vcpu=vm.max_vcpus - 1, memory_kib=memory_kib) if plug_kib else "",
        plug=_PLUG.format(plug_kib=plug_kib) if plug_kib else "",
        name=vm.name, memory_kib=memory_kib, vcpus=vm.vcpus, max_vcpus=vm.max_vcpus,
        kernel=assets.kernel, initramfs=assets.initramfs, address=f"{vm.address}/{layout.prefix_length}",
        burn=vm.burn_percent, mac=vm.mac, bridge=BRIDGE,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class VmCpu:
    """Truth from the control groups: CPU seconds of the virtual CPUs, seconds held back by the quota, and the limit.

    The counters start again from zero when a VM arrives at another host. `limit_cores` counts every virtual CPU that
    was ever plugged in, also one that the guest switched off since; `vcpu_limit_cores` is the limit of a single one.
    """

    cpu_seconds: float
    throttled_seconds: float
    limit_cores: float
    host: str
    vcpu_limit_cores: float


class Machines:
    """The VMs of a layout on connected hosts."""

    def __init__(self, layout: LabLayout, hosts: Mapping[str, HypervisorPlace], assets: Assets) -> None:
        self.layout = layout
        self.hosts = hosts
        self.assets = assets
        self.connections: dict[str, Any] = {}

    def close(self) -> None:
        """Close the connections; a host that is gone already does not matter."""
        for connection in self.connections.values():
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
        self.connections = {}

    def boot(self) -> None:
        """Define and start every VM on its first host."""
        for vm in self.layout.vms:
            try:
                domain = self.connections[vm.host].defineXML(domain_xml(vm, self.layout, self.assets))
                domain.create()
            except libvirt.libvirtError as error:
                raise LabError(f"{vm.name} does not start on {vm.host}: {error}") from error

    def get(self, vm: str, path: str, timeout_s: float = 2.0) -> dict[str, Any]:
        """Return the JSON that the guest answers to `GET path`, asked from its host; LabError when it does not."""
        host = self.hosts[self.host_of(vm)]
        try:
            address = self.layout.vm(vm).address
            body = probe.inside(host.network, lambda: probe.http_get(address, path, timeout_s))
            answer: dict[str, Any] = json.loads(body)
        except (OSError, ValueError) as error:
            raise LabError(f"{vm} on {host.spec.name} does not answer {path}: {error}") from error
        return answer

    def stat(self, vm: str) -> dict[str, Any]:
        """Return the guest's own counters (boot_id, uptime_s, cpus, requests, request_bytes, sink_bytes, ...)."""
        return self.get(vm, "/stat")

    def serving(self, vm: str, timeout_s: float = 0.5) -> bool:
        """Whether the guest answers within `timeout_s`."""
        try:
            self.get(vm, "/stat", timeout_s)
        except LabError:
            return False
        return True

    def wait_serving(self, timeout_s: float = 120.0) -> None:
        """Return when every VM answers; LabError with those that do not, or at once with one that has stopped."""
        deadline = time.monotonic() + timeout_s
        waiting = [vm.name for vm in self.layout.vms]
        patience_s = 0.5
        stopped: dict[str, str] = {}
        while waiting := [vm for vm in waiting if not self.serving(vm, patience_s)]:
            patience_s = min(3.0, patience_s * 1.1)  # a crowded machine answers late
            stopped = self._check_stopped(waiting, stopped)
            if time.monotonic() > deadline:
                raise LabError(f"these VMs did not come up within {timeout_s:.0f} s: {', '.join(waiting)}")
            time.sleep(0.1)

    def _check_stopped(self, vms: Sequence[str], before: Mapping[str, str]) -> dict[str, str]:
        """Return which of `vms` have stopped, and where; LabError when one of them had stopped there `before`.

        Twice, because hosts are asked one after the other: a machine that moves meanwhile can look gone from both.
        """
        stopped = {vm: host for vm in vms if (host := stopped_on(self._states(vm))) is not None}
        for vm, host in stopped.items():
            if before.get(vm) == host:
                console = self.hosts[host].logs / f"{vm}.console"
                said = last_words(console) or "its console is empty"
                raise LabError(f"{vm} stopped on {host} while booting: {said} (see {console})")
        return stopped

    def _states(self, vm: str) -> dict[str, tuple[int, int] | None]:
        states: dict[str, tuple[int, int] | None] = {}
        for host, connection in self.connections.items():
            try:
                state, reason = connection.lookupByName(vm).state()
                states[host] = state, reason
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    states[host] = None
        return states

    def domain(self, vm: str) -> Any:
        """Return the running libvirt domain; LabError when no host has it."""
        home = self.layout.vm(vm).host
        for host in sorted(self.hosts, key=lambda name: name != home):
            try:
                domain = self.connections[host].lookupByName(vm)
                if domain.isActive():
                    return domain
            except libvirt.libvirtError:
                continue
        raise LabError(f"no host runs the VM {vm}")

    def host_of(self, vm: str) -> str:
        """Return the host that runs `vm`; LabError when none does."""
        uri = self.domain(vm).connect()
        return next(name for name, connection in self.connections.items() if connection is uri)

    def set_quota(self, vm: str, cores: float) -> None:
        """Limit each virtual CPU of `vm` to `cores`."""
        try:
            self.domain(vm).setSchedulerParametersFlags(
                {"vcpu_period": PERIOD_US, "vcpu_quota": int(cores * PERIOD_US)}, libvirt.VIR_DOMAIN_AFFECT_LIVE
            )
        except libvirt.libvirtError as error:
            raise LabError(f"{vm}: cannot set a quota of {cores:g} cores: {error}") from error

    def limit_all(self) -> None:
        """Give every VM its first quota, then every host its CPU capacity."""
        for vm in self.layout.vms:
            self.set_quota(vm.name, vm.quota_cores)
        for place in self.hosts.values():
            cgroups.limit_cpu(place.group, place.spec.cpu_cores)

    def migrate(self, vm: str, to: str) -> None:
        """Live-migrate `vm` to the host `to`; nothing when it is there already."""
        if self.host_of(vm) == to:
            return
        try:
            self.domain(vm).migrateToURI3(self.hosts[to].migration_uri, {}, _MIGRATE)
        except libvirt.libvirtError as error:
            raise LabError(f"{vm} cannot move to {to}: {error}") from error

    def reset(self) -> None:
        """Bring every VM back to its first host, quota and number of virtual CPUs."""
        for vm in self.layout.vms:
            self.migrate(vm.name, vm.host)
            _reset_vcpus(self.domain(vm.name), vm)
            self.set_quota(vm.name, vm.quota_cores)
            self.domain(vm.name).setMemoryFlags(vm.memory_bytes // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _reset_vcpus(domain: Any, vm: LabVm) -> None:
    """Take added virtual CPUs back through the guest's agent: real unplugging never ends under emulation."""
    try:
        if domain.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE) > vm.vcpus:
            domain.setVcpusFlags(vm.vcpus, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_VCPU_GUEST)
    except libvirt.libvirtError as error:
        raise LabError(f"{vm.name}: cannot go back to {vm.vcpus} virtual CPUs: {error}") from error


def read_vm_cpu(machines: Machines) -> dict[str, VmCpu]:
    """Return the CPU truth of every VM that runs, from its host's control groups."""
    known = {vm.name for vm in machines.layout.vms}
    truth: dict[str, VmCpu] = {}
    for place in machines.hosts.values():
        machine = f"{place.group}/machine"
        for group in cgroups.subgroups(machine):
            name = group.removesuffix(".libvirt-qemu").split("-", 2)[-1]
            # An incoming VM has two groups for a moment; the one that has used more is the one that runs.
            if name in known:
                found = _sum_vcpus(f"{machine}/{group}", place.spec.name)
                if name not in truth or found.cpu_seconds > truth[name].cpu_seconds:
                    truth[name] = found
    return truth


def read_host_cpu(machines: Machines) -> dict[str, cgroups.CpuUse]:
    """Return the CPU truth of every host as a whole: seconds used, seconds held back, capacity."""
    return {name: cgroups.cpu_use(place.group) for name, place in machines.hosts.items()}


def _sum_vcpus(group: str, host: str) -> VmCpu:
    uses = []
    for part in cgroups.subgroups(group):
        if part.startswith("vcpu"):
            try:
                uses.append(cgroups.cpu_use(f"{group}/{part}"))
            except OSError:
                continue  # it is just leaving this host
    return VmCpu(
        sum(use.cpu_seconds for use in uses),
        sum(use.throttled_seconds for use in uses),
        sum(use.limit_cores for use in uses),
        host,
        max((use.limit_cores for use in uses), default=float("inf")),
    )
