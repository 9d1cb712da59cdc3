"""What an operator decides once, in small sections: machines, thresholds, guards. Nothing here is learnt.

Each section is handed as it is to what owns it, and is a table of the settings file: `[orchestrator.bandwidth]`, ...
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cpdb import AboveZero, BytesPerS, Count, NotNegative, Seconds, Section, ShareOf1, in_words
from orchestrator.declared import DeclaredMachines
from orchestrator.foresight_settings import DemandSettings, LearningSettings

Policy = Literal["predictive", "reactive"]
# Advice, everything, or each kind of action that is measured to pay.
Act = bool | Literal["earned"]
NOW = 0  # the horizon of what is measured
# Under this name the orchestrator writes what it wants.
OWNER = "orchestrator"
# Matrices between two decisions about routes, as in the setting that was chosen on recordings.
SAMPLES_A_DECISION = 25
# The mark (expedited forwarding) that sends a packet into the guaranteed queue of a link that has one.
QUEUE_DSCP = 46
BUDGETS_PER_MINUTE: Mapping[str, int] = MappingProxyType(
    {
        "reserve_bandwidth": 30,
        "release_bandwidth": 30,
        "set_cpu_limit": 30,
        "set_vcpus": 6,
        "set_memory": 6,
        "set_network_rate": 6,
        "migrate_vm": 4,
        "set_weights": 6,
        "scale_out": 6,
        "scale_in": 6,
        "set_routes": 20,
    }
)
# Until enough was seen here: an OpenFlow rule waits for the next look at what is wanted, a move copies all memory.
LEAD_PRIORS_S: Mapping[str, Seconds] = MappingProxyType(
    {
        "reserve_bandwidth": 1.5,
        "release_bandwidth": 1.5,
        "set_weights": 1.5,
        "set_cpu_limit": 0.5,
        "set_vcpus": 2.0,
        "set_memory": 1.0,
        "set_network_rate": 0.5,
        "migrate_vm": 4.0,
        "scale_out_paused": 4.0,
        "scale_out_saved": 5.0,
        "scale_out_defined": 12.0,
        "scale_out_image": 15.0,
        "scale_in": 10.0,
        "set_routes": 4.0,
    }
)


class BandwidthSettings(Section):
    """Reservations begin above the `trigger`, fill a link up to it, and end below the `headroom`: shares of capacity.

    Nobody is limited below the `floor`; limits that differ less than the `deadband` are left as they are.
    """

    trigger: ShareOf1 = 0.97
    headroom: ShareOf1 = 0.92
    floor: ShareOf1 = 0.05
    deadband: NotNegative = 0.1
    lease_s: Seconds = 8.0

    @field_validator("lease_s")
    @classmethod
    def _check_lease(cls, value: Seconds) -> Seconds:
        if value < 2:
            raise ValueError(f"{value} ends before it can be renewed; write at least 2")
        return value


class CpuSettings(Section):
    """CPU limits leave `headroom` above what is measured, in steps; what is foreseen counts by the second, without.

    A limit goes back after `calm_s` below `calm_share` of the everyday limit, and at once where trusted forecasts are
    sure that it is not needed. Host shares are of the host's cores.
    """

    headroom: ShareOf1 = 0.85
    step_cores: AboveZero = 0.05
    min_gain: NotNegative = 0.5
    deadband: NotNegative = 0.1
    calm_s: AboveZero = 10.0
    calm_share: ShareOf1 = 0.7
    host_headroom: ShareOf1 = 0.92
    host_deadband: NotNegative = 0.05

    @model_validator(mode="before")
    @classmethod
    def _check_hedge(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "hedge_s" in values:
            raise ValueError("hedge_s is no longer a setting, since it hardly helped; delete it")
        return values


class MemorySettings(Section):
    """What is kept free beside a need (this share of it, at least so much), and in which steps it is given."""

    reserve: NotNegative = 0.15
    reserve_mib: Annotated[int, Field(ge=0)] = 24
    step_mib: Count = 16
    deadband: NotNegative = 0.15

    @property
    def reserve_bytes(self) -> int:
        """What is kept free at least."""
        return self.reserve_mib << 20

    @property
    def step_bytes(self) -> int:
        """The size of a step."""
        return self.step_mib << 20


class RegionSettings(Section):
    """Moves of machines are planned apart in the regions that hosts are declared in.

    Without any, networks of `find_from` hosts and more are divided by who is linked most closely, into regions of
    `least_hosts` at least. What a region cannot place goes to one of the `between` hosts with most room of all.
    """

    find_from: Count = 400
    least_hosts: Count = 50
    between: Count = 32


class MoveSettings(Section):
    """Live migration: how fast memory is copied, whether that takes from the links between hosts, how many at a time.

    How long a move may take follows from its estimate: it must be ready before the need, and a copy that takes three
    times what was expected is broken off. `limit_s` is a bound beyond that, None for none. For a need that is there
    already nothing is begun that takes longer than `unforeseen_s`, unless trusted forecasts say that it lasts.
    `follow_sources`: machines go nearer to those who will call them although nothing is short.
    """

    mbit_per_s: AboveZero = 1000.0
    over_links: bool = False
    limit_s: Annotated[float, Field(ge=1, le=86_400)] | None = None
    unforeseen_s: AboveZero = 30.0
    at_once: Count = 2
    per_host: Count = 1
    per_link: Count = 1
    follow_sources: bool = False
    regions: RegionSettings = RegionSettings()

    @property
    def bytes_per_s(self) -> BytesPerS:
        """How fast memory is copied."""
        return self.mbit_per_s * 1e6 / 8


class WeightSettings(Section):
    """Whether weights follow predicted headroom, below which headroom, for which gain, and how often."""

    enabled: bool = True
    below: NotNegative = 0.15
    min_gain: NotNegative = 0.1
    cooldown_s: NotNegative = 20.0


class RouteSettings(Section):
    """When and how traffic is routed. `churn`: the price of moving; `outlook`: the weight of forecasts.

    `enabled` "auto": where there is a choice, and it is known what links can carry (`observe/matrices.py`).
    Nothing is done unless the fullest link is expected above `trigger` of its capacity, and will be emptier by
    `min_gain` of that.
    """

    enabled: bool | Literal["auto"] = "auto"
    every_s: AboveZero = 30.0
    paths: Annotated[int, Field(ge=2, le=16)] = 4
    churn: Annotated[float, Field(ge=0, le=1)] = 0.002
    outlook: Annotated[float, Field(ge=0, lt=1)] = 0.2
    trigger: ShareOf1 = 0.8
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.05
    lease_s: AboveZero = 900.0
    first_label: Literal[1024, 2048, 3072] = 3072

    @property
    def sample_s(self) -> Seconds:
        """How often the traffic between switches is noted: so many times between two decisions."""
        return self.every_s / SAMPLES_A_DECISION


class BudgetSettings(Section):
    """Actions a minute: of each kind, on each host, for each tenant. Kinds that are not named keep their budget."""

    per_minute: Mapping[str, int] = Field(default_factory=lambda: dict(BUDGETS_PER_MINUTE))
    per_host: int = 30
    per_tenant: int = 30

    @field_validator("per_minute")
    @classmethod
    def _complete(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        _check_kinds(value, BUDGETS_PER_MINUTE)
        return {**BUDGETS_PER_MINUTE, **value}


class GuardSettings(Section):
    """How old the world may be, how long things rest after a change, and how large one change may be.

    What turned round `max_turns` times within `turns_window_s` is left as it is for `hold_still_s`; nothing is made
    `max_step` times larger or smaller in one go.
    """

    max_world_age_s: AboveZero = 5.0
    move_cooldown_s: NotNegative = 60.0
    resize_cooldown_s: NotNegative = 5.0
    oscillation_s: NotNegative = 300.0
    max_turns: Count = 8
    turns_window_s: NotNegative = 60.0
    hold_still_s: NotNegative = 120.0
    max_step: float = 4.0
    retry_s: NotNegative = 30.0
    stop_file: Path | None = Path(".run/paused")
    budgets: BudgetSettings = BudgetSettings()

    @field_validator("max_step")
    @classmethod
    def _check_step(cls, value: float) -> float:
        if value <= 1:
            raise ValueError(f"{value} would allow no change at all; write 4 for four times")
        return value


class TimingSettings(Section):
    """How long things take and how often they are repeated, in seconds.

    What is not in effect for `min_hold_s` before the need has passed is not worth its cost. Of two acting orchestrators
    one stands by: it takes over when for `duty_s` (three cycles, at least 5 s) nothing was heard of the other.
    Where everything is steady decisions may be up to `steady_cycle_s` apart, where that is more than `cycle_s`.
    Without a `poll_s` of its own the orchestrator believes that counters are as old as the controller's.
    """

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    steady_cycle_s: Annotated[float, Field(ge=0.2, le=10)] = 1.0
    poll_s: AboveZero = 1.0
    decision_s: NotNegative = 0.5
    lead_priors_s: Mapping[str, Seconds] = Field(default_factory=lambda: dict(LEAD_PRIORS_S))
    min_hold_s: NotNegative = 1.0
    advice_repeat_s: NotNegative = 30.0
    install_timeout_s: AboveZero = 5.0
    duty_s: AboveZero = 5.0
    history_s: AboveZero = 300.0
    learn_every_s: NotNegative = 10.0

    @model_validator(mode="after")
    def _three_cycles(self) -> Self:
        if "duty_s" not in self.model_fields_set:
            self.__dict__["duty_s"] = max(5.0, 3 * self.cycle_s)
        return self

    @field_validator("lead_priors_s")
    @classmethod
    def _complete(cls, value: Mapping[str, Seconds]) -> Mapping[str, Seconds]:
        _check_kinds(value, LEAD_PRIORS_S)
        return {**LEAD_PRIORS_S, **value}


def _check_kinds(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{', '.join(unknown)}: no such kind of action; known here: {', '.join(sorted(known))}")


class OrchestratorSection(Section):
    """The table [orchestrator]. Shares are of 1, times are seconds."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "cycle_s": "orchestrator.timing.cycle_s",
        "cost_of_short": "orchestrator.demand.cost_of_short",
        "level": "orchestrator.demand.level",
        "margin": "orchestrator.demand.margin",
        "link_headroom": "orchestrator.bandwidth.headroom",
        "lease_s": "orchestrator.bandwidth.lease_s",
        "host_headroom": "orchestrator.cpu.host_headroom",
        "balance": "orchestrator.weights.enabled",
        "migration_mbit_per_s": "orchestrator.moves.mbit_per_s",
        "migration_over_links": "orchestrator.moves.over_links",
        "migration_limit_s": "orchestrator.moves.limit_s",
        "migrations_at_once": "orchestrator.moves.at_once",
        "migrations_per_host": "orchestrator.moves.per_host",
        "migrations_per_link": "orchestrator.moves.per_link",
        "follow_sources": "orchestrator.moves.follow_sources",
    }

    policy: Policy = "predictive"
    act: Act = False
    demand: DemandSettings = DemandSettings()
    bandwidth: BandwidthSettings = BandwidthSettings()
    cpu: CpuSettings = CpuSettings()
    memory: MemorySettings = MemorySettings()
    moves: MoveSettings = MoveSettings()
    weights: WeightSettings = WeightSettings()
    guard: GuardSettings = GuardSettings()
    learning: LearningSettings = LearningSettings()
    timing: TimingSettings = TimingSettings()


class OrchestratorConfig(OrchestratorSection):
    """All that the orchestrator is told: its table, [routing] and what is declared."""

    declared: DeclaredMachines = DeclaredMachines()
    routing: RouteSettings = RouteSettings()

    @property
    def horizons_s(self) -> tuple[int, ...]:
        """Every moment that is looked at: now, and under the predictive policy each horizon of the forecasts."""
        return (NOW, *self.demand.every_horizon_s) if self.policy == "predictive" else (NOW,)

    def horizons_up_to(self, horizon_s: int) -> tuple[int, ...]:
        """Those of them up to this one: what looks farther acts earlier than it need."""
        return tuple(one for one in self.horizons_s if one <= horizon_s)

    @cached_property
    def reacts(self) -> Self:
        """The same under the reactive policy."""
        return self.tuned(policy="reactive")

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        least_s = 2 * self.timing.poll_s
        if self.bandwidth.lease_s < least_s:
            raise ValueError(
                f"bandwidth.lease_s: {self.bandwidth.lease_s} ends before it can be renewed; write at least {least_s}"
            )
        return self


def problem_lines(error: ValidationError) -> list[str]:
    """One line for each setting that is wrong: where it is, and what to write instead."""
    lines = []
    for item in error.errors():
        where = ".".join(("orchestrator", *(str(part) for part in item["loc"])))
        if item["type"] == "value_error":
            lines.append(f"{where}: {item['ctx']['error']}")
        else:
            lines.append(f"{where} = {item['input']!r}: {in_words(item)}")
    return lines
