"""The whole loop in virtual time: foreseeing helps, quiet traffic is left alone, and nobody is told the schedule."""

import io
from pathlib import Path

import pytest
from lab_on_paper import Forepath
from rich.console import Console

from cpdb import Store
from forepath.demo.report import TrialResult, action_row, document, taken
from forepath.demo.screen import Screen
from forepath.demo.simulated import Rehearsal, SimulatedTrial
from predictor import PredictorConfig, Tiers

# Without the two slow models a trial costs seconds instead of minutes.
FORESEEING = PredictorConfig(models=("naive", "ewma", "train_mean", "seasonal_naive"))


def play(folder: Path, scenario: str) -> TrialResult:
    screen = Screen(Console(file=io.StringIO()))
    return SimulatedTrial(1, scenario, folder, screen, Rehearsal(predictor=FORESEEING)).run()


@pytest.fixture(scope="module")
def surge(tmp_path_factory: pytest.TempPathFactory) -> TrialResult:
    return play(tmp_path_factory.mktemp("surge"), "surge")


def test_foreseeing_is_ahead_of_reacting_which_is_ahead_of_nothing(surge: TrialResult) -> None:
    static, reactive, predictive = (surge.policies[name] for name in ("static", "reactive", "predictive"))
    assert static.offered_bytes > 5e6
    assert reactive.delivered_bytes > 1.1 * static.delivered_bytes
    assert predictive.delivered_bytes >= reactive.delivered_bytes
    assert predictive.p95_latency_s is not None and reactive.p95_latency_s and static.p95_latency_s
    assert 10 * predictive.p95_latency_s < reactive.p95_latency_s <= static.p95_latency_s


def test_foreseeing_halves_the_shortage_of_cpu_without_allotting_much_more(surge: TrialResult) -> None:
    static, reactive, predictive = (surge.policies[name].cpu for name in ("static", "reactive", "predictive"))
    assert static.total_shortage_s > reactive.total_shortage_s > 4
    assert predictive.total_shortage_s <= 0.5 * reactive.total_shortage_s
    assert predictive.vcpu_seconds <= 1.1 * reactive.vcpu_seconds


def test_two_kinds_of_action_are_ready_before_a_surge(surge: TrialResult) -> None:
    rows = [action_row(one, surge.windows) for one in taken(surge.actions) if one.policy == "predictive"]
    early = {row["kind"] for row in rows if row["lead_s"] is not None and row["lead_s"] > 0}
    assert len(early) >= 2, rows


def test_nobody_acts_under_the_static_policy(surge: TrialResult) -> None:
    assert {one.policy for one in taken(surge.actions)} == {"predictive", "reactive"}


def test_the_trial_is_a_replay_that_anyone_can_repeat(surge: TrialResult, forepath: Forepath) -> None:
    assert surge.replayed is not None
    found = surge.replayed.document
    assert found["bound"]["cost"] <= found["policies"]["oracle"]["cost"] < found["policies"]["static"]["cost"]
    words = ("--settings", found["settings"], "--warm-up", found["warm_up_s"], "--policies", "static")
    again = forepath("whatif", found["recording"], *words, "--json", "-").json()
    assert again["policies"]["static"] == found["policies"]["static"]


def test_the_result_is_labelled_as_simulated(surge: TrialResult) -> None:
    assert document(surge)["simulated"] is True


def test_quiet_traffic_is_left_alone(tmp_path: Path) -> None:
    calm = play(tmp_path, "calm")
    assert calm.windows == ()
    assert [f"{one.policy} {one.kind} {one.target}: {one.why}" for one in taken(calm.actions)] == []


def test_who_foresees_is_given_the_database_and_the_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []

    class Onlooker(Tiers):
        def cycle(self, *arguments: object, **named: object) -> None:  # type: ignore[override]
            given.append((*arguments, *named.values()))
            raise KeyboardInterrupt

    monkeypatch.setattr("backtest.whatif.policies.Tiers", Onlooker)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, "surge")
    ((store, now),) = given
    assert isinstance(store, Store) and isinstance(now, float)
    assert "surge" not in (tmp_path / "forepath.toml").read_text()


@pytest.mark.long
def test_a_crowd_is_met_by_another_machine_and_by_shares_of_connections(tmp_path: Path) -> None:
    found = play(tmp_path, "crowd")
    static, reactive, predictive = (found.policies[name] for name in ("static", "reactive", "predictive"))
    assert min(reactive.delivered_bytes, predictive.delivered_bytes) > 2 * static.delivered_bytes
    assert {"scale_out", "set_weights"} <= {one.kind for one in taken(found.actions)}
