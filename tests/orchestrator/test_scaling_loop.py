"""A service that grows before its need and shrinks after calm, and never loses who serves it."""

from pool_world import CONFIG, POOL, PoolWorld, replace

from cpdb import Store


def surge(t: float) -> float:
    return 40.0 if 60 <= t < 100 else 3.0


def test_a_surge_brings_a_machine_in_and_calm_takes_it_out(store: Store) -> None:
    world = PoolWorld(store, surge)
    most: list[int] = []
    world.run(180, lambda one: most.append(len(one.serving())))
    assert world.lost == []
    assert max(most) >= 2
    assert world.serving() == {"web1": 100}
    assert world.settled()
    outs, ins = ([one for one in world.outcomes(kind) if one[1] != "skipped"] for kind in ("scale_out", "scale_in"))
    assert outs[0][:2] == ("web2", "done")
    assert {one[1] for one in (*outs, *ins)} == {"done"}
    assert len(outs) == len(ins) == max(most) - 1


def test_a_forecast_brings_it_in_before_the_need(store: Store) -> None:
    world = PoolWorld(store, surge, foresee=True)
    world.run(60)
    assert {"web1", "web2", "web3"} <= set(world.serving())
    records = {one.target: one for one in store.journal.actions() if one.kind == "scale_out"}
    assert records["web3"].issued_at < records["web2"].issued_at, "what comes up more slowly begins earlier"
    for vm, horizon_s in (("web2", 5), ("web3", 15)):
        assert records[vm].reason["forecast"]["horizon_s"] == horizon_s
        assert records[vm].timing.needed_at is not None
        assert records[vm].timing.lead_s <= horizon_s
    assert "web4" in str(records["web2"].reason["alternatives"])


def test_coming_and_going_are_judged_by_those_who_served_without_them(store: Store) -> None:
    PoolWorld(store, surge, foresee=True).run(180)
    judged = {(one.kind, one.target): one.verdict for one in store.journal.actions() if one.verdict}
    first = judged["scale_out", "web3"]
    assert (first["code"], first["needed"], first["in_time"]) == ("kept", True, True)
    assert first["spared_s"] > 5
    assert {judged["scale_in", name]["code"] for name in ("web2", "web3")} == {"kept"}


def test_without_permission_it_only_advises(store: Store) -> None:
    world = PoolWorld(store, surge, config=CONFIG.tuned(act=False))
    world.run(90)
    assert {one[1] for one in world.outcomes("scale_out")} == {"advised"}
    assert world.serving() == {"web1": 100}
    assert world.pool.calls == []


def test_advice_to_bring_one_in_is_judged_by_the_service_without_it(store: Store) -> None:
    PoolWorld(store, surge, foresee=True, config=CONFIG.tuned(act=False)).run(170)
    told = [one.verdict for one in store.journal.actions() if one.kind == "scale_out" and one.verdict]
    assert told[-1]["code"] == "kept" and told[-1]["spared_s"] > 5, "the first advice would have helped"


def test_at_least_as_many_serve_as_are_asked_for(store: Store) -> None:
    pool = replace(POOL, least=2)
    world = PoolWorld(store, config=CONFIG.tuned(declared={"pools": (pool,)}))
    world.run(60)
    assert len(world.serving()) == 2
    (row,) = (one for one in store.journal.actions() if one.kind == "scale_out")
    assert row.why == f"shop is served by 1 of the 2 machines that its pool asks for: {row.target} comes"
    assert world.outcomes("scale_in") == []
