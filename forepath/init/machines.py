"""What a libvirtd tells to somebody who may only read: the host, its machines, their interfaces."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from cpdb import DriverError
from forepath.hypervisor_addresses import connection_problem

KIB_A_MIB = 1024


@dataclass(frozen=True, slots=True)
class FoundInterface:
    """One interface of a machine; `address` is the first IPv4 address that somebody knows of it."""

    mac: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class FoundMachine:
    """A machine as it is defined, and whether it runs."""

    name: str
    running: bool
    vcpus: int
    vcpus_max: int
    memory_mib: int
    interfaces: tuple[FoundInterface, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundHost:
    """A hypervisor and what is on it."""

    name: str
    uri: str
    cpu_cores: int
    memory_mib: int
    machines: tuple[FoundMachine, ...] = ()


def look_at_host(uri: str) -> FoundHost:
    """Asks the libvirtd at `uri` over a read-only connection. Raises DriverError with what is wrong and what helps."""
    import libvirt

    if found := connection_problem(uri):
        raise DriverError(f"--libvirt {uri}: {found}")
    connection = libvirt.openReadOnly(uri)
    try:
        _, memory_mib, cpus, *_ = connection.getInfo()
        machines = tuple(sorted(map(_machine, connection.listAllDomains()), key=lambda one: one.name))
        return FoundHost(connection.getHostname(), uri, cpus, memory_mib, machines)
    except libvirt.libvirtError as error:
        raise DriverError(f"--libvirt {uri}: {error}") from error
    finally:
        connection.close()


def _machine(domain: Any) -> FoundMachine:
    root = ElementTree.fromstring(domain.XMLDesc())
    vcpu = root.find("vcpu")
    vcpus_max = int(vcpu.text or 1) if vcpu is not None else 1
    vcpus = int(vcpu.get("current", vcpus_max)) if vcpu is not None else 1
    memory_mib = int(domain.info()[2]) // KIB_A_MIB
    return FoundMachine(
        domain.name(), bool(domain.isActive()), vcpus, vcpus_max, memory_mib, tuple(_interfaces(domain, root))
    )


def _interfaces(domain: Any, root: ElementTree.Element) -> Iterator[FoundInterface]:
    known = _addresses(domain) if domain.isActive() else {}
    for one in root.findall("devices/interface/mac"):
        mac = (one.get("address") or "").lower()
        if mac:
            yield FoundInterface(mac, known.get(mac))


def _addresses(domain: Any) -> dict[str, str]:
    """MAC -> the first IPv4 address, by the host's leases, else by its ARP table."""
    import libvirt

    found: dict[str, str] = {}
    for source in (libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP):
        try:
            interfaces = domain.interfaceAddresses(source)
        except libvirt.libvirtError:  # this driver does not know
            continue
        for one in interfaces.values():
            own = [entry["addr"] for entry in one["addrs"] or () if entry["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4]
            if own and one["hwaddr"]:
                found.setdefault(one["hwaddr"].lower(), own[0])
    return found
