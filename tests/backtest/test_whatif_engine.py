"""The simulator: cases computed by hand, and what holds under every policy."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replay_scenes import BACKUP, FORESEEING, GIB, NARROW, PAIRS, SHOP, WIDE, offered, two_hosts, vip

from backtest.whatif.cost import short_bytes
from backtest.whatif.engine import EPOCH_S, ReplayEngine
from backtest.whatif.policies import replay
from backtest.whatif.records import EventKind, OfferedLoad, PolicyRun, ReplayPolicy, ReplayScene, SceneEvent
from backtest.whatif.truth import TrueFuture
from cpdb import (
    Limit,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Pair,
    Quantity,
    Reservation,
    ReservationReport,
    Store,
    open_store,
)
from orchestrator import PoolMember, PoolSpec, QueueSpec

SHOP1, BACKUP1, SHOP2, SPARE1 = range(4)


def test_a_full_link_is_shared_and_what_waits_is_given_up_after_four_seconds() -> None:
    # 1 MB/s for two pairs: c1 asks for 0.2 MB/s and gets it, c2 for 1.3 MB/s and gets the other 0.8.
    pairs = {Pair("c1", SHOP): 2e5, Pair("c2", BACKUP): 1.3e6}
    run = replay(two_hosts(), offered(6, pairs), ReplayPolicy.STATIC, 1)
    assert run.pairs.used[:, 0] == pytest.approx(2e5)
    assert run.pairs.used[:, 1] == pytest.approx(8e5)
    assert run.pairs.need[:, 1] == pytest.approx(1.3e6)
    assert run.pairs.allowed[:, 1] == pytest.approx(8e5)
    # Nobody needs the rest of what c1 was left: 1 - 0.8.
    assert run.pairs.allowed[:, 0] == pytest.approx(2e5)
    # 0.5 MB more each second; after 4 s what is left of the first second's 1.3 MB has long been sent, nothing goes.
    load = offered(6, pairs)
    assert short_bytes(load, run.pairs, load.known)[:, 1] == pytest.approx([5e5, 1e6, 1.5e6, 2e6, 2.5e6, 3e6])
    link = run.links.names.index("s1>hA")
    assert run.links.need[:, link] == pytest.approx(1.5e6)
    assert run.links.used[:, link] == pytest.approx(NARROW)


@pytest.mark.parametrize("policy", list(ReplayPolicy))
def test_every_policy_returns_complete_series(policy: ReplayPolicy) -> None:
    rates = {pair: (1e5 if pair.virtual_ip == SHOP else 2.5e5) for pair in PAIRS}
    run = replay(two_hosts(), offered(20, rates, {"spare1": 0.25}), policy, 1)
    check_series(run, 20)
    assert run.vms.need[:, SPARE1] == pytest.approx(0.25)
    # 10 connections a second and client, of 10 ms each
    assert run.vms.need[:, SHOP1] == pytest.approx(0.3)
    assert (policy is ReplayPolicy.STATIC) == (run.actions == ())


def check_series(run: PolicyRun, seconds: int) -> None:
    """No object takes more than it may, and no link or host more than it has."""
    for series in (run.vms, run.pairs, run.links, run.hosts):
        assert series.need.shape == series.allowed.shape == series.used.shape == (seconds, len(series.names))
        assert np.isfinite(series.allowed).all()
        assert (series.used <= series.allowed * (1 + 1e-9) + 1e-6).all()
    assert run.delivered_bytes.shape == (seconds, len(run.pairs.names))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'cpdb.db'}")
    yield opened
    opened.close()


def play(engine: ReplayEngine, seconds: int) -> PolicyRun:
    for second in range(seconds):
        engine.advance(second)
    return engine.recorder.run(ReplayPolicy.STATIC, ())


def start(store: Store, scene: ReplayScene, load: OfferedLoad) -> ReplayEngine:
    store.inventory.declare_virtual_ips(scene.virtual_ips)
    return ReplayEngine(scene, load, store, 1)


def test_cpu_that_is_not_had_is_lost_and_requests_wait_uncounted(store: Store) -> None:
    # 40 connections a second of 10 ms are 0.4 cores; with 0.3 beside them, 0.7 are needed and 0.5 allowed.
    load = offered(3, {Pair("c1", SHOP): 4e5}, {"shop1": 0.3})
    run = play(start(store, two_hosts(), load), 3)
    assert run.vms.need[:, SHOP1] == pytest.approx(0.7)
    assert run.vms.allowed[:, SHOP1] == pytest.approx(0.5)
    assert run.vms.used[:, SHOP1] == pytest.approx(0.5)
    # Fair halves: requests get 0.25 of 0.4 core-seconds, then of what waits as well.
    assert run.delivered_bytes[0, 0] == pytest.approx(4e5 * 0.25 / 0.4)
    assert run.delivered_bytes[1, 0] == pytest.approx((4e5 * 0.15 / 0.4 + 4e5) * 0.25 / 0.55)
    assert run.latency_s[1, 0] > run.latency_s[0, 0] > 0


def test_a_full_host_is_shared_fairly(store: Store) -> None:
    scene = two_hosts()
    machines = {"shop1": 2.0, "backup1": 1.0, "shop2": 1.0, "spare1": 0.1}
    run = play(start(store, raised(scene, 2.0), offered(1, {Pair("c1", SHOP): 0.0}, machines)), 1)
    # hA has 2 cores: half for each; each could have no more than the other leaves it.
    assert run.vms.used[0].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.1])
    assert run.vms.allowed[0].tolist() == pytest.approx([1.0, 1.0, 1.9, 1.0])
    assert run.hosts.used[0].tolist() == pytest.approx([2.0, 1.1])
    assert run.hosts.need[0].tolist() == pytest.approx([3.0, 1.1])


def raised(scene: ReplayScene, cores: float) -> ReplayScene:
    return replace(scene, vms=tuple(replace(vm, cpu_cores_min=cores, cpu_cores_max=cores) for vm in scene.vms))


def test_a_meter_holds_while_its_lease_does(store: Store) -> None:
    pair, other = Pair("c1", BACKUP), Pair("c2", SHOP)
    engine = start(store, two_hosts(), offered(5, {pair: 4e5, other: 1e5}))
    limits = (Limit(pair, 1e5),)
    store.wanted.reserve(Reservation("k", other, 5e5, limits, "o", "r", EPOCH_S, EPOCH_S + 2))
    run = play(engine, 5)
    assert run.pairs.used[:2, 0] == pytest.approx([1e5, 1e5])
    assert run.pairs.allowed[:2, 0] == pytest.approx([1e5, 1e5])
    assert run.links.need[:2, run.links.names.index("s1>hA")] == pytest.approx([2e5, 2e5])
    # Then 0.6 MB wait beside what is new: all that fits, 1 MB/s less what the other pair takes.
    assert run.pairs.used[2, 0] == pytest.approx(9e5)
    assert run.pairs.used[:, 1] == pytest.approx(1e5)
    assert [one.key for one in store.wanted.observed_of(ReservationReport)] == []


def test_a_queue_keeps_what_it_guarantees(store: Store) -> None:
    scene = two_hosts()
    queue = QueueSpec("s1>hA", "eth0", NARROW, 0.8)
    declared = {"hosts": scene.hosts, "vms": scene.vms, "queues": (queue,)}
    scene = replace(scene, orchestrator=scene.orchestrator.tuned(declared=declared))
    mine, others = Pair("c1", SHOP), Pair("c2", BACKUP)
    engine = start(store, scene, offered(1, {mine: 9e5, others: 9e5}))
    store.wanted.reserve(Reservation("k", mine, 7e5, (), "o", "r", EPOCH_S, EPOCH_S + 9, dscp=46))
    # 0.8 MB/s are kept; the rest is shared equally.
    assert play(engine, 1).pairs.used[0].tolist() == pytest.approx([9e5, 1e5])


def test_streams_do_not_yield_and_do_not_wait(store: Store) -> None:
    flood, asks = Pair("c1", BACKUP), Pair("c2", SHOP)
    load = offered(2, {flood: 3e6, asks: 2e5}, streams=frozenset({flood}))
    run = play(start(store, two_hosts(), load), 2)
    # 3.2 MB/s for a link of 1: of all that arrives the same share passes.
    assert run.pairs.used[0].tolist() == pytest.approx([3e6 / 3.2, 2e5 / 3.2])
    # Lost at once: counted once a second, never carried over.
    assert short_bytes(load, run.pairs, load.known)[:, 0] == pytest.approx([3e6 - 3e6 / 3.2] * 2)
    # Switches count it where it enters, and what they dropped of it.
    rows = store.facts.communications(EPOCH_S, EPOCH_S + 1)
    assert {row.pair: row.bytes for row in rows} == {flood: 3_000_000, asks: 62_500}
    drops = {(one.from_node, one.to_node): one.drops for one in store.facts.loads(LinkLoad, EPOCH_S, EPOCH_S + 1)}
    assert drops["s1", "hA"] == 2062


def test_what_a_meter_drops_at_the_edge_is_no_drop_of_a_link_on_the_way(store: Store) -> None:
    flood, asks = Pair("c1", BACKUP), Pair("c2", SHOP)
    load = offered(2, {flood: 3e6, asks: 2e5}, streams=frozenset({flood}))
    engine = start(store, two_hosts(), load)
    limits = (Limit(flood, 7e5),)
    store.wanted.reserve(Reservation("k", asks, 2e5, limits, "o", "r", EPOCH_S, EPOCH_S + 9))
    assert play(engine, 2).pairs.used[0].tolist() == pytest.approx([7e5, 2e5])
    assert not any(one.drops for one in store.facts.loads(LinkLoad, EPOCH_S, EPOCH_S + 2))


def test_a_machine_of_a_pool_rests_until_its_service_needs_more_than_it_has() -> None:
    scene = two_hosts(1e9)
    member = PoolMember("extra1", "10.0.0.31", "02:00:00:00:00:31", "hB", "paused")
    pool = PoolSpec(SHOP, (member,), most=2, cpu_cores_min=0.5, cpu_cores_max=1.5, memory_bytes=GIB)
    declared = {"hosts": scene.hosts, "vms": scene.vms, "pools": (pool,)}
    costs = scene.costs | {"extra1": scene.costs["shop1"]}
    spread = (replace(scene.virtual_ips[0], affinity="connection"), scene.virtual_ips[1])
    config = scene.orchestrator.tuned(declared=declared)
    scene = replace(scene, orchestrator=config, costs=costs, virtual_ips=spread)
    callers = {Pair(f"c{n}", SHOP): 7e5 for n in (1, 2, 3)}
    run = replay(scene, offered(40, callers), ReplayPolicy.REACTIVE, 1)
    assert "scale_out" in {one.kind for one in run.actions}
    assert (run.vms.allowed[:3, run.vms.names.index("extra1")] == 0).all()
    assert run.vms.used[30:, run.vms.names.index("extra1")].max() > 0.2


def test_a_lost_host_answers_nobody_and_pairs_go_elsewhere_in_time(store: Store) -> None:
    scene = two_hosts()
    both = replace(scene.virtual_ips[0], destinations=vip(SHOP, "shop", 10, "shop1", "shop2").destinations)
    scene = replace(scene, virtual_ips=(both, scene.virtual_ips[1]))
    lost = SceneEvent(EventKind.HOST_LOST, 5, 40, "hA")
    engine = start(
        store, scene, offered(30, {Pair(f"c{n}", SHOP): 1e4 for n in (1, 2, 3)}, {"backup1": 0.2}, events=(lost,))
    )
    run = play(engine, 30)
    assert (run.vms.allowed[5:, [SHOP1, BACKUP1]] == 0).all()
    assert run.vms.need[5:, BACKUP1] == pytest.approx(0.2)
    at_first = run.pairs.where[0] if run.pairs.where is not None else np.zeros(0)
    mine = np.flatnonzero(at_first == SHOP1)
    assert len(mine) and (run.pairs.used[5:7, mine] == 0).all()
    assert run.pairs.used[12:] == pytest.approx(1e4)
    hosts, _ = engine.stage.hypervisors.loads(EPOCH_S + 30)
    assert [one.host for one in hosts] == ["hB"]


def test_a_lost_link_is_gone_round_where_there_is_a_way(store: Store) -> None:
    scene = two_hosts()
    spare = tuple(Link(a, 0, b, 0, WIDE) for a, b in (("s1", "s2"), ("s1", "s3"), ("s2", "s3")))
    moved = replace(scene.links[3], a="s3")
    switches = tuple(Node(name, NodeKind.SWITCH, dpid=number) for number, name in enumerate(("s1", "s2", "s3"), 1))
    scene = replace(scene, nodes=(*switches, *scene.nodes[1:]), links=(*scene.links[:3], moved, scene.links[4], *spare))
    events = (SceneEvent(EventKind.LINK_LOST, 2, 4, "s3>s1"), SceneEvent(EventKind.LINK_LOST, 4, 5, "hA>s3"))
    load = offered(6, {Pair("c1", SHOP): 1e5}, events=events)
    run = play(start(store, scene, load), 6)
    direct, around = (run.links.names.index(name) for name in ("s1>s3", "s1>s2"))
    assert run.links.used[:, direct].tolist() == pytest.approx([1e5, 1e5, 0, 0, 0, 2e5])
    assert run.links.used[:, around].tolist() == pytest.approx([0, 0, 1e5, 1e5, 0, 0])
    assert short_bytes(load, run.pairs, load.known)[:, 0].tolist() == pytest.approx([0, 0, 0, 0, 1e5, 0])
    assert run.pairs.allowed[4, 0] == 0


def test_late_telemetry_comes_late_and_complete(store: Store) -> None:
    late = SceneEvent(EventKind.TELEMETRY_LATE, 2, 4)
    engine = start(store, two_hosts(), offered(14, {Pair("c1", SHOP): 1e5}, events=(late,)))
    play(engine, 6)
    assert [row.t - EPOCH_S for row in store.facts.communications(EPOCH_S)] == [1, 2]
    for second in range(6, 14):
        engine.advance(second)
    assert [row.t - EPOCH_S for row in store.facts.communications(EPOCH_S)] == list(range(1, 15))


def test_a_gap_is_played_with_nothing_and_tells_nothing(store: Store) -> None:
    load = offered(4, {Pair("c1", SHOP): 1e5}, {"shop1": 0.3})
    run = play(start(store, two_hosts(), replace(load, known=np.array([True, True, False, True]))), 4)
    assert run.pairs.need[:, 0].tolist() == pytest.approx([1e5, 1e5, 0, 1e5])
    assert run.vms.need[2, SHOP1] == 0
    assert [row.t - EPOCH_S for row in store.facts.communications(EPOCH_S)] == [1, 2, 4]


def test_the_oracle_is_told_what_will_be_offered(store: Store) -> None:
    pair = Pair("c1", SHOP)
    load = offered(10, {pair: 0.0})
    load.bytes_per_s[:, 0] = np.arange(10) * 100.0
    load.connections_per_s[:, 0] = np.arange(10)
    TrueFuture(load, FORESEEING).write(store, 2, EPOCH_S + 2)
    told = {(one.horizon_s, one.quantity): one for one in store.forecasts.latest(EPOCH_S + 2, 5.0)}
    # Rows 2 to 6 are (2, 7]; beyond the end nothing comes.
    assert told[5, Quantity.BYTES_PEAK].at(0.9) == 600
    assert told[5, Quantity.BYTES_MEAN].at(0.5) == 400
    assert told[30, Quantity.CONNECTIONS_PEAK].at(0.05) == 9
    assert told[30, Quantity.CONNECTIONS_MEAN].at(0.5) == pytest.approx(sum(range(2, 10)) / 30)
    assert told[30, Quantity.BYTES_PEAK].trusted


def surges() -> OfferedLoad:
    rates = {pair: (5e4 if pair.virtual_ip == SHOP else 2.5e5) for pair in PAIRS}
    load = offered(60, rates, {"backup1": 0.1})
    load.bytes_per_s[30:50, [0, 2, 4]] *= 6
    load.connections_per_s[30:50, [0, 2, 4]] *= 6
    return load


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [replay(two_hosts(), surges(), ReplayPolicy.REACTIVE, 7) for _ in range(2)]
    first, second = runs
    assert first.actions == second.actions != ()
    assert (first.vms.allowed == second.vms.allowed).all()
    assert (first.pairs.used == second.pairs.used).all()


def test_without_forecasts_the_oracle_only_reacts() -> None:
    missing = SceneEvent(EventKind.FORECASTS_MISSING, 0, 60)
    blind = replay(two_hosts(), replace(surges(), events=(missing,)), ReplayPolicy.ORACLE, 7)
    seeing = replay(two_hosts(), surges(), ReplayPolicy.ORACLE, 7)
    reacting = replay(two_hosts(), surges(), ReplayPolicy.REACTIVE, 7)
    assert reserved_at(blind) == reserved_at(reacting)
    assert min(reserved_at(seeing)) < 30 <= min(reserved_at(blind))


def reserved_at(run: PolicyRun) -> list[float]:
    return [one.t for one in run.actions if one.kind == "reserve_bandwidth" and one.code == ""]


def test_migrations_that_fail_leave_machines_where_they_are() -> None:
    scene = two_hosts()
    vms = tuple(replace(vm, movable=vm.priority == 0, cpu_cores_max=2.0) for vm in scene.vms)
    scene = replace(scene, vms=vms)
    load = offered(40, {Pair("c1", SHOP): 1e4}, {"shop1": 1.8, "backup1": 0.5})
    fails = SceneEvent(EventKind.MIGRATIONS_FAIL, 0, 40)
    good = replay(scene, load, ReplayPolicy.REACTIVE, 3)
    bad = replay(scene, replace(load, events=(fails,)), ReplayPolicy.REACTIVE, 3)
    moved = next(one for one in good.actions if one.kind == "migrate_vm" and one.code == "")
    assert moved.target == "backup1" and moved.copied_bytes > 0 and moved.pause_s > 0
    assert good.vms.where is not None and good.vms.where[-1, BACKUP1] == 1
    assert any(one.kind == "migrate_vm" and one.code == "failed" for one in bad.actions)
    assert bad.vms.where is not None and (bad.vms.where[:, BACKUP1] == 0).all()
