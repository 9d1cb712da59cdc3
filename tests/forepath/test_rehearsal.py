"""The process that replays what was recorded: what it writes down, and that it leaves the machine to others."""

from threading import Event

import pytest
from lab_on_paper import SHOPPING, Forepath

from cpdb import (
    ActionRecord,
    ActionTiming,
    Communication,
    EvidenceReport,
    OutcomeKind,
    ReplayedMinute,
    SettingsError,
    Store,
    VmLoad,
)
from forepath import processes
from forepath.commands.rehearse import ReplayPace, Stopped, merged_minutes, rehearse_once, wanted_kinds
from forepath.settings import Settings
from orchestrator import LearningSettings

NOW = 1_700_000_000.0
TIMING = ActionTiming(None, 1.0, None)


class Watch(Event):
    """Time passes only while somebody waits."""

    waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        return self.is_set()


def test_a_replay_has_its_share_of_a_core_and_none_while_others_need_it() -> None:
    used, loads, stop = iter((0.0, 2.0, 2.0, 2.5, 2.5, 2.5, 2.5)), iter((0.2, 3.0, 3.0, 0.2)), Watch()
    pace = ReplayPace(0.25, stop, lambda: next(loads), lambda: next(used))
    pace.wait()
    assert stop.waited == pytest.approx(6.0), "2 s of CPU in 8 s"
    pace.wait()
    assert stop.waited == pytest.approx(6.0 + 1.5 + 2.0), "and as long as the machine is busy"
    stop.set()
    with pytest.raises(Stopped):
        pace.wait()


def test_what_was_advised_is_replayed_and_what_comes_of_it_is_kept(empty: Store, settings: Settings) -> None:
    rules = {"learning": settings.orchestrator.learning.tuned(replay_s=120.0)}
    light = settings.predictor.model_copy(update={"models": ("naive", "ewma")})
    own = settings.model_copy(
        update={"orchestrator": settings.orchestrator.model_copy(update=rules), "predictor": light}
    )
    assert rehearse_once(empty, own, NOW, lambda _done: None) == {}
    pair = SHOPPING
    empty.facts.add_communications(
        Communication(pair.source, pair.virtual_ip, "shop1", NOW - age, 1.0, 30_000, 30, 3) for age in range(120)
    )
    empty.facts.add_loads(
        VmLoad("shop1", "hA", NOW - age, "running", 0.6 if age < 30 else 0.1, 0.2, 1, 0, 0) for age in range(120)
    )
    empty.journal.add_action(
        ActionRecord("set_cpu_limit", "shop1", {}, "", {}, "predictive", NOW - 20, TIMING, OutcomeKind.ADVISED)
    )
    steps: list[float] = []
    found = rehearse_once(empty, own, NOW, steps.append)
    assert len(steps) == 2 * 120 and list(found) == ["set_cpu_limit"]
    (kept,) = empty.wanted.observed_of(EvidenceReport)
    assert kept.action == "set_cpu_limit" and kept.minutes == found["set_cpu_limit"]
    assert sum(one.short_s for one in kept.minutes) >= 29
    assert all(NOW - 62 - 60 <= one.at <= NOW for one in kept.minutes)


def test_each_minute_counts_once_and_not_for_ever() -> None:
    rules = LearningSettings(earn_over_s=300.0)
    old, first, again, last = (
        ReplayedMinute(at, 1.0, one, 0.0, 1.0, 0.0) for at, one in ((0, 1), (400, 2), (400, 3), (460, 4))
    )
    assert merged_minutes((old, first), (last, again), rules, 500.0) == (again, last)


def test_only_what_was_advised_or_done_is_asked_about() -> None:
    rows = [
        ActionRecord(kind, "", {}, "", {}, "predictive", NOW, TIMING, outcome)
        for kind, outcome in (
            ("set_vcpus", OutcomeKind.ADVISED), ("migrate_vm", OutcomeKind.SKIPPED),
            ("set_cpu_limit", OutcomeKind.DONE), ("release_bandwidth", OutcomeKind.DONE),
        )
    ]  # fmt: skip
    assert wanted_kinds(rows) == ("set_cpu_limit", "set_vcpus")


def test_it_runs_where_not_all_may_act_and_replays_are_possible(settings: Settings, forepath: Forepath) -> None:
    assert [one.name for one in processes.rehearsals(settings, None, act=False)] == ["rehearsal"]
    assert processes.rehearsals(settings, None, act=True) == []
    assert processes.rehearsals(settings.model_copy(update={"vm": ()}), None, act=False) == []
    assert "replay_share" in forepath("rehearse", "--help").out
    with pytest.raises(SettingsError):
        processes.replay_scene(settings.model_copy(update={"vm": ()}))
