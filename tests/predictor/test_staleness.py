"""Horizons shorter than three refreshes of a switch's counters are refused, in one line that says why."""

from cpdb import RefreshReport
from predictor.trust.horizon import refreshes, too_short, usable


def test_only_fresh_measurements_of_refreshes_count() -> None:
    reports = [RefreshReport("leaf1", 1.05, 1000.0), RefreshReport("leaf2", 9.0, 500.0)]
    assert refreshes(reports, 1010.0) == {"leaf1": 1.05}


def test_a_horizon_needs_three_refreshes_of_the_slowest_switch() -> None:
    known = {"leaf1": 1.0, "leaf2": 5.0}
    assert usable((5, 15, 30), known) == (15, 30)
    line = too_short((5, 15, 30), known)
    assert line is not None and "\n" not in line
    assert "5 s refused" in line and "leaf2" in line and "15 s" in line


def test_nothing_is_refused_while_nothing_is_known_or_all_is_well() -> None:
    assert too_short((5, 15, 30), {}) is None
    assert too_short((5, 15, 30), {"leaf1": 1.66}) is None
    assert usable((5, 15, 30), {}) == (5, 15, 30)
