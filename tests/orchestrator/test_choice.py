"""Of all ways the cheapest set that is ready in time; every other one with the reason against it."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.strategies.cpu_options import Option, cheapest

QUOTA = Option("set_cpu_limit", "a higher quota", 0.3, 1.5)
PLUG = Option("set_vcpus", "another vCPU", 0.5, 3.0, needs="set_cpu_limit")
WARM = Option("scale_out", "shop2", 0.6, 6.0)
MOVE = Option("migrate_vm", "moving batch1 away", 0.4, 9.0)
ALL = (QUOTA, PLUG, WARM, MOVE)


@pytest.mark.parametrize(
    ("lack", "left", "kinds"),
    [
        (0.2, 5.0, {"set_cpu_limit"}),
        (0.7, 5.0, {"set_cpu_limit", "set_vcpus"}),
        (0.9, 15.0, {"set_cpu_limit", "scale_out"}),
        (1.3, 15.0, {"set_cpu_limit", "set_vcpus", "scale_out"}),
        (1.7, 15.0, {"set_cpu_limit", "set_vcpus", "scale_out", "migrate_vm"}),
        (0.7, 2.0, {"set_cpu_limit"}),  # all else is too late
        (9.0, 0.0, {"set_cpu_limit", "set_vcpus", "scale_out", "migrate_vm"}),  # already there: nothing is too late
        (0.5, 1.0, set()),
        (0.0, 5.0, set()),
    ],
)
def test_the_cheapest_set_that_is_ready(lack: float, left: float, kinds: set[str]) -> None:
    assert {one.kind for one in cheapest(ALL, lack, left).chosen} == kinds


def test_every_other_way_is_told_why_not() -> None:
    closed = Option("scale_out", "shop3", 0.6, 6.0, why_not="h3 is cordoned")
    found = cheapest((*ALL, closed), 0.2, 5.0)
    told = {rejected.option.what: rejected.why_not.text for rejected in found.rejected}
    assert told["shop3"] == "h3 is cordoned"
    assert "too late: it takes up to 6.0 s" in told["shop2"]
    assert "dearer" in told["another vCPU"]
    assert found.lacking == 0.0
    assert cheapest(ALL, 9.0, 0.0).lacking == pytest.approx(7.2)


@st.composite
def options(draw: st.DrawFn) -> list[Option]:
    kinds = ("set_cpu_limit", "set_vcpus", "scale_out", "migrate_vm")
    return [
        Option(
            draw(st.sampled_from(kinds)),
            f"way {number}",
            draw(st.floats(0, 1)),
            draw(st.floats(0.1, 20)),
            draw(st.sampled_from([None, None, None, "closed"])),
            draw(st.sampled_from([None, None, "set_cpu_limit"])),
        )
        for number in range(draw(st.integers(0, 5)))
    ]


@settings(max_examples=200, deadline=None)
@given(options(), st.floats(0, 3), st.floats(0, 20))
def test_no_allowed_set_covers_more_or_as_much_for_less(ways: list[Option], lack: float, left: float) -> None:
    found = cheapest(ways, lack, left)
    kinds = {one.kind for one in found.chosen}
    assert all(one.why_not is None and (left <= 0 or one.lead_s <= left) for one in found.chosen)
    assert all(one.needs is None or one.needs in kinds for one in found.chosen)
    assert {one.what for one in found.chosen} | {rejected.option.what for rejected in found.rejected} == {
        one.what for one in ways
    }
    able = [one for one in ways if one.why_not is None and one.cores > 1e-6 and (left <= 0 or one.lead_s <= left)]
    if any(sum(other.kind == one.kind for other in able) > 3 for one in able):
        return  # of each kind only the best few are looked at
    for size in range(len(able) + 1):
        for other in combinations(able, size):
            if all(one.needs is None or one.needs in {two.kind for two in other} for one in other):
                lacking = max(0.0, lack - sum(one.cores for one in other))
                assert found.lacking <= lacking + 2e-6
                if lacking < found.lacking + 1e-9:
                    assert sum(one.cost for one in found.chosen) <= sum(one.cost for one in other) + 1e-9
