"""The relation from communications to CPU is learnt from free seconds and bounded by starved ones."""

import random
from dataclasses import replace

import pytest
from measured_rows import LoadSample, fit, past
from worlds import CONFIG, NOW, foreseen, machines, pair_state, vm, world

from cpdb import Communication, Destination, LinkLoad, Pair, Reservation, VirtualIp, VmLoad
from orchestrator import SetCpuLimit, plan
from orchestrator.context import PlanningContext
from orchestrator.observe.learn import Past, learn
from orchestrator.observe.measured import cpu_relations
from orchestrator.relations import CpuRelation


def samples(slope: float, rng: random.Random, limit: float = 1.0, count: int = 60) -> list[LoadSample]:
    found = []
    for _ in range(count):
        x = rng.uniform(0, 12)
        wish = 0.02 + slope * x + rng.gauss(0, 0.01)
        found.append(LoadSample(x, max(0.0, min(limit, wish)), limit))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_cost_is_found_and_carried_on_beyond_what_was_seen(seed: int) -> None:
    relation = fit("connections_per_s", samples(0.02, random.Random(seed)))
    assert relation is not None
    assert relation.cores(25) == pytest.approx(0.52, rel=0.2)


def test_the_estimate_never_falls_with_load_and_never_starts_below_zero() -> None:
    rng = random.Random(3)
    falling = [LoadSample(x, max(0.0, 0.5 - 0.04 * x), 1.0) for x in (rng.uniform(1, 10) for _ in range(50))]
    relation = fit("connections_per_s", falling)
    assert relation is not None
    assert relation.base_cores >= 0
    assert relation.cores(20) >= relation.cores(1) >= 0


def test_too_few_or_unvaried_samples_give_no_opinion() -> None:
    assert fit("x", samples(0.02, random.Random(1), count=5)) is None
    assert fit("x", [LoadSample(4.0, 0.1, 1.0)] * 100) is None


def test_a_starved_stretch_may_raise_the_estimate_but_not_lower_it() -> None:
    free = [LoadSample(x % 3 + 1, 0.02 + 0.005 * (x % 3 + 1), 0.2) for x in range(40)]
    # Six seconds at the limit, with twelve requests: each costs about 0.1 core seconds, far more than learnt before.
    starved = [LoadSample(4.0, 0.2, 0.2)] * 3 + [LoadSample(0.0, 0.2, 0.2)] * 3
    before, after = fit("x", free), fit("x", [*free, *starved, free[0]])
    assert before is not None
    assert after is not None
    assert after.slope > 3 * before.slope
    # In all 1.25 core seconds for 14 requests, less what eight idle seconds cost.
    assert after.slope == pytest.approx((1.25 - 8 * before.base_cores) / 14, rel=0.05)
    cheap = [LoadSample(400.0, 0.2, 0.2)] * 6
    unchanged = fit("x", [*free, *cheap, free[0]])
    assert unchanged is not None
    assert unchanged.slope >= before.slope - 1e-12


def communications(rates: list[tuple[int, int]]) -> list[Communication]:
    """Rows of one pair, a second each: (bytes, new connections)."""
    return [
        Communication("c1", "v", "vm1", 1_000.0 + n, 1.0, size, size // 1000, count)
        for n, (size, count) in enumerate(rates)
    ]


def test_the_size_of_a_connection_is_that_of_the_times_when_many_come() -> None:
    quiet, surge = [(16_000, 2)] * 20, [(640_000, 20)] * 10
    drained = [(500_000, 1)] * 5  # after a surge old connections still send
    rows = communications((quiet + surge + drained) * 3)
    assert learn(past(rows)).sizes[Pair("c1", "v")].bytes == pytest.approx(32_000, rel=0.1)
    calm = communications(quiet * 3)
    assert learn(past(calm)).sizes[Pair("c1", "v")].bytes == pytest.approx(8_000, rel=0.1)


def test_silence_has_no_size() -> None:
    assert learn(past(communications([(5_000, 0)] * 20))).sizes == {}


def test_relations_are_learnt_from_the_rows_of_the_database() -> None:
    rng = random.Random(2)
    counts = [rng.randint(0, 10) for _ in range(120)]
    rows = communications([(count * rng.randint(500, 1500), count) for count in counts])
    loads = [VmLoad("vm1", "h1", 1_000.0 + n, "running", 0.02 * c, 1.0, 1, 1, 1) for n, c in enumerate(counts)]
    found = {one.feature: one for one in learn(past(rows, loads)).relations["vm1"]}
    assert found["connections_per_s"].cores(20) == pytest.approx(0.4, rel=0.15)
    assert found["bytes_per_s"].spread_cores > found["connections_per_s"].spread_cores


def test_a_datagram_service_is_explained_by_its_bytes() -> None:
    rng = random.Random(2)
    sizes = [rng.randint(10_000, 1_000_000) for _ in range(60)]
    rows = communications([(size, 0) for size in sizes])
    loads = [VmLoad("vm1", "h1", 1_000.0 + n, "running", size * 1e-7, 1.0, 1, 1, 1) for n, size in enumerate(sizes)]
    (relation,) = learn(past(rows, loads)).relations["vm1"]
    assert relation.feature == "bytes_per_s"
    assert relation.cores(2_000_000) == pytest.approx(0.2, rel=0.2)


def test_load_whose_talk_is_not_counted_yet_teaches_nothing() -> None:
    """Loads come at once, rows of communications a poll or two later: the last seconds look like work for nothing."""
    counts = [n % 6 for n in range(80)] + [20] * 10
    rows = communications([(count * 1000, count) for count in counts[:-3]])
    loads = [VmLoad("vm1", "h1", 1_000.0 + n, "running", 0.02 * c, 1.0, 1, 1, 1) for n, c in enumerate(counts)]
    found = {one.feature: one for one in learn(past(rows, loads)).relations["vm1"]}
    assert found["connections_per_s"].slope == pytest.approx(0.02, rel=0.05)
    assert found["connections_per_s"].base_cores == pytest.approx(0.0, abs=0.01)


def test_a_machine_without_a_history_borrows_from_its_peer_and_is_less_sure() -> None:
    rng = random.Random(5)
    counts = [rng.randint(0, 10) for _ in range(120)]
    rows = communications([(count * 1000, count) for count in counts])
    loads = [
        VmLoad("vm1", "h1", 1_000.0 + n, "running", 0.02 * c + rng.uniform(0, 0.02), 1.0, 1, 1, 1)
        for n, c in enumerate(counts)
    ]
    learnt = learn(past(rows, loads))
    service = VirtualIp("v", "v", 0, (Destination("vm1", "10.0.0.1", "m"), Destination("vm2", "10.0.0.2", "m")))
    own, lent = (
        next(one for one in cpu_relations(learnt, [service])[vm] if one.feature == "connections_per_s")
        for vm in ("vm1", "vm2")
    )
    assert (own.peer, lent.peer) == (None, "vm1")
    assert lent.cores(30) > own.cores(30) > 0.5
    assert "vm3" not in cpu_relations(learnt, [service])


def test_a_raise_for_what_is_foreseen_names_its_forecast() -> None:
    relation = CpuRelation("connections_per_s", 0.01, 0.02, 0.0, 50)
    talk = foreseen(pair_state("c1", "shop", 10, 2.0, destination="shop", links=()), {5: 25.0, 15: 25.0, 30: 25.0})
    shop = vm("shop", "h1", 0.05, 0.2, cpu_cores_max=0.8, relation=relation)
    (step,) = plan(PlanningContext.of(world([talk], **machines(shop)), CONFIG)).steps
    assert step.action.kind == "set_cpu_limit"
    assert step.reason.forecast is not None
    assert step.needed_at == NOW + step.reason.forecast.horizon_s


def test_a_relation_that_knows_too_little_does_not_hide_that_a_machine_is_starved() -> None:
    flat = CpuRelation("connections_per_s", 0.01, 0.0, 0.0, 50)
    talk = pair_state("c1", "shop", 10, 20.0, destination="shop", links=())
    shop = replace(vm("shop", "h1", 0.2, 0.2, cpu_cores_max=0.8, relation=flat), starved=True)
    start = world([talk], **machines(shop))
    (step,) = plan(PlanningContext.of(start, CONFIG)).steps
    assert step.action == SetCpuLimit("shop", 0.2, 0.4)
    fine = replace(start, vms={"shop": replace(shop, starved=False)})
    assert plan(PlanningContext.of(fine, CONFIG)).steps == ()


# -- bytes per connection where a congested path makes senders repeat themselves

WAY = (("leaf", "h1"),)


def seconds_of(load: list[tuple[int, int, int]], drops: int = 0) -> Past:
    """A pair and its link, a second each: (bytes, new connections, all bytes on the link)."""
    rows = communications([(size, count) for size, count, _ in load])
    links = [
        LinkLoad("leaf", "h1", 1_000.0 + n, 1.0, total, total // 1000, drops if total >= 1_400_000 else 0)
        for n, (_, _, total) in enumerate(load)
    ]
    return past(rows, (), links, ways={Pair("c1", "v"): WAY}, capacities={WAY[0]: 1_500_000.0})


def size(known: Past) -> float:
    return learn(known).sizes[Pair("c1", "v")].bytes


FREE, CROWDED, QUIET = [(300_000, 10, 700_000)] * 30, [(450_000, 10, 1_450_000)] * 60, [(16_000, 2, 500_000)] * 60


def test_what_was_sent_twice_over_a_full_link_is_not_learnt_where_free_seconds_tell() -> None:
    assert size(seconds_of(CROWDED + FREE + CROWDED)) == pytest.approx(30_000, rel=0.05)
    unknown = replace(seconds_of(CROWDED + FREE + CROWDED), ways={})
    assert size(unknown) == pytest.approx(42_000, rel=0.05)


def test_what_was_sent_under_a_reservation_that_was_enough_speaks_for_all() -> None:
    known = seconds_of(CROWDED + [(300_000, 10, 1_450_000)] * 30)
    assert size(known) == pytest.approx(40_000, rel=0.05)
    kept = Reservation("c1->v@leaf>h1", Pair("c1", "v"), 400_000.0, (), "", "", 1_060.0, 1_090.0)
    assert size(replace(known, reservations=(kept,))) == pytest.approx(30_000, rel=0.05)
    too_little = replace(kept, bytes_per_s=250_000.0)
    assert size(replace(known, reservations=(too_little,))) == pytest.approx(40_000, rel=0.05)


def test_drops_alone_make_a_second_crowded() -> None:
    known = seconds_of([(450_000, 10, 1_400_000)] * 60 + FREE, drops=3)
    large = replace(known, capacities={WAY[0]: 15_000_000.0})
    assert size(large) == pytest.approx(30_000, rel=0.05)


def test_free_seconds_without_a_surge_say_nothing_about_a_surge() -> None:
    assert size(seconds_of(QUIET + CROWDED)) == pytest.approx(45_000, rel=0.05)


def test_a_few_free_seconds_do_not_speak_for_all() -> None:
    assert size(seconds_of(CROWDED + FREE[:5] + CROWDED)) == pytest.approx(45_000, rel=0.1)


def test_who_sends_with_its_connections_alone_is_told_from_who_goes_on_sending() -> None:
    surge = [(8_000, 1)] * 20 + [(300_000, 10)] * 6
    held_back = [(150_000, 10), (200_000, 10), (450_000, 10), (400_000, 10)] * 2
    long = [(500_000, 1 if n % 40 == 0 else 0) for n in range(120)]
    some_seconds = [(500_000, 1 if n % 10 == 0 else 0) for n in range(120)]

    def follows(rows: list[tuple[int, int]]) -> bool:
        return learn(past(communications(rows))).sizes[Pair("c1", "v")].known_per_s > 0

    assert follows(surge * 3 + held_back)
    assert not follows(long)
    assert not follows(some_seconds)
