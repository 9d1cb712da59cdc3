"""What actions and advice promise is compared with what was measured, and can be told."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import ActionRecord, ActionTiming, Communication, HostLoad, LinkLoad, OutcomeKind, Seconds, VmLoad
from orchestrator import (
    MigrateVm,
    ReserveBandwidth,
    ScaleOut,
    SetCpuLimit,
    SetMemory,
    SetWeights,
    explain,
    promised,
    verdict_from_json,
)
from orchestrator.actions import Action
from orchestrator.judge.judge import verdict
from orchestrator.verdicts import Case, Measured, PromiseVerdict, VerdictCode

MIB = 1 << 20
T = 1_000.0
END = T + 15.0
SECONDS = range(1, 16)
DONE, ADVISED = OutcomeKind.DONE, OutcomeKind.ADVISED
KEPT, BROKEN, UNNEEDED = VerdictCode.KEPT, VerdictCode.BROKEN, VerdictCode.UNNEEDED

LIMIT = SetCpuLimit("shop", 0.2, 0.6)
MEMORY = SetMemory("shop", 96 * MIB, 160 * MIB)
MOVE = MigrateVm("batch", "h1", "h2")
KEEP = ReserveBandwidth.from_body(
    {
        "key": "c1->10.0.0.1@leaf>h1", "source": "c1", "virtual_ip": "10.0.0.1", "bytes_per_s": 600_000.0,
        "limits": [{"source": "c4", "virtual_ip": "10.0.0.3", "bytes_per_s": 400_000.0}], "lease_s": 8.0,
    }
)  # fmt: skip
CORES = {"what": "vm_not_starved", "vm": "shop", "value": 0.6}
FULL = {"what": "vm_memory", "vm": "shop", "value": 160 * MIB}
PLACE = {"what": "vm_on_host", "vm": "batch", "host": "h2"}
LINK = {"what": "link_bytes_per_s", "link": "leaf>h1", "value": 1_000_000.0}
ROOM = {"what": "headroom", "vms": ["shop"]}
HOST = {"what": "host_cores_used", "host": "h1", "value": 1.0}
PAIR = {"what": "pair_bytes_per_s", "pair": "c1->10.0.0.1", "value": 600_000.0}
PROMISES = [CORES, FULL, PLACE, LINK, ROOM, HOST, PAIR]


def record(
    action: Action, promise: dict[str, Any], outcome: OutcomeKind = DONE, ready: Seconds | None = 1.0, **reason: Any
) -> ActionRecord:
    """Decided at T for a need from T + 5 on; done at T + `ready`, advice would have taken 1 s."""
    told = {"promise": {**promise, "by": T + 5}, "alternatives": []} | reason
    return ActionRecord(
        action.kind, action.target, action.to_json(), "why", told, "predictive", T,
        ActionTiming(T + 5, 1.0, T + ready if outcome is DONE and ready else None), outcome, "done",
    )  # fmt: skip


def judged(row: ActionRecord, *loads: Any) -> PromiseVerdict:
    kinds = {HostLoad: "host_loads", LinkLoad: "link_loads", Communication: "communications"}
    rows = {name: [one for one in loads if isinstance(one, kind)] for kind, name in kinds.items()}
    machines = [one for one in loads if isinstance(one, VmLoad)]
    measured = Measured(vm_loads=lambda vm: [one for one in machines if one.vm == vm], **rows)
    return verdict(Case(row, measured, END))


def cpu(second: float, used: float, limit: float, vm: str = "shop", host: str = "h1") -> VmLoad:
    return VmLoad(vm, host, T + second, "running", used, limit, 1, 100 * MIB, 160 * MIB)


def memory(second: float, used: int, size: int) -> VmLoad:
    return VmLoad("shop", "h1", T + second, "running", 0.1, 0.6, 1, used * MIB, size * MIB)


def host(name: str, second: float, used: float) -> HostLoad:
    return HostLoad(name, T + second, used, 1.0, 0, 1)


def link(second: float, size: int, drops: int = 0) -> LinkLoad:
    return LinkLoad("leaf", "h1", T + second, 1.0, size, 10, drops)


def sent(source: str, vip: str, second: float, size: int) -> Communication:
    return Communication(source, vip, "shop", T + second, 1.0, size, 10, 1)


def surge(second: float, high: float, low: float) -> float:
    """High from T + 6 to T + 12."""
    return high if 6 <= second < 12 else low


def test_a_raised_limit_is_held_against_the_use_under_the_old_one() -> None:
    found = judged(record(LIMIT, CORES), *(cpu(s, surge(s, 0.45, 0.05), 0.6) for s in SECONDS))
    assert (found.code, found.needed, found.enough, found.in_time) == (KEPT, True, True, True)
    assert found.short_s == found.spared_s == 6 and found.peak == 0.45
    assert found.ahead_s == pytest.approx(4.0)
    assert 0 < found.waste < 1 and found.cost_s == pytest.approx(found.waste * found.watched_s)


def test_a_limit_that_nobody_used_was_unneeded_and_one_that_was_too_small_is_broken() -> None:
    idle = judged(record(LIMIT, CORES), *(cpu(s, 0.05, 0.6) for s in SECONDS))
    assert (idle.code, idle.needed, idle.waste) == (UNNEEDED, False, 1.0)
    assert idle.spared_s == 0 and idle.gain_s(9.0) < 0
    small = judged(record(LIMIT, CORES), *(cpu(s, surge(s, 0.6, 0.05), 0.6) for s in SECONDS))
    assert (small.code, small.needed, small.enough) == (BROKEN, True, False)


def test_what_was_ready_after_the_need_came_too_late() -> None:
    loads = [cpu(s, surge(s, 0.45, 0.05), 0.2 if s < 10 else 0.6) for s in SECONDS]
    late = judged(record(LIMIT, CORES, ready=10.0), *loads)
    assert (late.code, late.enough, late.in_time) == (BROKEN, True, False)
    assert 0 < late.spared_s < late.short_s and (late.ahead_s or 0) < 0


def test_what_was_given_back_is_broken_where_it_is_missed() -> None:
    back = replace(LIMIT, before=0.6, after=0.2)
    fine = judged(record(back, CORES | {"value": 0.2}), *(cpu(s, 0.05, 0.2) for s in SECONDS))
    assert (fine.code, fine.needed, fine.spared_s) == (KEPT, None, 0.0)
    missed = judged(record(back, CORES | {"value": 0.2}), *(cpu(s, 0.2, 0.2) for s in SECONDS))
    assert missed.code is BROKEN and missed.spared_s < 0


def test_advice_is_needed_where_the_machine_was_held_back_and_enough_if_its_communications_ask_for_less() -> None:
    asks = {"feature": "bytes_per_s", "base_cores": 0.0, "slope": 1e-6, "spread_cores": 0.0, "samples": 50}
    loads = [cpu(s, surge(s, 0.2, 0.05), 0.2) for s in SECONDS]
    asked = [sent("c1", "10.0.0.1", s, int(surge(s, 500_000, 10_000))) for s in SECONDS]
    found = judged(record(LIMIT, CORES, ADVISED, relation=asks), *loads, *asked)
    assert (found.code, found.needed, found.enough, found.in_time) == (KEPT, True, True, True)
    assert found.spared_s == 6 and found.peak == pytest.approx(0.5)
    too_much = [replace(one, bytes=2 * one.bytes) for one in asked]
    assert judged(record(LIMIT, CORES, ADVISED, relation=asks), *loads, *too_much).code is BROKEN
    calm = judged(record(LIMIT, CORES, ADVISED), *(cpu(s, 0.05, 0.2) for s in SECONDS))
    assert (calm.code, calm.spared_s) == (UNNEEDED, 0.0)


@pytest.mark.parametrize("outcome", [DONE, ADVISED])
def test_memory(outcome: OutcomeKind) -> None:
    size = 160 if outcome is DONE else 96
    used = [memory(s, int(surge(s, 120 if outcome is DONE else 96, 60)), size) for s in SECONDS]
    found = judged(record(MEMORY, FULL, outcome), *used)
    assert (found.code, found.short_s, found.spared_s) == (KEPT, 6, 6)
    assert judged(record(MEMORY, FULL, outcome), *(memory(s, 60, size) for s in SECONDS)).code is UNNEEDED


@pytest.mark.parametrize("outcome", [DONE, ADVISED])
def test_a_move_is_held_against_the_host_with_and_without_the_machine(outcome: OutcomeKind) -> None:
    away = 0.25 if outcome is DONE else 0.0
    moved = [cpu(s, 0.25, 0.25, "batch", "h2" if away else "h1") for s in SECONDS]
    busy = [host("h1", s, surge(s, 1.0, 0.6) - away) for s in SECONDS]
    calm = [host("h2", s, 0.1 + away) for s in SECONDS]
    found = judged(record(MOVE, HOST, outcome), *moved, *busy, *calm)
    assert (found.code, found.short_s, found.spared_s) == (KEPT, 6, 6)
    assert found.cost_s == 1.0  # as long as copying took, or was expected to take
    harmed = judged(record(MOVE, HOST, outcome), *moved, *busy, *(host("h2", s, 0.8 + away) for s in SECONDS))
    assert harmed.spared_s < 0 and "others lost" in harmed.sentence
    idle = judged(record(MOVE, HOST, outcome), *moved, *(host("h1", s, 0.6 - away) for s in SECONDS), *calm)
    assert idle.code is UNNEEDED
    full = judged(record(MOVE, HOST, outcome), *moved, *(host("h1", s, 1.25 - away) for s in SECONDS), *calm)
    assert full.code is BROKEN


@pytest.mark.parametrize("outcome", [DONE, ADVISED])
def test_a_reservation_is_held_against_what_the_others_would_have_sent(outcome: OutcomeKind) -> None:
    before = [sent("c4", "10.0.0.3", -s, 700_000) for s in range(5)]
    pair = [sent("c1", "10.0.0.1", s, int(surge(s, 500_000, 20_000))) for s in SECONDS]
    place = {"where": {"link": "leaf>h1"}, "capacity": 1_000_000.0}
    row = record(KEEP, PAIR, outcome, **place)
    if outcome is DONE:  # the other is held to its limit, and the link is never full
        other = [sent("c4", "10.0.0.3", s, 400_000) for s in SECONDS]
        carried = [link(s, int(surge(s, 900_000, 420_000))) for s in SECONDS]
    else:
        other = [sent("c4", "10.0.0.3", s, 700_000) for s in SECONDS]
        carried = [link(s, int(surge(s, 1_000_000, 720_000))) for s in SECONDS]
    found = judged(row, *before, *pair, *other, *carried)
    assert (found.code, found.needed, found.enough, found.short_s) == (KEPT, True, True, 6)
    # In the other seconds the link had room, and what the other lost was lost for nothing.
    assert 0 < found.spared_s < 6
    quiet = [replace(one, bytes=20_000) for one in pair]
    idle = judged(row, *before, *quiet, *other, *(link(s, 420_000 if outcome is DONE else 720_000) for s in SECONDS))
    assert idle.code is UNNEEDED and idle.spared_s < 0 and "did not come" in idle.sentence


def test_what_splits_and_places_spared_is_not_claimed() -> None:
    fine = judged(record(LIMIT, LINK), *(link(s, 700_000) for s in SECONDS))
    assert (fine.code, fine.needed, fine.spared_s) == (KEPT, None, 0.0)
    assert judged(record(LIMIT, LINK), *(link(s, 999_000) for s in SECONDS)).code is BROKEN
    there = [cpu(s, 0.1, 0.2, "batch", "h2") for s in SECONDS]
    assert judged(record(MOVE, PLACE), *there).code is KEPT
    assert judged(record(MOVE, PLACE), *(replace(one, host="h1") for one in there)).code is BROKEN
    assert judged(record(LIMIT, ROOM), *(cpu(s, 0.1, 0.5) for s in SECONDS)).code is KEPT
    assert judged(record(LIMIT, ROOM), *(cpu(s, 0.5, 0.5) for s in SECONDS)).code is BROKEN


def test_a_machine_that_would_be_resumed_counts_as_large_as_those_that_serve() -> None:
    row = record(ScaleOut("10.0.0.1", "shop2", "h1", "paused"), ROOM, ADVISED)
    busy = [cpu(s, surge(s, 0.5, 0.1), 0.5) for s in SECONDS]
    # Hosts tell of one that rests, and that it may use nothing.
    resting = [replace(one, vm="shop2", state="paused", cpu_cores_used=0.0, cpu_cores_limit=0.0) for one in busy]
    found = judged(row, *busy, *resting)
    assert (found.code, found.eased, found.short_s, found.spared_s) == (KEPT, True, 6, 6)
    assert found == judged(row, *busy)


@pytest.mark.parametrize("promise", [*PROMISES, {"what": "a promise of another version"}])
@pytest.mark.parametrize("outcome", [DONE, ADVISED])
def test_without_measurements_nothing_is_claimed(promise: dict[str, Any], outcome: OutcomeKind) -> None:
    found = judged(record(LIMIT, promise, outcome), cpu(0.5, 0.1, 0.2), cpu(90, 0.1, 0.2), link(90.0, 1))
    assert found.code is VerdictCode.UNKNOWN and found.sentence
    assert (found.needed, found.enough, found.spared_s) == (None, None, 0.0)


@given(
    used=st.lists(st.floats(0, 0.6), min_size=15, max_size=15),
    before=st.floats(0.05, 0.5),
    outcome=st.sampled_from([DONE, ADVISED]),
)
def test_laws_of_every_verdict(used: list[float], before: float, outcome: OutcomeKind) -> None:
    limit = 0.6 if outcome is DONE else before
    loads = [cpu(s, min(one, limit), limit) for s, one in zip(SECONDS, used, strict=True)]
    found = judged(record(replace(LIMIT, before=before), CORES, outcome), *loads)
    assert 0 <= found.waste <= 1 and 0 <= found.cost_s <= found.watched_s
    assert found.spared_s <= found.short_s <= 15
    assert (found.code is UNNEEDED) == (found.needed is False and bool(found.enough))
    assert verdict_from_json(found.to_json()) == found


def test_what_older_versions_wrote_can_be_read() -> None:
    old = {True: KEPT, False: BROKEN, None: VerdictCode.UNKNOWN}
    for said, code in old.items():
        found = verdict_from_json({"kept": said, "peak_cores": 0.4, "sentence": "measured"})
        assert found is not None and (found.code, found.sentence) == (code, "measured")
    assert verdict_from_json({}) is None


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        (FULL, "shop is not full with 160 MiB"),
        (PLACE, "batch runs on h2"),
        (LINK, "leaf>h1 is not full at 8.0 Mbit/s"),
    ],
)
def test_promises_are_told_in_words(promise: dict[str, Any], words: str) -> None:
    assert words in (promised(record(MEMORY, promise)) or "")


def test_an_explanation_names_the_set_the_alternatives_and_sizes_in_their_unit() -> None:
    chosen = {"set": [{"action": "a limit of 1.00 cores", "cores": 0.5, "lead_s": 1.5}], "lacking": 0.25}
    other = {"action": "another vCPU", "why_not": "it has all of its 1 vCPUs", "lead_s": 3.0}
    where = {"where": {"vm": "shop", "host": "h1"}, "unit": "bytes", "forecast": None, "measured": {}}
    sizes = {"need": 120.0 * MIB, "available": 96 * MIB, "capacity": 2048 * MIB}
    text = "\n".join(explain(record(MEMORY, FULL, choice=chosen, **where, **sizes)))
    assert "at vm shop, host h1: need 120 MiB, available 96 MiB, capacity 2048 MiB" in text
    assert "the cheapest set in time: a limit of 1.00 cores (up to 1.5 s); 0.25 cores remain lacking" in text
    told = "\n".join(explain(record(MEMORY, FULL, choice=None, **where, **sizes, alternatives=[other])))
    assert "not: another vCPU, because it has all of its 1 vCPUs" in told


def test_new_weights_are_held_against_the_load_of_the_links_that_they_relieve_and_burden() -> None:
    rooms = {"leaf>h1": {"now": -0.2, "then": 0.4}}
    promise = {"what": "headroom", "vms": [], "links": ["leaf>h1"]}
    action = SetWeights("10.0.0.1", (), (("a", 20), ("b", 80)))
    loads = [link(s, int(surge(s, 600_000, 50_000))) for s in SECONDS]
    found = judged(record(action, promise, headrooms=rooms, capacities={"leaf>h1": 1_000_000.0}), *loads)
    # With half the load it would have been full.
    assert (found.code, found.needed, found.in_time, found.spared_s) == (KEPT, True, True, 6)
    full = [link(s, int(surge(s, 1_000_000, 50_000))) for s in SECONDS]
    assert judged(record(action, promise, headrooms=rooms, capacities={"leaf>h1": 1e6}), *full).code is BROKEN
    advised = record(action, promise, OutcomeKind.ADVISED, headrooms=rooms, capacities={"leaf>h1": 1e6})
    assert judged(advised, *full).spared_s == 6
