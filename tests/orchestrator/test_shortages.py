"""What runs short is written down with its seconds, and with who foresaw it: what nobody foresaw is a missed need."""

from dataclasses import replace

import pytest
from fake_world import CONFIG, START, Simulation
from worlds import LINK, changed, machines, pair_state, vm, world

from cpdb import ActionRecord, ShortageKind, Store
from orchestrator import OrchestratorConfig, World
from orchestrator.judge.shortages import ShortageWatch, short_now

SURGES = ((60.0, 75.0),)
SETTINGS = OrchestratorConfig()


def found(store: Store, kind: ShortageKind, subject: str) -> list[tuple[float, bool]]:
    rows = [one for one in store.journal.shortages(0.0) if (one.kind, one.subject) == (kind, subject)]
    return [(one.seconds, one.foreseen_by is not None) for one in rows]


def test_a_surge_that_nobody_foresaw_is_a_missed_need_and_advice_in_time_makes_it_a_foreseen_one(store: Store) -> None:
    config = CONFIG.tuned(act=False)
    Simulation(store, config=config, surges=SURGES, foresee=False).run(110)
    ((seconds, foreseen),) = found(store, ShortageKind.CPU, "shop1")
    assert 10 < seconds < 50 and not foreseen
    ((seconds, foreseen),) = found(store, ShortageKind.LINK, "leaf2>hA")
    assert 5 < seconds < 50 and not foreseen


def test_what_advice_foresaw_is_not_missed(store: Store) -> None:
    Simulation(store, config=CONFIG.tuned(act=False), surges=SURGES).run(110)
    for kind, subject in ((ShortageKind.CPU, "shop1"), (ShortageKind.LINK, "leaf2>hA")):
        ((seconds, foreseen),) = found(store, kind, subject)
        assert seconds > 5 and foreseen
    (short,) = (one for one in store.journal.shortages(START) if one.kind is ShortageKind.CPU)
    told = store.journal.action(short.foreseen_by or 0)
    assert told is not None and (told.kind, told.target) == ("set_cpu_limit", "shop1")


def test_who_acts_in_time_has_hardly_a_shortage_to_tell_of(store: Store) -> None:
    Simulation(store, surges=SURGES).run(110)
    assert found(store, ShortageKind.CPU, "shop1") == []


def at_its_limit(used: float, most: float, **more: object) -> World:
    machine = vm("shop1", "h1", used, 0.5, cpu_cores_max=most)
    return changed(world([pair_state("c1", "v1", 10, 1.0)]), **machines(machine), **more)


@pytest.mark.parametrize(
    ("used", "most", "short"),
    [(0.3, 1.0, False), (0.49, 1.0, True), (0.49, 0.5, False)],
)
def test_a_machine_is_short_at_a_limit_that_could_be_raised(used: float, most: float, short: bool) -> None:
    assert ((ShortageKind.CPU, "shop1") in short_now(at_its_limit(used, most), SETTINGS)) is short


def test_hosts_links_and_memory() -> None:
    start = at_its_limit(0.3, 1.0)
    full = replace(start.links[LINK], bytes_per_s=1_490_000.0)
    dropping = replace(start.links[LINK], drop_share=0.02)
    name = full.name
    assert short_now(start, SETTINGS) == {}
    assert set(short_now(replace(start, links={LINK: full}), SETTINGS)) == {(ShortageKind.LINK, name)}
    assert set(short_now(replace(start, links={LINK: dropping}), SETTINGS)) == {(ShortageKind.LINK, name)}
    shop = start.vms["shop1"]
    eaten = replace(shop, memory=replace(shop.memory, used_bytes=shop.memory.bytes))
    assert set(short_now(replace(start, vms={"shop1": eaten}), SETTINGS)) == {(ShortageKind.MEMORY, "shop1")}
    others = [vm(f"other{number}", "h1", 0.35, 1.0) for number in range(2)]
    busy = changed(start, **machines(shop, *others))
    assert set(short_now(busy, SETTINGS)) == {(ShortageKind.HOST, "h1")}


def nobody(_name: str, _now: float) -> ActionRecord | None:
    return None


def test_one_cycle_is_noise_and_a_restart_keeps_what_was_seen(store: Store) -> None:
    watch, short = ShortageWatch(store, SETTINGS), at_its_limit(0.49, 1.0)
    watch.watch(at_its_limit(0.3, 1.0), nobody, ())
    watch.watch(replace(short, now=short.now + 1), nobody, ())
    watch.watch(replace(at_its_limit(0.3, 1.0), now=short.now + 2), nobody, ())
    assert store.journal.shortages(0.0) == []
    for second in range(3, 12):
        watch.watch(replace(short, now=short.now + second), nobody, ())
    (kept,) = store.journal.shortages(0.0)
    assert 5 <= kept.seconds <= 9 and "0.49 of 0.50 cores" in kept.detail
    (ended,) = watch.watch(replace(at_its_limit(0.3, 1.0), now=short.now + 12), nobody, ())
    assert store.journal.shortages(0.0) == [ended] and ended.seconds == 9
