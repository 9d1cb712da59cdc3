"""The loop keeps going through failed cycles and ends when told; settings are refused at the door."""

import threading

import pytest
from fake_world import CONFIG, Simulation, paths
from pydantic import ValidationError

from cpdb import Store, StoreError
from orchestrator import HostSpec, Orchestrator, OrchestratorConfig, VmSpec, problem_lines, run


class Flaky(Orchestrator):
    """Fails its first cycles in two ways, then works."""

    turns = 0
    closed = 0

    def cycle(self, now: float):  # type: ignore[no-untyped-def]
        self.turns += 1
        if self.turns == 1:
            raise StoreError("database: gone")
        if self.turns == 2:
            raise ZeroDivisionError
        return super().cycle(now)

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_the_loop_outlives_failed_cycles_and_closes_when_stopped(store: Store) -> None:
    sim = Simulation(store)
    flaky = Flaky(CONFIG, store, sim.hypervisors, paths)
    stop, heard = threading.Event(), []

    def told(report: object) -> None:
        heard.append(report is not None)
        if sum(heard) == 2:
            stop.set()

    assert run(flaky, 0.01, stop, told=told) == 2
    assert (flaky.turns, flaky.closed, heard) == (4, 1, [False, False, True, True])


def test_all_wrong_settings_are_named_at_once(store: Store) -> None:
    host = HostSpec("h", "", "", 0.0, 1)
    with pytest.raises(ValidationError) as caught:
        OrchestratorConfig(
            declared={"hosts": (host, host), "vms": (VmSpec("v", cpu_cores_min=2, cpu_cores_max=1),)},
            demand={"margin": 0.5, "horizons_s": (5, 5)},
            bandwidth={"lease_s": 1},
        )
    text = "\n".join(problem_lines(caught.value))
    for part in ("demand.margin", "lease_s", "horizons_s", "h is named twice", "hosts.h", "vms.v"):
        assert part in text


def test_a_lease_outlives_two_polls() -> None:
    with pytest.raises(ValidationError, match=r"lease_s: 8\.0 ends before it can be renewed; write at least 10"):
        OrchestratorConfig(timing={"poll_s": 5.0})


def test_an_unknown_setting_is_an_error_and_a_kind_left_out_keeps_its_default() -> None:
    with pytest.raises(ValidationError, match="no_such"):
        OrchestratorConfig(cpu={"no_such": 1})
    with pytest.raises(ValidationError, match="fly: no such kind of action"):
        OrchestratorConfig(guard={"budgets": {"per_minute": {"fly": 1}}})
    config = OrchestratorConfig(guard={"budgets": {"per_minute": {"migrate_vm": 1}}})
    assert config.guard.budgets.per_minute["migrate_vm"] == 1
    assert config.guard.budgets.per_minute["set_weights"] == 6
