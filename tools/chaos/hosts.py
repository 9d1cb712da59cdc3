"""The hosts with machines that are broken: their libvirtd, their power, and what must be so of their machines."""

from contextlib import suppress

import libvirt

from cpdb import LabError
from tools.lab import hypervisors, stage
from tools.lab.lab import Lab
from tools.lab.machines import Machines


def has_hosts() -> bool:
    """Whether machines can be had here."""
    return stage.why_not(vms=True) is None


class ChaosHosts:
    """The hosts of a running lab; none where machines cannot be had."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def _machines(self) -> Machines:
        return self._lab.machines

    def crash_libvirtd(self, host: str) -> None:
        """A host's libvirtd dies; its machines go on."""
        hypervisors.kill(self._lab.hosts[host].pid, hypervisors.LIBVIRTD)

    def start_libvirtd(self, host: str) -> None:
        """As after a crash or with the power, without starting a machine."""
        hypervisors.start_libvirtd(self._lab.hosts[host].pid)
        with suppress(libvirt.libvirtError):
            self._machines.connections.pop(host).close()
        self._machines.connections[host] = hypervisors.connect(self._machines.hosts[host])

    def cut_power(self, host: str) -> None:
        """All that runs on a host ends at once; what it has on disk stays."""
        for program in (hypervisors.QEMU, hypervisors.LIBVIRTD):
            hypervisors.kill(self._lab.hosts[host].pid, program)

    def power_on(self, host: str) -> None:
        """The host comes back, and starts its machines again."""
        self.start_libvirtd(host)
        for domain in self._machines.connections[host].listAllDomains():
            if not domain.isActive():
                domain.create()

    def places(self, vm: str) -> list[str]:
        """The hosts on which a machine runs: one. LabError when a host cannot be asked."""
        try:
            return [
                host
                for host, connection in self._machines.connections.items()
                if any(one.name() == vm and one.isActive() for one in connection.listAllDomains())
            ]
        except libvirt.libvirtError as error:
            raise LabError(f"cannot ask where {vm} runs: {error}") from error

    def boots(self) -> dict[str, str]:
        """Machine -> what its kernel drew when it was started; without those that do not answer or run twice."""
        found = {}
        for vm in self._lab.layout.vms if self._lab.vms else ():
            with suppress(LabError):
                if len(self.places(vm.name)) == 1:
                    found[vm.name] = str(self._machines.get(vm.name, "/stat", 5.0)["boot_id"])
        return found
