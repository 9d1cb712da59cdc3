"""The demo's result as programs and people get it, and the scene as a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab_on_paper import paper_settings
from rich.console import Console

from cpdb import ActionRecord, ActionTiming, OutcomeKind
from forepath.demo.cpu_need import Price
from forepath.demo.report import (
    PolicyFigures,
    ReplayedTrial,
    TrialResult,
    action_row,
    document,
    gives_back,
    surge_for,
    tables,
    taken,
    whatif_lines,
)
from forepath.demo.scene import as_toml
from forepath.demo.schedule import JudgedWindow
from forepath.settings import Settings, load_settings

FIRST, SECOND = (
    JudgedWindow("predictive", 100.0, 110.0, "c1", "shop"),
    JudgedWindow("predictive", 130.0, 140.0, "c1", "shop"),
)
WINDOWS = (FIRST, SECOND)
ROW_KEYS = ["policy", "kind", "target", "issued_at", "ready_at", "surge_at", "lead_s", "outcome", "why"]
FIGURES = PolicyFigures(1_000_000, 900_000, 0.5, 3.0, 2.0, 0.8)


def action(
    issued_at: float, ready_at: float | None = None, kind: str = "reserve_bandwidth", **body: Any
) -> ActionRecord:
    outcome = OutcomeKind.DONE if ready_at is not None else OutcomeKind.FAILED
    return ActionRecord(kind, "x", body, "why", {}, "predictive", issued_at, ActionTiming(None, 1.0, ready_at), outcome)


def result(*actions: ActionRecord) -> TrialResult:
    figures = {"static": FIGURES, "reactive": FIGURES, "predictive": FIGURES}
    return TrialResult(1, "surge", True, figures, actions, WINDOWS)


def test_how_fast_the_machine_was_is_told_below_the_table() -> None:
    measured = replace(result(), simulated=False, price=Price(0.02, 1.38))
    assert "1.38 times its nominal CPU" in shown(measured)
    assert "the least that it can have been" in shown(replace(measured, price=Price(measured=False)))
    assert "nominal" not in shown(result())


def test_the_result_fits_a_narrow_terminal_with_a_line_an_action() -> None:
    made = replace(action(95.0, 96.0), target="c1->10.77.0.102@leaf2>hA, which is a long name")
    text = shown(result(made, made), 80)
    assert max(map(len, text.splitlines())) <= 80 and "vCPU-seconds" in text
    assert sum("reserve_bandwidth" in line for line in text.splitlines()) == 2 == text.count("…")


def test_the_document_has_exactly_the_documented_keys() -> None:
    told = document(result(action(95.0, 96.0)))
    assert list(told) == ["seed", "scenario", "simulated", "cpu_price", "policies", "actions", "whatif"]
    for figures in told["policies"].values():
        assert list(figures) == [
            "offered_bytes", "delivered_bytes", "p95_latency_s", "short_bandwidth_s", "short_cpu_s", "competing_share",
            "shortage_s", "shortage_s_by_vm", "shortage_beyond_host_s", "held_back_s_by_vm", "vcpu_seconds",
            "cpu_seconds",
        ]  # fmt: skip
    assert [list(row) for row in told["actions"]] == [ROW_KEYS]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize(
    "issued_at,ready_at,lead_s", [(95.0, 96.0, 4.0), (101.0, 103.5, -3.5), (110.0, 111.0, 19.0), (145.0, 146.0, None)]
)
def test_lead_is_positive_before_the_surge_and_negative_after(
    issued_at: float, ready_at: float, lead_s: float | None
) -> None:
    assert action_row(action(issued_at, ready_at), WINDOWS)["lead_s"] == lead_s


def test_what_failed_was_never_ready() -> None:
    row = action_row(action(95.0), WINDOWS)
    assert row["ready_at"] is None and row["lead_s"] is None and row["surge_at"] == 100.0
    assert row["outcome"] == "failed"


def test_the_surge_of_an_action_is_the_one_under_way_or_the_next() -> None:
    assert surge_for(action(50.0), WINDOWS) == FIRST
    assert surge_for(action(109.9), WINDOWS) == FIRST
    assert surge_for(action(110.0), tuple(reversed(WINDOWS))) == SECOND
    assert surge_for(action(140.0), WINDOWS) is None
    assert surge_for(action(95.0, kind="release_bandwidth"), WINDOWS) is None


@pytest.mark.parametrize(
    "kind,body,back",
    [
        ("release_bandwidth", {}, True),
        ("set_cpu_limit", {"from": 0.4, "to": 0.2}, True),
        ("set_cpu_limit", {"from": 0.2, "to": 0.4}, False),
        ("migrate_vm", {"from": "hB", "to": "hA"}, False),
        ("reserve_bandwidth", {}, False),
    ],
)
def test_giving_back_is_told_from_taking(kind: str, body: dict[str, Any], back: bool) -> None:
    assert gives_back(action(95.0, 96.0, kind, **body)) is back


def test_only_what_was_tried_is_listed_oldest_first() -> None:
    advised = replace(action(90.0), outcome=OutcomeKind.ADVISED)
    skipped = replace(action(91.0), outcome=OutcomeKind.SKIPPED)
    assert [one.issued_at for one in taken([action(97.0, 98.0), advised, action(95.0), skipped])] == [95.0, 97.0]


def shown(told: TrialResult, width: int = 150) -> str:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(tables(told, width))
    return capture.get()


def test_people_see_the_policies_in_order_and_the_lead_with_its_sign() -> None:
    text = shown(result(action(95.0, 96.0), action(101.0, 103.0)))
    assert "SIMULATED" in text and "+4.0 s" in text and "-3.0 s" in text and "90.0%" in text
    assert text.index("static") < text.index("reactive") < text.index("predictive")
    assert "none were taken" in shown(result())
    assert "SIMULATED" not in shown(replace(result(), simulated=False))


def test_a_calm_trial_has_no_share_and_no_latency() -> None:
    calm = replace(result(), policies={"static": PolicyFigures(0, 0, None, 0.0, 0.0)})
    assert document(calm)["policies"]["static"]["p95_latency_s"] is None
    assert "0.00 MB" in shown(calm)


def test_what_a_replay_says_stands_beside_what_was_measured() -> None:
    policies = {name: {"cost": cost} for name, cost in (("static", 40.0), ("oracle", 10.0))}
    told = {
        "policies": policies, "bound": {"cost": 2.5}, "verdict": "Nothing to gain.", "recording": "offered.csv",
        "settings": "forepath.toml", "warm_up_s": 12,
    }  # fmt: skip
    replayed = ReplayedTrial({"static": FIGURES, "oracle": replace(FIGURES, short_cpu_s=77.0)}, told)

    def lines(one: TrialResult) -> str:
        console = Console(width=160)
        with console.capture() as capture:
            for part in whatif_lines(one, 160):
                console.print(part, markup=False)
        return capture.get()

    measured = lines(replace(result(), simulated=False, replayed=replayed))
    assert "replayed on simulated" in measured and "77 s" in measured and "Nothing to gain." in measured
    assert "static 40, oracle 10; no schedule could cost less than 2.5" in measured
    assert "forepath whatif offered.csv --settings forepath.toml --warm-up 12" in measured
    assert "replayed on simulated" not in lines(replace(result(), replayed=replayed))
    assert lines(result()) == "" and document(replace(result(), replayed=replayed))["whatif"] == told


def test_the_scene_as_a_file_is_the_same_scene(tmp_path: Path) -> None:
    settings = paper_settings(tmp_path / "forepath.db")
    (tmp_path / "scene.toml").write_text(as_toml(settings), encoding="utf-8")
    assert load_settings(tmp_path / "scene.toml") == settings
    assert settings.link and settings.virtual_ip[0].destination and settings.vm and settings.host


def test_defaults_make_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text(as_toml(Settings()), encoding="utf-8")
    assert load_settings(tmp_path / "empty.toml") == Settings()
