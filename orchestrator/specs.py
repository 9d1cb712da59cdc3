"""The hosts and machines that an operator declares, as plain data."""

from dataclasses import dataclass

from cpdb import Seconds


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A hypervisor. Capacity is declared: what a host reports of itself may be a whole machine that it only shares.

    `uri` is where the orchestrator connects, `migration_uri` is where other hosts send machines to. Nothing is moved to
    a `cordoned` host; one under `maintenance` is cordoned and left by the machines that may move.
    """

    name: str
    uri: str
    migration_uri: str
    cpu_cores_capacity: float
    memory_bytes_capacity: int
    cordoned: bool = False
    maintenance: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing may be moved there."""
        return self.cordoned or self.maintenance


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A machine. `cpu_cores_min` is its everyday limit, `cpu_cores_max` the most it gets; priority 0 is the lowest.

    Memory is planned only where `memory_bytes_max` is above 0. Machines of one `affinity` stay on one host together,
    of one `anti_affinity` no host takes a second. What makes the copy of a busy machine end must be allowed: to slow it
    down (`migration_auto_converge`); or to run it on the other host before all is copied (`migration_post_copy`), which
    loses the machine when a host or the network fails in between.
    """

    name: str
    priority: int = 0
    cpu_cores_min: float = 1.0
    cpu_cores_max: float = 1.0
    vcpus_max: int = 1
    memory_bytes_min: int = 64 << 20
    movable: bool = False
    migration_auto_converge: bool = False
    migration_post_copy: bool = False
    memory_bytes_max: int = 0
    affinity: str | None = None
    anti_affinity: str | None = None


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """When and how traffic is routed. `churn`: the price of moving; `outlook`: the weight of forecasts.

    Nothing is done unless the fullest link is expected above `trigger` of its capacity, and will be emptier by
    `min_gain` of that.
    """

    every_s: Seconds = 30.0
    paths: int = 4
    churn: float = 0.002
    outlook: float = 0.2
    trigger: float = 0.5
    min_gain: float = 0.05
    lease_s: Seconds = 900.0
