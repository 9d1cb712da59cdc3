"""The loop keeps going through failed cycles and ends when told; settings are refused at the door."""

import threading
from dataclasses import replace

import pytest
from fake_world import CONFIG, HOSTS, VMS, Simulation, paths

from cpdb import SettingsError, Store, StoreError
from orchestrator import HostSpec, Orchestrator, OrchestratorConfig, VmSpec, problems, run


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
    stop, good = threading.Event(), []

    def told(report: object) -> None:
        good.append(report)
        if len(good) == 2:
            stop.set()

    assert run(flaky, 0.01, stop, told=told) == 2
    assert (flaky.turns, flaky.closed, len(good)) == (4, 1, 2)


def test_all_wrong_settings_are_named_at_once(store: Store) -> None:
    host = HostSpec("h", "", "", 0.0, 1)
    bad = OrchestratorConfig(
        hosts=(host, host),
        vms=(VmSpec("v", cpu_cores_min=2, cpu_cores_max=1),),
        margin=0.5,
        lease_s=1,
        horizons_s=(5, 5),
    )
    text = "\n".join(problems(bad))
    for part in ("margin", "lease_s", "horizons_s", "h is named twice", "hosts.h", "vms.v"):
        assert part in text
    sim = Simulation(store)
    with pytest.raises(SettingsError) as caught:
        Orchestrator(bad, store, sim.hypervisors, paths)
    assert "margin" in str(caught.value)


def test_the_defaults_are_fine() -> None:
    assert problems(OrchestratorConfig()) == []
    assert problems(replace(CONFIG, hosts=HOSTS, vms=VMS)) == []
