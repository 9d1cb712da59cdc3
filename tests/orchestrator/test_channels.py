"""What the switches say of split paths becomes the end of the action that wanted them, and nothing else does."""

from dataclasses import replace

import pytest
from desires import ROUTE
from worlds import world

from cpdb import InstallStatus, SplitReport, WantedSplit, split_key
from orchestrator import Finished, SetRoutes
from orchestrator.act.channels import OutcomeView, channel_of

OTHER = replace(ROUTE, from_switch="leaf3")
ACTION = SetRoutes((ROUTE, OTHER), 60.0)
CHANNEL = channel_of(ACTION)
FIRST = SplitReport(split_key(*ROUTE.ends), "leaf1", 5, InstallStatus.INSTALLED, "in force", 10.0)
SECOND = replace(FIRST, key=split_key(*OTHER.ends), node="leaf3", observed_at=12.0)


@pytest.mark.parametrize(
    "seen",
    [
        (),
        (FIRST,),
        (FIRST, replace(SECOND, status=InstallStatus.WAITING)),
        (FIRST, replace(SECOND, status=InstallStatus.REMOVED)),
        (FIRST, replace(SECOND, generation=4)),
    ],
    ids=["nothing is said", "one is open", "one is on its way", "one is gone", "one is of before"],
)
def test_routes_are_open_until_every_pair_of_switches_has_them(seen: tuple[SplitReport, ...]) -> None:
    assert CHANNEL.confirmed(ACTION, 5, seen) is None


def test_routes_are_done_when_the_last_pair_has_them() -> None:
    done = Finished(0, True, "in force between 2 pairs of switches", 12.0)
    assert CHANNEL.confirmed(ACTION, 5, (FIRST, SECOND)) == done
    assert CHANNEL.confirmed(SetRoutes((ROUTE, replace(OTHER, after=())), 60.0), 5, (FIRST,)) == replace(
        done, sentence="in force between 1 pairs of switches", ready_at=10.0
    )


def test_one_refusal_ends_all() -> None:
    refused = replace(SECOND, status=InstallStatus.REFUSED, detail="no room")
    assert CHANNEL.confirmed(ACTION, 5, (FIRST, refused)) == Finished(0, False, "leaf3 refused: no room", 12.0)


def test_routes_that_a_dead_process_wanted_are_found_by_their_shares() -> None:
    splits = {
        change.ends: WantedSplit(*change.ends, change.paths, change.after, change.tags, "o", "", 1.0, None, generation)
        for change, generation in ((ROUTE, 5), (OTHER, 6))
    }
    start = world([])
    told = replace(start, wanted=replace(start.wanted, observed=(FIRST, SECOND)))
    found = CHANNEL.shown(ACTION, OutcomeView(told, splits=splits))
    assert found is not None and found.ok
    assert CHANNEL.shown(ACTION, OutcomeView(told)) is None
    others = splits | {OTHER.ends: replace(splits[OTHER.ends], ratios=(0.4, 0.6))}
    assert CHANNEL.shown(ACTION, OutcomeView(told, splits=others)) is None
