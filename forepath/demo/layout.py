"""Names, numbers and capacities of the lab, in one place, so that settings and tests can be built from them."""

from dataclasses import dataclass, field

from cpdb import MBIT, MIB

# OpenFlow port numbers: to the j-th spine (or leaf) j, clients from 11, a hypervisor host 21.
FIRST_CLIENT_PORT = 11
HYPERVISOR_PORT = 21


@dataclass(frozen=True, slots=True)
class SwitchSpec:
    """A switch: `name` is also its bridge's name."""

    name: str
    dpid: int


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """A client host behind `switch` at `port`."""

    name: str
    address: str
    mac: str
    switch: str
    port: int
    capacity_bytes_per_s: float = 100 * MBIT


@dataclass(frozen=True, slots=True)
class HypervisorSpec:
    """A host with its own libvirtd; its access link (each direction) and its CPU are what may run short."""

    name: str
    switch: str
    port: int
    management_address: str
    access_bytes_per_s: float = 12 * MBIT
    cpu_cores: float = 0.8
    memory_bytes: int = 2048 * MIB


@dataclass(frozen=True, slots=True)
class LabVm:
    """A VM on its first host. `quota_cores` is the CPU quota of each of its virtual CPUs after boot.

    With `plug_bytes` it has a virtio-mem device that can add so much memory; its kernel then needs 256 MiB to boot.
    """

    name: str
    host: str
    address: str
    mac: str
    quota_cores: float
    service: str | None = None
    priority: int = 10
    burn_percent: int = 0
    memory_bytes: int = 128 * MIB
    vcpus: int = 1
    max_vcpus: int = 2
    plug_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A virtual IP and its destinations: VM name -> weight (0 keeps it on stand-by)."""

    name: str
    address: str
    priority: int
    weights: dict[str, int] = field(default_factory=dict)


def _vm(name: str, host: str, number: int, quota_cores: float, service: str | None) -> LabVm:
    return LabVm(name, host, f"10.77.0.{number}", f"52:54:00:77:00:{number:02x}", quota_cores, service)


def _default_vms() -> tuple[LabVm, ...]:
    backup = LabVm("backup1", "hA", "10.77.0.13", "52:54:00:77:00:0d", 0.10, "backup", priority=0)
    batch = LabVm("batch1", "hA", "10.77.0.14", "52:54:00:77:00:0e", 0.25, None, priority=0, burn_percent=100)
    return (
        _vm("shop1", "hA", 11, 0.20, "shop"),
        _vm("search1", "hA", 12, 0.20, "search"),
        backup,
        batch,
        _vm("shop2", "hB", 21, 0.20, "shop"),
        _vm("search2", "hB", 22, 0.20, "search"),
    )


def _default_clients() -> tuple[ClientSpec, ...]:
    return tuple(
        ClientSpec(f"c{n}", f"10.77.0.{n}", f"02:00:0a:4d:00:{n:02x}", "leaf1", FIRST_CLIENT_PORT + n - 1)
        for n in range(1, 5)
    )


def _default_services() -> tuple[ServiceSpec, ...]:
    return (
        ServiceSpec("shop", "10.77.0.101", 10, {"shop1": 100, "shop2": 0}),
        ServiceSpec("search", "10.77.0.102", 10, {"search1": 100, "search2": 0}),
        ServiceSpec("backup", "10.77.0.103", 0, {"backup1": 100}),
    )


@dataclass(frozen=True, slots=True)
class LabLayout:
    """The whole lab as data. Every leaf is linked to every spine at `fabric_bytes_per_s` in each direction."""

    leaves: tuple[SwitchSpec, ...] = (SwitchSpec("leaf1", 0x11), SwitchSpec("leaf2", 0x12), SwitchSpec("leaf3", 0x13))
    spines: tuple[SwitchSpec, ...] = (SwitchSpec("spine1", 0x21), SwitchSpec("spine2", 0x22))
    clients: tuple[ClientSpec, ...] = field(default_factory=_default_clients)
    hypervisors: tuple[HypervisorSpec, ...] = (
        HypervisorSpec("hA", "leaf2", HYPERVISOR_PORT, "10.99.0.1"),
        HypervisorSpec("hB", "leaf3", HYPERVISOR_PORT, "10.99.0.2"),
    )
    vms: tuple[LabVm, ...] = field(default_factory=_default_vms)
    services: tuple[ServiceSpec, ...] = field(default_factory=_default_services)
    fabric_bytes_per_s: float = 20 * MBIT
    prefix_length: int = 24
    controller: str = "tcp:127.0.0.1:6653"

    @property
    def switches(self) -> tuple[SwitchSpec, ...]:
        """Leaves, then spines."""
        return self.leaves + self.spines

    def vm(self, name: str) -> LabVm:
        """Return the VM called `name`; KeyError when there is none."""
        return {vm.name: vm for vm in self.vms}[name]

    def client(self, name: str) -> ClientSpec:
        """Return the client called `name`; KeyError when there is none."""
        return {client.name: client for client in self.clients}[name]

    def hypervisor(self, name: str) -> HypervisorSpec:
        """Return the hypervisor host called `name`; KeyError when there is none."""
        return {host.name: host for host in self.hypervisors}[name]

    def service(self, name: str) -> ServiceSpec:
        """Return the service called `name`; KeyError when there is none."""
        return {service.name: service for service in self.services}[name]

    def fabric_ports(self) -> list[tuple[str, int, str, int]]:
        """Return (leaf, its port, spine, its port) of every fabric link."""
        return [
            (leaf.name, j, spine.name, i)
            for i, leaf in enumerate(self.leaves, start=1)
            for j, spine in enumerate(self.spines, start=1)
        ]

    def interfaces(self) -> dict[tuple[str, str], str]:
        """Return the switch-side interface through which (from switch, to neighbour) sends."""
        names: dict[tuple[str, str], str] = {}
        for leaf, leaf_port, spine, spine_port in self.fabric_ports():
            names[leaf, spine] = f"{leaf}-eth{leaf_port}"
            names[spine, leaf] = f"{spine}-eth{spine_port}"
        ends: list[ClientSpec | HypervisorSpec] = [*self.clients, *self.hypervisors]
        for end in ends:
            names[end.switch, end.name] = f"{end.switch}-eth{end.port}"
        return names
