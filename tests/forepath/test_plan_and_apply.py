"""A plan is written down, read by a person, and carried out once, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from lab_on_paper import BY_HAND_BYTES_PER_S, COPYING, SHOPPING, fill

from cpdb import InstallStatus, OutcomeKind, Pair, ReservationReport, SettingsError, Store
from forepath import processes
from forepath.demo.layout import LabLayout
from forepath.paths import PathReader
from forepath.settings import Settings
from orchestrator import Approval, FakeHypervisors, FakeVm

NOW = 1_000_000.0


@dataclass
class SwitchesOnPaper:
    """Meters stand while their lease does, and are reported."""

    store: Store
    limits: dict[Pair, float] = field(default_factory=dict)

    def poll(self, now: float) -> None:
        held = self.store.wanted.reservations(now)
        limits = sorted((limit for one in held for limit in one.limits), key=lambda one: -one.bytes_per_s)
        self.limits = {limit.pair: limit.bytes_per_s for limit in limits}
        made = InstallStatus.INSTALLED, "on paper", now
        self.store.wanted.observe([ReservationReport(one.key, "leaf1", one.generation, *made) for one in held])


@dataclass
class Stage:
    """The lab on fakes; time passes only while somebody sleeps, and then the controller does its part."""

    store: Store
    settings: Settings
    now: float = NOW
    controller_alive: bool = True
    machines: dict[str, FakeVm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fill(self.store, self.now)
        self.controller = SwitchesOnPaper(self.store)
        config = processes.orchestrator_config(self.settings, act=True)
        self.machines = {vm.name: FakeVm(vm.name, vm.host, vm.quota_cores) for vm in LabLayout().vms}
        self.hypervisors = FakeHypervisors(
            {host.name: host for host in config.declared.hosts}, self.machines, lambda _vm, _now: 0.05
        )
        paths = PathReader(self.store, 1.0, self.clock)
        self.approval = Approval(config, self.store, self.hypervisors, paths)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.controller_alive:
            self.controller.poll(self.now)

    def propose(self) -> int:
        number = self.approval.propose(self.now).id
        assert number is not None
        return number


@pytest.fixture
def stage(empty: Store, settings: Settings) -> Stage:
    return Stage(empty, settings)


def kept_free(stage: Stage) -> list[str]:
    return [one.key for one in stage.store.wanted.reservations(stage.now) if one.owner != "somebody"]


def test_a_plan_is_stored_with_its_reasons_and_touches_nothing(stage: Stage) -> None:
    before, actions = stage.store.wanted.generation(), stage.store.journal.actions()
    record = stage.approval.propose(stage.now)
    assert record.id is not None and stage.store.journal.plan(record.id) == record
    assert record.state == "open" and record.expires_at > stage.now
    (step,) = [one for one in record.body["steps"] if one["action"]["kind"] == "reserve_bandwidth"]
    assert str(SHOPPING) in step["describe"] and str(COPYING) in step["describe"] and step["why"]
    assert stage.store.wanted.generation() == before
    assert stage.store.journal.actions() == actions
    assert stage.hypervisors.started == []


def test_a_plan_is_carried_out_once_and_its_outcome_is_recorded(stage: Stage) -> None:
    number = stage.propose()
    done = stage.approval.carry_out(number, stage.clock, stage.sleep)
    assert [one.outcome for one in done] == [OutcomeKind.DONE] * len(done) and done
    assert [stage.store.journal.action(one.id or 0) for one in done] == done
    assert kept_free(stage)
    assert stage.controller.limits[COPYING] < 0.99 * BY_HAND_BYTES_PER_S
    with pytest.raises(SettingsError, match=f"plan {number}: is applied already"):
        stage.approval.carry_out(number, stage.clock, stage.sleep)


def test_a_controller_that_never_answers_is_a_recorded_failure(stage: Stage) -> None:
    stage.controller_alive = False
    done = stage.approval.carry_out(stage.propose(), stage.clock, stage.sleep)
    assert {one.outcome for one in done} == {OutcomeKind.FAILED}
    assert all(one.sentence for one in done)


def _wait(stage: Stage) -> None:
    stage.now += 31


def _plan_again(stage: Stage) -> None:
    stage.propose()


@pytest.mark.parametrize("spoil,told", [(_wait, "expired 1 s ago"), (_plan_again, "is superseded")])
def test_an_old_plan_is_refused_and_nothing_is_touched(stage: Stage, spoil: Callable[[Stage], None], told: str) -> None:
    number = stage.propose()
    spoil(stage)
    before = stage.store.journal.actions()
    with pytest.raises(SettingsError, match=told):
        stage.approval.carry_out(number, stage.clock, stage.sleep)
    assert kept_free(stage) == [] and stage.store.journal.actions() == before


def test_an_unknown_plan_is_refused(stage: Stage) -> None:
    with pytest.raises(SettingsError, match="plan 77: there is none"):
        stage.approval.carry_out(77, stage.clock, stage.sleep)
