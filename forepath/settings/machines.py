"""What the settings file may say of pools: machines that help a virtual IP when its own are not enough."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cpdb import IPV4, Section
from forepath.settings.sections import MAC, Name, Positive

How = Literal["paused", "saved", "defined", "image"]
Limit = Annotated[float, Field(ge=0, le=3600)]


class PoolMemberSection(Section):
    """One machine of a pool. `how` it rests while it does not serve, where that differs from the pool's."""

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    mac: Annotated[str, Field(pattern=MAC)]
    host: Name
    how: How | None = None


class PoolSection(Section):
    """Machines for the virtual IP named `virtual_ip`; `least` and `most` count all destinations that serve.

    `probe` is asked before the controller's own: "agent" (the guest's), "tcp:PORT" (from here) or "none".
    """

    virtual_ip: Name
    how: How = "paused"
    least: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(ge=1)] = 2
    weight: Annotated[int, Field(ge=1, le=1000)] = 100
    cpu_cores_base: Positive = 1.0
    cpu_cores_max: Positive = 1.0
    vcpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(gt=0)] = 1024
    image: Annotated[str, Field(pattern=r"^/")] | None = None
    template: Path | None = None
    probe: Annotated[str, Field(pattern=r"^(agent|none|tcp:\d{1,5})$")] = "none"
    ramp: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5, 1.0)
    ramp_step_s: Limit = 1.0
    wake_limit_s: Limit = 30.0
    boot_limit_s: Limit = 60.0
    health_limit_s: Limit = 15.0
    quiet_s: Limit = 3.0
    drain_limit_s: Limit = 120.0
    cut_connections: bool = False
    cooldown_s: Limit = 30.0
    member: Annotated[tuple[PoolMemberSection, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> "PoolSection":
        if self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}")
        if self.cpu_cores_max < self.cpu_cores_base:
            raise ValueError(f"cpu_cores_max {self.cpu_cores_max} is below cpu_cores_base {self.cpu_cores_base}")
        if (self.image is None) != (self.template is None):
            raise ValueError("image and template belong together: a qcow2 file, and the XML of a domain that uses it")
        if not self.ramp or list(self.ramp) != sorted(self.ramp) or self.ramp[-1] != 1.0:
            raise ValueError(f"ramp {self.ramp} must ascend to 1, e.g. [0.25, 0.5, 1.0]")
        if self.image is None and any((one.how or self.how) == "image" for one in self.member):
            raise ValueError('how = "image" needs image and template')
        return self
