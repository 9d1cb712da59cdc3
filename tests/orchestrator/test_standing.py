"""Verdicts change margins, deadlines and who may act: by kind, slowly, within bounds, and a restart forgets nothing."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_world import CONFIG, START, Simulation
from hypothesis import given
from hypothesis import strategies as st

from cpdb import (
    ActionRecord,
    ActionTiming,
    EvidenceReport,
    OutcomeKind,
    Pair,
    ReplayedMinute,
    Store,
    open_store,
)
from orchestrator import OrchestratorConfig, explain, told_standing
from orchestrator.judge.standing import BROKEN_PROMISES, NOT_EARNED, Judgement, KindStanding, standing
from orchestrator.verdicts import PromiseVerdict, VerdictCode

SETTINGS = OrchestratorConfig()
RULES = SETTINGS.learning
KIND = "set_cpu_limit"
KEPT = PromiseVerdict(VerdictCode.KEPT, "", True, True, True, spared_s=10.0, short_s=10.0)
SHORT = PromiseVerdict(VerdictCode.BROKEN, "", True, False, True)
LATE = PromiseVerdict(VerdictCode.BROKEN, "", True, True, False)
UNNEEDED = PromiseVerdict(VerdictCode.UNNEEDED, "", False, True, cost_s=15.0)
VERDICTS = st.lists(st.sampled_from([KEPT, SHORT, LATE, UNNEEDED]), max_size=60)


def judged(verdicts: Sequence[PromiseVerdict], acted: bool = False, every_s: float = 60.0) -> list[Judgement]:
    return [Judgement(n, KIND, acted, START + every_s * n, one) for n, one in enumerate(verdicts, 1)]


def after(verdicts: Sequence[PromiseVerdict], acted: bool = False, now: float | None = None) -> KindStanding:
    own = judged(verdicts, acted)
    return standing(KIND, own, SETTINGS, now or (own[-1].issued_at + 1 if own else START))


@given(VERDICTS)
def test_margin_and_earliness_stay_within_bounds_and_move_the_right_way(verdicts: list[PromiseVerdict]) -> None:
    now = after(verdicts)
    assert RULES.margin_least <= now.margin <= RULES.margin_most
    assert 0 <= now.earlier_s <= RULES.earlier_most_s
    assert after([*verdicts, SHORT]).margin >= now.margin
    assert after([*verdicts, KEPT]).margin <= now.margin
    assert after([*verdicts, LATE]).earlier_s >= now.earlier_s
    assert abs(after([*verdicts, SHORT]).margin - now.margin) <= 2 * RULES.step


def test_the_share_of_broken_promises_comes_to_the_wanted_one() -> None:
    rng, verdicts = random.Random(3), []
    for _ in range(600):
        enough = after(verdicts).margin >= rng.uniform(0.6, 1.45)
        verdicts.append(KEPT if enough else SHORT)
    share = sum(one is SHORT for one in verdicts[200:]) / 400
    assert share == pytest.approx(RULES.broken_share, abs=0.03)


def test_a_kind_that_keeps_breaking_promises_falls_back_and_comes_back_by_another_bound() -> None:
    assert after([SHORT] * 5).keeps
    assert not after([SHORT] * 6).keeps
    assert not after([SHORT] * 6 + [KEPT] * 7).keeps
    assert after([SHORT] * 6 + [KEPT] * 8).keeps
    assert after([UNNEEDED] * 20).keeps, "what nobody needed broke no promise"
    assert after([replace(SHORT, eased=True)] * 20).keeps, "too little is better than nothing"
    lagging = after([replace(SHORT, in_time=None)] * 20)
    assert lagging.keeps and lagging.margin == 1.0, "steps that reacting took too small say nothing of forecasts"


@given(VERDICTS, st.booleans())
def test_earning_needs_enough_verdicts_of_late_and_a_gain_above_0(verdicts: list[PromiseVerdict], acted: bool) -> None:
    one = after(verdicts, acted=acted)
    assert one.earnings.low_s <= one.earnings.high_s
    if one.earned:
        assert one.earnings.judged >= RULES.earn_least and one.earnings.gain_s > 0
    assert not after(verdicts, now=START + 2 * RULES.earn_over_s).earned


def test_who_helps_earns_and_who_harms_does_not() -> None:
    assert after([KEPT] * 10).earned and not after([KEPT] * 9).earned
    assert not after([UNNEEDED] * 50).earned
    harmful = replace(KEPT, spared_s=-5.0)
    assert not after([harmful] * 50).earned
    assert not after([KEPT] + [UNNEEDED] * 40).earned, "one lucky hit proves nothing"


def replays(spared: Sequence[float], gain: float = 1.0, end: float = START) -> tuple[ReplayedMinute, ...]:
    """Replayed minutes up to `end`: of 10 s short so many are spared for 3 % more core-seconds."""
    first = end - 60 * len(spared)
    return tuple(ReplayedMinute(first + 60 * n, 10.0, one, gain * one, 100.0, 3.0) for n, one in enumerate(spared))


def replayed(minutes: Sequence[ReplayedMinute], verdicts: Sequence[PromiseVerdict] = ()) -> KindStanding:
    return standing(KIND, judged(verdicts), SETTINGS, START + 1e4, minutes)


def test_what_replays_show_decides_before_what_verdicts_show() -> None:
    helps = replayed(replays([7.5, 8.0, 7.0] * 10), [UNNEEDED] * 50)
    assert helps.earned and helps.replayed is not None
    words = (
        "CPU limits: would have spared 225 of 300 shortage seconds for 3% more core-seconds in the last 24 h (interval"
    )
    assert told_standing(helps, SETTINGS).startswith(words) and told_standing(helps, SETTINGS).endswith(": act")
    harms = replayed(replays([-2.0] * 30), [KEPT] * 50)
    assert not harms.earned and told_standing(harms, SETTINGS).endswith("only advise")
    assert not replayed(replays([8.0] * 30, gain=-1.0)).earned, "it costs more than it spares"
    assert not replayed(replays([10.0] + [-0.1] * 40)).earned, "one lucky minute proves nothing"
    few = replayed(replays([8.0] * (RULES.earn_least - 1)))
    assert few.replayed is None and "not enough seen" in told_standing(few, SETTINGS)


def test_a_kind_that_begins_to_harm_is_taken_out_within_the_time_that_counts() -> None:
    day = round(RULES.earn_over_s / 60)
    helped, harm = [8.0] * day, [-3.0] * day
    said = [
        standing(KIND, (), SETTINGS, START + 60 * n, replays(helped + harm[:n], end=START + 60 * n)).earned
        for n in range(0, day, 60)
    ]
    assert said[0] and not said[-1] and said == sorted(said, reverse=True), "it falls once, and in time"


def past(store: Store, kind: str, verdicts: Sequence[PromiseVerdict]) -> None:
    """Judged actions of long ago, in the journal."""
    for number, one in enumerate(verdicts):
        at = START - 3000 + number
        store.journal.add_action(
            ActionRecord(
                kind, "other", {"vm": "other", "from": 0.1, "to": 0.2}, "", {}, "predictive", at,
                ActionTiming(at + 5, 1.0, at + 1), OutcomeKind.DONE, "", one.to_json(),
            )
        )  # fmt: skip


def rows(store: Store, kind: str = KIND) -> list[ActionRecord]:
    return [one for one in reversed(store.journal.actions(since=START)) if one.kind == kind]


SURGE = ((60.0, 70.0),)


def test_in_the_loop_a_kind_that_broke_its_promises_only_advises_and_raises_an_alarm(store: Store) -> None:
    past(store, KIND, [SHORT] * 8)
    sim = Simulation(store, surges=SURGE).run(64)
    (row, *_) = rows(store)
    assert row.outcome is OutcomeKind.ADVISED and "fell back to advice" in row.sentence
    assert sim.hypervisors.machines["shop1"].cores_limit == pytest.approx(0.2)
    assert [(one.kind, one.key) for one in store.alarms.open()] == [(BROKEN_PROMISES, KIND)]
    assert all(one.outcome is not OutcomeKind.ADVISED for one in rows(store, "reserve_bandwidth"))
    past(store, KIND, [KEPT] * 10)
    sim.orchestrator.close()
    sim.orchestrator = sim.fresh()  # what it knows is in the journal
    sim.run(3)
    assert store.alarms.open() == []
    assert sim.hypervisors.machines["shop1"].cores_limit > 0.2


def asked_for(store: Store, verdicts: Sequence[PromiseVerdict]) -> float:
    """Cores that are said to be needed when a limit is first raised after such verdicts."""
    past(store, KIND, verdicts)
    Simulation(store, config=CONFIG.tuned(learning={"fall_back_share": 1.0}), surges=SURGE).run(58)
    first = rows(store)[0]
    learnt = first.reason.get("learnt", {}).get("margin", 1.0)
    assert ("learnt from verdicts" in "\n".join(explain(first))) == (learnt != 1.0)
    return float(first.reason["need"])


def test_in_the_loop_broken_promises_ask_for_more_and_unneeded_ones_for_the_forecast(tmp_path: Path) -> None:
    stores = [open_store(f"sqlite:///{tmp_path / name}") for name in ("usual", "more", "less")]
    usual, more, less = map(asked_for, stores, ([], [SHORT] * 8, [UNNEEDED] * 80))
    assert less == usual < more <= RULES.margin_most * usual
    for store in stores:
        store.close()


EVERY_S = 30
EARNING = CONFIG.tuned(act="earned", learning={"earn_over_s": 120.0, "earn_least": 2})


def surges(until: int) -> tuple[tuple[float, float], ...]:
    return tuple((float(t), t + 10.0) for t in range(60, until, EVERY_S))


def false_alarms(sim: Simulation, since: float) -> None:
    """From then on what is forecast does not come."""
    real = sim.rate

    def rate(pair: Pair, t: float) -> float:
        return real(pair, t) if t > sim.now or t - START < since else 2.0

    sim.rate = rate  # type: ignore[method-assign]


def test_in_the_loop_a_kind_that_helps_is_let_in_and_taken_out_when_it_begins_to_harm(store: Store) -> None:
    sim = Simulation(store, config=EARNING, surges=surges(480))
    false_alarms(sim, 185.0)
    sim.run(180)
    raised = [one for one in rows(store) if one.body["to"] > one.body["from"]]
    assert raised[0].outcome is OutcomeKind.ADVISED and "has not earned to act" in raised[0].sentence
    let_in = [one for one in raised if one.outcome is OutcomeKind.DONE]
    assert let_in and "it may act: net" in "\n".join(explain(let_in[0]))
    sim.run(185)
    last = [one for one in rows(store) if one.outcome is OutcomeKind.DONE and one.body["to"] > one.body["from"]][-1]
    assert last.issued_at < START + 185 + 120 + EVERY_S
    assert (NOT_EARNED, KIND) in [(one.kind, one.key) for one in store.alarms.open()]
    assert rows(store)[-1].outcome is not OutcomeKind.DONE or rows(store)[-1].body["to"] < rows(store)[-1].body["from"]
    assert sim.hypervisors.machines["shop1"].cores_limit == pytest.approx(0.2), "what it gave is given back"


def test_in_the_loop_a_kind_that_harms_is_never_let_in(store: Store) -> None:
    sim = Simulation(store, config=EARNING, surges=surges(210))
    false_alarms(sim, 0.0)
    sim.run(215)
    told = [one for one in store.journal.actions() if one.verdict]
    assert len(told) >= 6
    assert {one.outcome for one in store.journal.actions()} <= {OutcomeKind.ADVISED, OutcomeKind.SKIPPED}
    assert sim.hypervisors.started == []


def test_in_the_loop_a_kind_acts_on_what_replays_show(store: Store) -> None:
    config = CONFIG.tuned(act="earned", learning={"earn_least": 2})
    store.wanted.observe([EvidenceReport(KIND, replays([8.0] * 20), START)])
    sim = Simulation(store, config=config, surges=SURGE).run(64)
    done = [one for one in store.journal.actions() if one.outcome is OutcomeKind.DONE]
    assert done and {one.kind for one in done} == {KIND}
    assert "it may act: would have spared 160 of 200 shortage seconds" in "\n".join(explain(done[-1]))
    store.wanted.observe([EvidenceReport(KIND, replays([8.0] * 20 + [-8.0] * 30), START)])
    sim.run(70)
    assert (NOT_EARNED, KIND) in [(one.kind, one.key) for one in store.alarms.open()]
    assert sim.hypervisors.machines["shop1"].cores_limit == pytest.approx(0.2), "what it gave is given back"
