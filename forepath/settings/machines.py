"""What the settings file may say of pools: machines that help a virtual IP when its own are not enough."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpdb import IPV4, Section
from forepath.settings.sections import MAC, Name, Positive, Share

How = Literal["paused", "saved", "defined", "image"]
Limit = Annotated[float, Field(ge=0, le=3600)]


class PoolMemberSection(Section):
    """One machine of a pool. `how` it rests while it does not serve, where that differs from the pool's."""

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    mac: Annotated[str, Field(pattern=MAC)]
    host: Name
    how: How | None = None


class PoolMachineSection(Section):
    """What each machine of a pool is given; `image` and `template` make one anew, for `how = "image"`."""

    cpu_cores_base: Positive = 1.0
    cpu_cores_max: Positive = 1.0
    vcpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(gt=0)] = 1024
    image: Annotated[str, Field(pattern=r"^/")] | None = None
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
    probe: Annotated[str, Field(pattern=r"^(agent|none|tcp:\d{1,5})$")] = "none"
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
