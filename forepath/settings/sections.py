"""What each table of the settings file may say: types, units, bounds and defaults."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cpdb import IPV4, NodeKind, Section

MAC = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"
PROBE = r"^(arp|none|tcp:[1-9]\d{0,4})$"
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.:-]+$")]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class PredictorSection(Section):
    """What is forecast, and from how much history.

    `slow_horizons_s` are those of the lane for slow actions, in cells of `slow_step_s`; none = no such lane.
    """

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    horizons_s: Annotated[tuple[Annotated[int, Field(ge=1, le=600)], ...], Field(min_length=1, max_length=16)] = (
        5,
        15,
        30,
    )
    slow_horizons_s: Annotated[tuple[Annotated[int, Field(ge=10, le=3600)], ...], Field(max_length=16)] = (
        60,
        120,
        300,
        600,
    )
    slow_step_s: Annotated[float, Field(ge=2, le=60)] = 10.0
    slow_history_s: Annotated[float, Field(ge=240)] = 3600.0
    levels: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=32)] = (
        0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99,
    )  # fmt: skip
    history_s: Annotated[float, Field(ge=60)] = 900.0
    refit_every_s: Positive = 30.0


class OrchestratorSection(Section):
    """How much certainty and room an action needs. Whether it acts at all is said on the command line, with --act.

    `cost_of_short` is what being short costs, in units of what idling costs; it decides which quantile of a forecast
    counts as the need, unless `level` names that quantile itself.
    """

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    policy: Literal["predictive", "reactive"] = "predictive"
    cost_of_short: Annotated[float, Field(ge=1, le=1000)] = 9.0
    level: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    margin: Annotated[float, Field(ge=1, le=3)] = 1.15
    link_headroom: Share = 0.92
    host_headroom: Share = 0.92
    lease_s: Annotated[float, Field(ge=2, le=600)] = 8.0
    balance: bool = True
    migration_mbit_per_s: Positive = 1000.0
    migration_over_links: bool = False
    follow_sources: bool = False
    migration_limit_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    migrations_at_once: Annotated[int, Field(ge=1)] = 2
    migrations_per_host: Annotated[int, Field(ge=1)] = 1
    migrations_per_link: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "OrchestratorSection":
        if self.level is not None and "cost_of_short" in self.model_fields_set:
            raise ValueError("level and cost_of_short say the same in two ways; give one of them")
        return self


class NodeSection(Section):
    """A switch, client or hypervisor with a name of its own."""

    name: Name
    kind: NodeKind
    address: Annotated[str, Field(pattern=IPV4)] | None = None
    mac: Annotated[str, Field(pattern=MAC)] | None = None
    dpid: Annotated[int, Field(ge=1)] | None = None


class LinkSection(Section):
    """A link between two nodes; a switch's port must be given for its capacity to be known to the controller.

    `queue_device` is the interface with which switch `a` sends to `b`: there, a share of capacity can be guaranteed.
    """

    a: Name
    b: Name
    a_port: Annotated[int, Field(ge=0)] = 0
    b_port: Annotated[int, Field(ge=0)] = 0
    capacity_mbit_per_s: Positive
    queue_device: Annotated[str, Field(pattern=r"^[^\s/]{1,15}$")] | None = None
    guaranteed_share: Annotated[float, Field(gt=0, lt=1)] = 0.8

    @model_validator(mode="after")
    def _share_of_a_queue(self) -> "LinkSection":
        if self.queue_device is None and "guaranteed_share" in self.model_fields_set:
            raise ValueError("guaranteed_share needs queue_device, the switch's interface from a towards b")
        return self


class DestinationSection(Section):
    """One of the alternative destinations of a virtual IP. `name` is the VM's name; weight 0 means stand-by."""

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    mac: Annotated[str, Field(pattern=MAC)]
    weight: Annotated[int, Field(ge=0, le=1000)] = 100


class VirtualIpSection(Section):
    """A service address; competitors of lower priority may be limited for the sake of a higher one.

    `affinity` "source" keeps all connections of a source at one destination, "connection" places each new one anew.
    `probe` says how destinations are asked whether they live: "arp", "tcp:PORT" or "none".
    """

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    priority: int = 0
    tenant: Name | None = None
    affinity: Literal["source", "connection"] = "source"
    probe: Annotated[str, Field(pattern=PROBE)] = "arp"
    destination: Annotated[tuple[DestinationSection, ...], Field(min_length=1)]


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

    name: Name
    uri: str
    migration_uri: str | None = None
    cpu_cores: Positive
    memory_mib: Annotated[int, Field(gt=0)]
    cordoned: bool = False
    maintenance: bool = False


class VmSection(Section):
    """A virtual machine: its rank, and between which limits its CPU and memory may be set.

    Memory is planned only with `memory_mib_max`. `affinity` names machines that share a host, `anti_affinity` such of
    which no host takes two.
    """

    name: Name
    priority: int = 0
    tenant: Name | None = None
    cpu_cores_base: Positive
    cpu_cores_max: Positive
    vcpus_max: Annotated[int, Field(ge=1)] = 1
    memory_mib_min: Annotated[int, Field(ge=64)] = 64
    memory_mib_max: Annotated[int, Field(ge=64)] | None = None
    movable: bool = False
    migration_auto_converge: bool = False
    migration_post_copy: bool = False
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


class RoutingSection(Section):
    """Off unless `enabled`. `churn` is the price of moving traffic, `outlook` the weight that forecasts have.

    Nothing moves while the fullest link is expected below `trigger`, or gains less than `min_gain` (shares of 1).
    """

    enabled: bool = False
    every_s: Annotated[float, Field(ge=5, le=3600)] = 30.0
    paths: Annotated[int, Field(ge=2, le=16)] = 4
    churn: Annotated[float, Field(ge=0, le=1)] = 0.002
    outlook: Annotated[float, Field(ge=0, lt=1)] = 0.2
    trigger: Share = 0.5
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.05
    lease_s: Annotated[float, Field(ge=60, le=86400)] = 900.0
