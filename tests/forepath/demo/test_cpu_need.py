"""How long a machine needed more CPU than it might use, on data small enough to add up by hand."""

import pytest

from forepath.demo.cpu_need import CpuAccount, Price, Span, Work, account, offered, price, rooms
from forepath.demo.layout import LabLayout
from forepath.demo.results import Sample
from forepath.demo.schedule import Phases, make_schedule, request_cpu_s

SPAN = Span(100.0, 110.0)
# Each second of ten one request of 0.1 s; in five of them another of 0.3 s.
STEADY = [Work(100.5 + n, 0.1) for n in range(10)]
SURGE = [Work(103.2 + n, 0.3) for n in range(5)]


def samples(limit: float, shop: float = 0.1, rest: float = 0.1, vcpus: int = 1) -> list[Sample]:
    """Eleven samples of a host of 0.8 cores on which shop1 uses `shop` cores and everything else `rest`."""
    return [
        Sample(
            100.0 + n,
            {},
            {"shop1": (n * shop, 0.2 * n, limit / vcpus, "hA", limit), "batch1": (n * rest, 0.0, 0.25, "hA", 0.25)},
            {"hA": (n * (shop + rest), 0.0, 0.8)},
        )
        for n in range(11)
    ]


@pytest.mark.parametrize(
    ("rows", "works", "seconds"),
    [
        (samples(0.2), STEADY, 0.0),
        (samples(0.2), STEADY + SURGE, 5.0),
        (samples(0.45), STEADY + SURGE, 0.0),
        (samples(0.45, rest=0.5), STEADY + SURGE, 5.0),  # its host has no more than 0.3 cores beside the others
        (samples(0.09), STEADY, 10.0),
    ],
)
def test_seconds_in_which_the_need_exceeds_what_may_be_used(
    rows: list[Sample], works: list[Work], seconds: float
) -> None:
    found = account(rows, {"shop1": sorted(works)}, Price(), SPAN)
    assert found.shortage_s == {"shop1": seconds}
    assert found.total_shortage_s == seconds
    assert found.held_back_s == {"shop1": 2.0}


def test_what_exceeds_even_the_room_on_its_host_is_told_apart() -> None:
    assert rooms(LabLayout())["shop1"] == pytest.approx(0.8 - 0.2 - 0.1)
    for room, beyond in ((0.5, 0.0), (0.35, 5.0), (0.05, 5.0)):
        found = account(samples(0.2), {"shop1": sorted(STEADY + SURGE)}, Price(), SPAN, {"shop1": room})
        assert (found.total_shortage_s, found.total_beyond_s) == (5.0, beyond)


def test_what_was_allotted_counts_every_virtual_cpu_and_every_machine() -> None:
    found = account(samples(0.4, vcpus=2), {"shop1": STEADY}, Price(), SPAN)
    assert found.vcpu_seconds == pytest.approx(10 * (0.4 + 0.25))
    assert found.cpu_seconds == pytest.approx(10 * 0.2)


def test_only_the_span_counts_and_no_machine_has_more_than_its_host() -> None:
    rows = samples(float("inf"))
    found = account(rows, {"shop1": STEADY + SURGE}, Price(), Span(100.0, 104.0))
    assert found.vcpu_seconds == pytest.approx(4 * (0.8 + 0.25))
    assert account([], {"shop1": STEADY}, Price(), SPAN) == CpuAccount({"shop1": 0.0}, {"shop1": 0.0}, {"shop1": 0.0})


def test_a_machine_that_is_nowhere_is_short_and_one_that_just_arrived_is_judged_by_its_limit() -> None:
    rows = samples(0.2)
    away = [Sample(one.t, {}, {}, one.hosts) if one.t == 105.0 else one for one in rows]
    assert account(away, {"shop1": STEADY}, Price(), SPAN).shortage_s["shop1"] >= 1.0
    moved = [
        Sample(one.t, {}, {"shop1": (0.1, 0.0, 0.2, "hB", 0.2)}, one.hosts) if one.t >= 105.0 else one for one in rows
    ]
    assert account(moved, {"shop1": STEADY}, Price(), SPAN).shortage_s["shop1"] == 0.0


def played(limit: float, cost: float) -> tuple[list[Sample], list[Work]]:
    """Two minutes of a machine that idles at 0.02 cores and to which each work costs `cost` times what it says.

    From 40 to 60 s there is much work; what `limit` holds back is done later.
    """
    works = [Work(100.2 + n + 0.3 * k, 0.05) for n in range(121) for k in range(3 if 40 <= n < 60 else n % 2)]
    rows, used, held, backlog = [], 0.0, 0.0, 0.0
    for n in range(121):
        t = 100.0 + n
        rows.append(Sample(t, {}, {"shop1": (used, held, limit, "hA", limit)}, {}))
        backlog += 0.02 + cost * sum(one.cpu_s for one in works if t <= one.at < t + 1)
        done = min(backlog, limit)
        held += 0.5 * (backlog > limit)
        used, backlog = used + done, backlog - done
    return rows, works


@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_the_price_of_work_is_learnt_where_nobody_was_held_back(limit: float) -> None:
    rows, works = played(limit, 3.0)
    found = price(rows, {"shop1": works})
    assert found.factor == pytest.approx(3.0, rel=0.05)
    assert found.idle_cores == pytest.approx(0.02, abs=0.005)
    assert found.measured


def test_a_price_that_cannot_be_measured_is_the_least_that_it_can_be() -> None:
    assert price([], {"shop1": STEADY}) == Price(measured=False)
    rows, works = played(0.3, 0.4)  # cheaper than a guest at its best speed: what was seen cannot be all
    found = price(rows, {"shop1": works})
    assert (found.factor, found.measured) == (1.0, False)
    assert found.idle_cores >= 0.0


def test_every_request_is_somebodys_work() -> None:
    layout = LabLayout()
    schedule = make_schedule(3, "surge", Phases(1, 1, ("static",)), layout)
    works = offered(schedule, layout, 1000.0)
    assert set(works) == {"shop1", "search1"}  # the others are on stand-by
    total = sum(request_cpu_s(one) for requests in schedule.requests.values() for one in requests)
    assert sum(one.cpu_s for own in works.values() for one in own) == pytest.approx(total)
    assert all(own == sorted(own) and own[0].at >= 1000.0 for own in works.values())
