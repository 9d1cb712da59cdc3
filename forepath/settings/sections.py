"""What each table of the settings file may say: types, units, bounds and defaults."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cpdb import Dpid, Mac, MachineAddress, NodeKind, Section, is_ipv6

LONGEST_NAME = 64
# HOST:PORT, an IPv6 address in brackets
LISTEN = r"^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[1-9]\d{0,4}$"


def _check_name(name: str) -> str:
    """What libvirt allows as a domain's name, as far as the database has room for it."""
    if not name.strip():
        raise ValueError("is empty; give it a name, e.g. web1")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{name[:16]!r}... has {len(name)} characters; a name may have {LONGEST_NAME}")
    if "/" in name or not name.isprintable() or name != name.strip():
        raise ValueError(f"{name!r}: a name has no slash, no control characters and no space at its ends")
    return name


def _check_node(name: str) -> str:
    if ">" in name:
        raise ValueError(f"{name!r}: the name of a node has no >, which stands between the ends of a link")
    return _check_name(name)


# "http:8080/health", or with the status that is expected: "http:8080/health=204"; the database keeps 32 characters.
_HTTP_PROBE = re.compile(r"http:(?P<port>\d{1,5})/[!-<>-~]*(=[1-5]\d\d)?")
_MAX_PROBE = 32


def _check_probe(probe: str) -> str:
    kind, _, port = probe.partition(":")
    if kind == "http" and len(probe) <= _MAX_PROBE and (found := _HTTP_PROBE.fullmatch(probe)):
        kind, port = "tcp", found["port"]
    if probe in ("arp", "none") or (kind == "tcp" and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return probe
    raise ValueError(
        f'{probe!r} is no probe; write "arp", "none", "tcp:PORT", e.g. "tcp:80", or (at most {_MAX_PROBE} characters) '
        '"http:PORT/PATH" or "http:PORT/PATH=STATUS", e.g. "http:80/health=204"'
    )


def _check_pool_probe(probe: str) -> str:
    if probe == "arp" or probe.startswith("http"):
        raise ValueError(f'"{probe}" is asked by the controller; write "agent", "none" or "tcp:PORT", e.g. "tcp:80"')
    return probe if probe == "agent" else _check_probe(probe)


def _check_device(name: str) -> str:
    if not 0 < len(name) < 16 or "/" in name or any(map(str.isspace, name)):
        raise ValueError(f"{name!r} is no interface of Linux: 1 to 15 characters, no slash, no space, e.g. leaf1-eth2")
    return name


def _check_image(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} must begin at /: it is a path on every host of the pool")
    return path


Name = Annotated[str, AfterValidator(_check_name)]
NodeName = Annotated[str, AfterValidator(_check_node)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class NodeSection(Section):
    """A switch, client or hypervisor with a name of its own; a switch's `certificate` is named so, else like itself."""

    name: NodeName
    kind: NodeKind
    address: MachineAddress | None = None
    address6: MachineAddress | None = None
    mac: Mac | None = None
    dpid: Dpid | None = None
    certificate: Name | None = None
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None

    @model_validator(mode="after")
    def _of_a_switch(self) -> "NodeSection":
        if self.certificate is not None and self.dpid is None:
            raise ValueError("certificate binds a switch's dpid to a name; give the dpid too")
        return self

    @model_validator(mode="after")
    def _of_both_families(self) -> "NodeSection":
        if self.address6 is not None and (not is_ipv6(self.address6) or is_ipv6(self.address or ":")):
            raise ValueError(f"address6 {self.address6} is IPv6 beside an IPv4 address; a single one is its address")
        return self


class LinkSection(Section):
    """A link between two nodes; a switch's port must be given for its capacity to be known to the controller.

    `queue_device` is the interface with which switch `a` sends to `b`: there, a share of capacity can be guaranteed.
    """

    a: NodeName
    b: NodeName
    a_port: Annotated[int, Field(ge=0)] = 0
    b_port: Annotated[int, Field(ge=0)] = 0
    capacity_mbit_per_s: Positive
    queue_device: Annotated[str, AfterValidator(_check_device)] | None = None
    guaranteed_share: Annotated[float, Field(gt=0, lt=1)] = 0.8

    @model_validator(mode="after")
    def _share_of_a_queue(self) -> "LinkSection":
        if self.queue_device is None and "guaranteed_share" in self.model_fields_set:
            raise ValueError("guaranteed_share needs queue_device, the switch's interface from a towards b")
        return self


class DestinationSection(Section):
    """One of the alternative destinations of a virtual IP. `name` is the VM's name; weight 0 means stand-by."""

    name: Name
    address: MachineAddress
    mac: Mac
    weight: Annotated[int, Field(ge=0, le=1000)] = 100


class VirtualIpSection(Section):
    """A service address; competitors of lower priority may be limited for the sake of a higher one.

    `affinity` "source" keeps all connections of a source at one destination, "connection" places each new one anew.
    `probe` says how destinations are asked whether they live: "arp", "tcp:PORT", "http:PORT/PATH" (a status of 200 to
    299 is an answer), "http:PORT/PATH=STATUS" or "none". Only a replay asks whether what is sent to it are `streams`,
    which neither yield to others nor wait.
    """

    name: Name
    address: MachineAddress
    priority: int = 0
    tenant: Name | None = None
    affinity: Literal["source", "connection"] = "source"
    probe: Annotated[str, AfterValidator(_check_probe)] = "arp"
    streams: bool = False
    destination: Annotated[tuple[DestinationSection, ...], Field(min_length=1)]


class WebSection(Section):
    """The page and the API: whether `forepath run` starts them, where they listen, and who may change something.

    The token stands in a file or in an environment variable, never here; without one nothing can be changed.
    """

    enabled: bool = True
    listen: Annotated[str, Field(pattern=LISTEN)] = "127.0.0.1:8080"
    token_file: Path | None = None
    token_variable: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] | None = None
    requests_per_s: Positive = 20.0

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file is not None and self.token_variable is not None:
            raise ValueError("token_file and token_variable are both given; the token stands in one of them")
        return self


class TenantSection(Section):
    """The most that the requests of one tenant may be granted: a share of each link, and a rate in all."""

    name: Name
    link_share: Share | None = None
    mbit_per_s: Positive | None = None

    @model_validator(mode="after")
    def _caps_something(self) -> "TenantSection":
        if self.link_share is None and self.mbit_per_s is None:
            raise ValueError("caps nothing; give link_share, e.g. 0.5, or mbit_per_s, e.g. 20")
        return self


class HostSection(Section):
    """A hypervisor host: how to reach its libvirtd, and what it can carry."""

    name: NodeName
    uri: str
    migration_uri: str | None = None
    cpu_cores: Positive
    memory_mib: Annotated[int, Field(gt=0)]
    cordoned: bool = False
    maintenance: bool = False
    region: str = ""


class VmMigrationSection(Section):
    """What makes the copy of a busy machine end, where it is allowed: see the page about the settings for its price."""

    auto_converge: bool = False
    post_copy: bool = False


class VmReplaySection(Section):
    """What only a replay (`forepath whatif`) has to be told of a machine: where it is at first, what requests cost it.

    `cpu_ms_per_mb` is for 10^6 bytes. Machines without `host` are spread over the hosts in the file's order.
    """

    host: Name | None = None
    cpu_ms_per_connection: Annotated[float, Field(ge=0)] = 0.0
    cpu_ms_per_mb: Annotated[float, Field(ge=0)] = 0.0


class VmSection(VmReplaySection):
    """A virtual machine: its rank, and between which limits its CPU and memory may be set.

    Memory is planned only with `memory_mib_max`. `affinity` names machines that share a host, `anti_affinity` such of
    which no host takes two.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "migration_auto_converge": "vm.migration.auto_converge",
        "migration_post_copy": "vm.migration.post_copy",
    }

    name: Name
    priority: int = 0
    tenant: Name | None = None
    cpu_cores_base: Positive
    cpu_cores_max: Positive
    vcpus_max: Annotated[int, Field(ge=1)] = 1
    memory_mib_min: Annotated[int, Field(ge=64)] = 64
    memory_mib_max: Annotated[int, Field(ge=64)] | None = None
    movable: bool = False
    migration: VmMigrationSection = VmMigrationSection()
    affinity: Name | None = None
    anti_affinity: Name | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "VmSection":
        if self.cpu_cores_max < self.cpu_cores_base:
            raise ValueError(f"cpu_cores_max {self.cpu_cores_max} is below cpu_cores_base {self.cpu_cores_base}")
        if self.memory_mib_max is not None and self.memory_mib_max < self.memory_mib_min:
            raise ValueError(f"memory_mib_max {self.memory_mib_max} is below memory_mib_min {self.memory_mib_min}")
        if self.affinity is not None and self.affinity == self.anti_affinity:
            raise ValueError(f"affinity and anti_affinity cannot both be {self.affinity!r}; give one of them")
        return self


How = Literal["paused", "saved", "defined", "image"]
Limit = Annotated[float, Field(ge=0, le=3600)]


class PoolMemberSection(Section):
    """One machine of a pool. `how` it rests while it does not serve, where that differs from the pool's."""

    name: Name
    address: MachineAddress
    mac: Mac
    host: Name
    how: How | None = None


class PoolMachineSection(Section):
    """What each machine of a pool is given; `image` and `template` make one anew, for `how = "image"`."""

    cpu_cores_base: Positive = 1.0
    cpu_cores_max: Positive = 1.0
    vcpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(gt=0)] = 1024
    image: Annotated[str, AfterValidator(_check_image)] | None = None
    template: Path | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.cpu_cores_max < self.cpu_cores_base:
            raise ValueError(f"cpu_cores_max {self.cpu_cores_max} is below cpu_cores_base {self.cpu_cores_base}")
        if (self.image is None) != (self.template is None):
            raise ValueError("image and template belong together: a qcow2 file, and the XML of a domain that uses it")
        return self


class PoolArrivalSection(Section):
    """How a machine joins: limits of each stage in seconds, and the shares of its weight on the way up."""

    resume_limit_s: Limit = 30.0
    boot_limit_s: Limit = 60.0
    health_limit_s: Limit = 15.0
    ramp: tuple[Share, ...] = (0.25, 0.5, 1.0)
    ramp_step_s: Limit = 1.0

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.ramp or list(self.ramp) != sorted(self.ramp) or self.ramp[-1] != 1.0:
            raise ValueError(f"ramp {self.ramp} must ascend to 1, e.g. [0.25, 0.5, 1.0]")
        return self


class PoolDepartureSection(Section):
    """How a machine leaves: after `quiet_s` without traffic; whose connections outlive `drain_limit_s` stays."""

    quiet_s: Limit = 3.0
    drain_limit_s: Limit = 120.0
    cut_connections: bool = False
    cooldown_s: Limit = 30.0


class PoolSection(Section):
    """Machines for the virtual IP named `virtual_ip`; at least and at most so many destinations serve at once.

    `probe` is asked before the controller's own: "agent" (the guest's), "tcp:PORT" (from here) or "none".
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "least": "pool.min_destinations",
        "most": "pool.max_destinations",
        **{
            name: f"pool.machine.{name}"
            for name in ("cpu_cores_base", "cpu_cores_max", "vcpus", "memory_mib", "image", "template")
        },
        "wake_limit_s": "pool.arrival.resume_limit_s",
        **{name: f"pool.arrival.{name}" for name in ("boot_limit_s", "health_limit_s", "ramp", "ramp_step_s")},
        **{name: f"pool.departure.{name}" for name in ("quiet_s", "drain_limit_s", "cut_connections", "cooldown_s")},
    }

    virtual_ip: Name
    how: How = "paused"
    min_destinations: Annotated[int, Field(ge=1)] = 1
    max_destinations: Annotated[int, Field(ge=1)] = 2
    weight: Annotated[int, Field(ge=1, le=1000)] = 100
    probe: Annotated[str, AfterValidator(_check_pool_probe)] = "none"
    machine: PoolMachineSection = PoolMachineSection()
    arrival: PoolArrivalSection = PoolArrivalSection()
    departure: PoolDepartureSection = PoolDepartureSection()
    member: Annotated[tuple[PoolMemberSection, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.max_destinations < self.min_destinations:
            raise ValueError(
                f"max_destinations {self.max_destinations} is below min_destinations {self.min_destinations}"
            )
        if self.machine.image is None and any((member.how or self.how) == "image" for member in self.member):
            raise ValueError('how = "image" needs image and template in [pool.machine]')
        return self
