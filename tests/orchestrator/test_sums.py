"""What a link will carry is its pairs' forecasts and its own, reconciled: never on a forecast that may not be used."""

from dataclasses import replace

import numpy as np
import pytest
from fake_world import fan
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CONFIG, LINK, NOW, changed, foreseen, machines, pair_state, vm, world

from cpdb import Limit, Pair, Quantity, Reservation, Subject, SubjectKind, Trust
from orchestrator import HostSpec, MigrateVm, PlanningContext, SumForecast, World, reconcile
from orchestrator.context import fits_link, others_on
from orchestrator.relations import CpuRelation
from orchestrator.strategies import placement
from orchestrator.strategies.link_use import most_needed

LONG, DOUBTED = Trust(30, 0.1, 0.3, 0.25, 1.5), Trust(0, 0.41, 0.9, 0.25, 1.5)
CAPACITY, FAR = 10e6, (5, 15, 30)
RATES, SHARES = st.floats(0.0, 1e6), st.floats(0.0, 1.0)


def sums(usual: float, excess: float) -> SumForecast:
    return SumForecast(np.array([usual]), np.array([excess]))


@given(RATES, RATES, RATES, RATES, SHARES, st.booleans())
def test_the_mean_lies_between_both_with_the_sums_own_spread(pairs, spread, whole, own, unexplained, held) -> None:
    found = reconcile(sums(pairs, spread), sums(whole, own), np.array([unexplained]), np.array([held]))
    assert min(pairs, whole) - 1e-6 <= found.usual.item() <= max(pairs, whole) + 1e-6
    assert found.beside.item() * np.sign(whole - pairs) + 1e-6 >= 0
    assert abs(found.beside.item()) <= abs(found.usual.item() - pairs) + 1e-6
    if held:
        assert found.usual.item() >= pairs and found.upper.item() >= pairs + spread
    else:
        assert found.upper.item() - found.usual.item() == pytest.approx(own, rel=1e-9, abs=1e-6)


def test_who_is_certain_is_believed_and_who_is_not_is_not() -> None:
    none, no = np.zeros(1), np.zeros(1, dtype=bool)
    assert reconcile(sums(5.0, 0.0), sums(9.0, 2.0), none, no).usual.item() == 5.0
    assert reconcile(sums(5.0, 2.0), sums(9.0, 0.0), none, no).usual.item() == 9.0
    assert reconcile(sums(5.0, 2.0), sums(9.0, 2.0), none, no).usual.item() == 7.0
    assert reconcile(sums(5.0, 0.0), sums(9.0, 2.0), np.ones(1), no).usual.item() == 9.0


def carrying(own: float | None, beside: float = 0.0, trust: Trust = LONG, used: float = 1e6) -> World:
    """Four pairs of a tenth of the link each, foreseen to send `used` at most; the link's own forecast is `own`."""
    rate = used / 2 / 30_000
    pairs = [foreseen(pair_state(f"c{n}", "v", 0, rate), dict.fromkeys(FAR, 2 * rate), NOW, 1.0) for n in range(4)]
    found = world(pairs, CAPACITY)
    link = found.links[LINK]
    found = replace(found, links={LINK: replace(link, bytes_per_s=link.bytes_per_s + beside)})
    if own is None:
        return found
    cells = [(far, quantity) for far in FAR for quantity in (Quantity.BYTES_PEAK, Quantity.BYTES_MEAN)]
    said = {cell: fan(Pair(*LINK), NOW, *cell, own, trust=trust) for cell in cells}
    return changed(found, sums={Subject(SubjectKind.LINK, *LINK): said})


def needed(start: World, horizon_s: int = 15) -> float:
    return PlanningContext.of(start, CONFIG).needed(LINK, horizon_s)


def test_peaks_that_do_not_coincide_need_less_and_those_that_do_need_more() -> None:
    alone = needed(carrying(None))
    assert needed(carrying(2.2e6)) < alone < needed(carrying(5e6))
    assert needed(carrying(0.0)) >= carrying(0.0).links[LINK].bytes_per_s


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 2e7), st.floats(0.0, 4e6), st.sampled_from([0, *FAR]))
def test_what_is_not_trusted_or_not_ahead_changes_nothing(own: float, beside: float, far: int) -> None:
    assert needed(carrying(own, beside, DOUBTED), far) == needed(carrying(None, beside), far)
    assert needed(carrying(own, beside), 0) == needed(carrying(None, beside), 0)
    reactive = CONFIG.tuned(policy="reactive")
    both = (PlanningContext.of(carrying(one, beside), reactive) for one in (own, None))
    assert len({one.needed(LINK, far) for one in both}) == 1


def test_a_link_that_was_held_back_adds_and_never_takes_away() -> None:
    limits = (Limit(Pair("c0", "v"), 1e5),)
    held = Reservation("r", Pair("c1", "v"), 1e6, limits, "o", "why", NOW, NOW + 8)
    for start, free in ((carrying(2.2e6), None), (carrying(5e6), None)):
        limited = changed(start, reservations={"r": held})
        assert needed(limited) >= needed(carrying(free))
    full = carrying(9.9e6)  # its own forecast comes near what it can carry
    assert needed(full) >= needed(carrying(None))


def test_traffic_that_no_pair_explains_follows_the_links_own_forecast() -> None:
    quiet, rising = carrying(None, 3e6), carrying(8e6, 3e6)
    context = PlanningContext.of(rising, CONFIG)
    link, sent = rising.links[LINK], 2e6
    assert others_on(context, link, sent, 15) > others_on(PlanningContext.of(quiet, CONFIG), link, sent, 15) + 1e6
    assert others_on(context, link, sent, 0) == pytest.approx(3e6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 2e7), st.floats(0.0, 4e6), st.sampled_from([0, *FAR]))
def test_quick_looks_never_say_less_than_what_is_needed(own: float, beside: float, far: int) -> None:
    context = PlanningContext.of(carrying(own, beside), CONFIG)
    link = context.world.links[LINK]
    if fits_link(context, link, far):
        assert context.needed(LINK, far) <= CONFIG.bandwidth.trigger * CAPACITY
    assert most_needed(context, link, far) >= others_on(context, link, context.asked_on(LINK, far).measured, far)


def test_a_pair_that_leaves_takes_its_part_of_the_correction_along() -> None:
    start = carrying(6e6)
    context = PlanningContext.of(start, CONFIG)
    alone = {pair: replace(one, links=() if pair.source != "c0" else one.links) for pair, one in start.pairs.items()}
    link = replace(start.links[LINK], bytes_per_s=0.5e6)
    left = replace(context, world=start.changed(pairs=alone, links={LINK: link}))
    without = PlanningContext.of(carrying(None), CONFIG)
    assert (
        0
        < left.needed(LINK, 15) - replace(without, world=left.world).needed(LINK, 15)
        < 0.6 * (context.needed(LINK, 15) - without.needed(LINK, 15))
    )


RELATION = CpuRelation("connections_per_s", 0.1, 0.01, 0.0, 40)


def hosting(own: float | None, trust: Trust = LONG, limit: float = 0.9) -> World:
    """Three machines on a host of four cores, each called by a pair: 10 connections/s now, 60 foreseen for a while."""
    guests = [vm(f"m{n}", "h1", 0.2, limit, relation=RELATION) for n in range(3)]
    pairs = [
        foreseen(pair_state(f"c{n}", f"v{n}", 0, 10.0, destination=f"m{n}"), dict.fromkeys(FAR, 60.0), NOW, 0.5)
        for n in range(3)
    ]
    hosts = (HostSpec("h1", "", "", 4.0, 1 << 30), HostSpec("h2", "", "", 4.0, 1 << 30))
    found = world(pairs, 1e9, **machines(*guests, hosts=hosts))
    if own is None:
        return found
    cells = [(far, quantity) for far in FAR for quantity in (Quantity.CPU_PEAK, Quantity.CPU_MEAN)]
    said = {cell: fan(Pair("h1", ""), NOW, *cell, own, trust=trust) for cell in cells}
    return changed(found, sums={Subject(SubjectKind.HOST, "h1"): said})


def served(start: World, horizon_s: int = 30) -> float:
    return PlanningContext.of(start, CONFIG).served("h1", horizon_s)


def test_machines_on_a_host_are_not_taken_to_peak_at_once_and_the_host_itself_is_asked() -> None:
    start = hosting(None)
    context = PlanningContext.of(start, CONFIG)
    apart = [context.cores(one, 30) for one in start.on_host("h1")]
    assert max(apart) < served(start) < sum(apart)
    assert served(hosting(0.9)) < served(start) < served(hosting(2.0))
    assert served(hosting(0.0)) >= start.used_on("h1")
    now = [context.cores(one, 0) for one in start.on_host("h1")]
    assert served(start, 0) == pytest.approx(sum(now)) and served(hosting(2.0), 0) == served(start, 0)
    assert served(hosting(2.0, DOUBTED)) == served(start)


def test_a_host_whose_machines_are_held_back_adds_and_never_takes_away() -> None:
    held = 0.3  # of what each of them needs
    assert served(hosting(0.9, limit=held)) >= served(hosting(None, limit=held))


def test_a_machine_that_moves_away_takes_its_part_along() -> None:
    context = PlanningContext.of(hosting(2.0), CONFIG)
    after = context.after(MigrateVm("m0", "h1", "h2"))
    assert after.served("h1", 30) < context.served("h1", 30)
    assert after.served("h2", 30) == pytest.approx(after.cores(after.world.vms["m0"], 30))


def test_a_host_that_is_foreseen_short_while_none_of_its_machines_is_known_has_none_to_move() -> None:
    start = hosting(40.0)
    assert placement.propose(PlanningContext.of(start.changed(vms={}), CONFIG)).steps == ()
