"""What was measured of links, hosts and machines: one record a subject and interval."""

from dataclasses import dataclass

from cpdb.records import Seconds


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """Bytes that left `from_node` towards `to_node` in (t - interval_s, t], and packets dropped there."""

    from_node: str
    to_node: str
    t: Seconds
    interval_s: Seconds
    bytes: int
    packets: int
    drops: int = 0


@dataclass(frozen=True, slots=True)
class HostLoad:
    """A hypervisor host's use and capacity over the last interval."""

    host: str
    t: Seconds
    cpu_cores_used: float
    cpu_cores_capacity: float
    memory_bytes_used: int
    memory_bytes_capacity: int


@dataclass(frozen=True, slots=True)
class VmLoad:
    """A VM's use and limits over the last interval. `cpu_cores_limit` is what its quota and vCPUs allow.

    `dirty_bytes_per_s` is how fast it writes memory, None when that was not measured.
    """

    vm: str
    host: str
    t: Seconds
    state: str
    cpu_cores_used: float
    cpu_cores_limit: float
    vcpus: int
    memory_bytes_used: int
    memory_bytes_limit: int
    network_rx_bytes_per_s: float = 0.0
    network_tx_bytes_per_s: float = 0.0
    dirty_bytes_per_s: float | None = None
