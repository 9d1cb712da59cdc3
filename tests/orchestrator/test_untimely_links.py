"""Where shortages of a link come at other times than foreseen, reservations wait for measured need."""

import pytest
from fake_world import START, Simulation
from hypothesis import given
from hypothesis import strategies as st

from cpdb import OnsetReport, OutcomeKind, Store
from orchestrator.judge.onsets import IN_TIME_AGAIN, LinkOnsets, OnsetLedger
from orchestrator.onset import OnsetSign

LINK, DUE_S = "leaf2>hA", 5.0
CALM, AHEAD, SHORT = OnsetSign(due_s=DUE_S), OnsetSign(True, False, DUE_S), OnsetSign(True, True, DUE_S)
SIGNS = {".": CALM, "f": AHEAD, "#": SHORT, "u": OnsetSign(False, True, DUE_S)}


def after(looks: str, start: LinkOnsets | None = None) -> LinkOnsets:
    """One look a second: `f` foreseen, `#` short, `u` short and not foreseen, `.` nothing."""
    found = start or LinkOnsets()
    for now, look in enumerate(looks):
        found = found.after(SIGNS[look], float(now))
    return found


@pytest.mark.parametrize(
    ("looks", "untimely"),
    [
        ("..fff###...", False),
        ("..uuu#####...", False),
        ("..fffff###", False),
        ("..ffffff###", True),
        ("..fffffff", True),
        ("..fffffff..", True),
        ("..fff....fff...", False),
        ("..###ffffffff...", False),
        ("..fffffff.fff###...", True),
        ("..fffffff.fff###..fff###..", False),
        ("..fffffff.fff###..fffffff#..fff###..", True),
        ("..fffffff.###..###..", True),
    ],
)
def test_what_comes_late_or_never_counts_and_what_nobody_foresaw_does_not(looks: str, untimely: bool) -> None:
    assert after(looks).untimely == untimely


@given(st.text("f#u.", max_size=60))
def test_nothing_leads_again_before_enough_came_in_time(looks: str) -> None:
    found = after(looks)
    assert not (found.in_time and not found.untimely) and found.in_time < IN_TIME_AGAIN
    assert after("." * 3 + "fff###." * IN_TIME_AGAIN, after(".fffffffff.", found)).untimely is False
    assert after("fff###", after(".fffffffff.", found)).untimely


def test_a_restart_forgets_nothing(store: Store) -> None:
    def ledger(looks: str) -> OnsetLedger:
        found = OnsetLedger(store, 5.0)
        for now, look in enumerate(looks):
            found.learn({LINK: SIGNS[look]}, float(now))
        found.tell(100.0)
        return found

    assert ledger("fffffff.fff##.").untimely == {LINK}
    assert store.wanted.observed_of(OnsetReport) == [OnsetReport(LINK, 1, 100.0)]
    assert ledger(".").untimely == {LINK}
    assert ledger(".fff##.").untimely == frozenset()
    assert store.wanted.observed_of(OnsetReport) == []


def test_what_nobody_looked_at_for_long_was_not_late(store: Store) -> None:
    first, other = OnsetLedger(store, 5.0), OnsetLedger(store, 5.0)
    first.learn({LINK: AHEAD}, 0.0)
    first.learn({LINK: SHORT}, 60.0)
    assert first.untimely == frozenset()
    # Another one was on duty meanwhile, and knows more.
    for now in range(60, 70):
        other.learn({LINK: AHEAD}, float(now))
    other.tell(70.0)
    first.learn({LINK: CALM}, 100.0)
    assert first.untimely == {LINK}


def begun(store: Store, since: float) -> list[float]:
    """When reservations were begun after `since`, in seconds after START."""
    rows = store.journal.actions(since=START + since)
    done = (
        one.issued_at - START for one in rows if one.kind == "reserve_bandwidth" and one.outcome is OutcomeKind.DONE
    )
    return sorted(done)


def test_surges_that_come_later_than_foreseen_are_reacted_to_and_foreseen_again_once_they_come_in_time(
    store: Store,
) -> None:
    surges = tuple((at, at + 10.0) for at in (60.0, 100.0, 140.0, 180.0, 220.0, 260.0))
    sim = Simulation(store, surges=surges, too_soon_s=12.0).run(80)
    assert begun(store, 40)[0] < 55, "the first one is followed"
    sim.run(70)
    assert all(at > 100 for at in begun(store, 80)), "and the next are not"
    said = [one.sentence for one in store.journal.actions() if "later than foreseen" in one.sentence]
    assert said and all(one.startswith("refused: foreseen within 5 s") for one in said)
    sim.orchestrator = sim.fresh()
    sim.too_soon_s = 0.0
    sim.run(140)
    assert [at > 180 for at in begun(store, 160)][:1] == [True], "what a restart remembers"
    assert begun(store, 245)[0] < 260, "after two in time"
