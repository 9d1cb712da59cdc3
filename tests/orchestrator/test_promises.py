"""What actions on machines promise is compared with what was measured, and can be told."""

from typing import Any

import pytest

from cpdb import ActionRecord, ActionTiming, HostLoad, LinkLoad, OutcomeKind, VmLoad
from orchestrator import explain, promised, verdict
from orchestrator.promises import Measured

MIB = 1 << 20
T = 1_000.0


def record(promise: dict[str, Any], **reason: Any) -> ActionRecord:
    told = {"promise": {**promise, "by": T + 5}, "alternatives": []} | reason
    body = {"vm": "shop", "from": 96 * MIB, "to": 160 * MIB}
    return ActionRecord(
        "set_memory", "shop", body, "why", told, "predictive", T,
        ActionTiming(T + 5, 2.0, T + 1), OutcomeKind.DONE, "done",
    )  # fmt: skip


def vm_load(second: float, used: float = 0.1, memory: int = 100, host: str = "h2") -> VmLoad:
    return VmLoad("shop", host, T + second, "running", used, 0.5, 1, memory * MIB, 160 * MIB)


def link_load(second: float, size: int) -> LinkLoad:
    return LinkLoad("leaf", "h1", T + second, 1.0, size, 10)


MEMORY = {"what": "vm_memory", "vm": "shop", "value": 160 * MIB}
PLACE = {"what": "vm_on_host", "vm": "shop", "host": "h2"}
LINK = {"what": "link_bytes_per_s", "link": "leaf>h1", "value": 1_000_000.0}
ROOM = {"what": "headroom", "vms": ["shop"]}
HOST = {"what": "host_cores_used", "host": "h1", "value": 1.0}
SECONDS = [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("promise", "measured", "kept"),
    [
        (MEMORY, Measured(vm_loads=[vm_load(s, memory=140) for s in SECONDS]), True),
        (MEMORY, Measured(vm_loads=[vm_load(s, memory=159) for s in SECONDS]), False),
        (PLACE, Measured(vm_loads=[vm_load(s) for s in SECONDS]), True),
        (PLACE, Measured(vm_loads=[vm_load(s, host="h1") for s in SECONDS]), False),
        (LINK, Measured(link_loads=[link_load(s, 700_000) for s in SECONDS]), True),
        (LINK, Measured(link_loads=[link_load(s, 999_000) for s in SECONDS]), False),
        (ROOM, Measured(vm_loads=[vm_load(s) for s in SECONDS]), True),
        (ROOM, Measured(vm_loads=[vm_load(s, used=0.5) for s in SECONDS]), False),
        (HOST, Measured(host_loads=[HostLoad("h1", T + s, 0.5, 1.0, 0, 1) for s in SECONDS]), True),
        (HOST, Measured(host_loads=[HostLoad("h1", T + s, 1.0, 1.0, 0, 1) for s in SECONDS]), False),
    ],
)
def test_a_promise_is_held_against_what_was_measured(promise: dict[str, Any], measured: Measured, kept: bool) -> None:
    found = verdict(record(promise), measured)
    assert found["kept"] is kept
    assert found["sentence"]


@pytest.mark.parametrize("promise", [MEMORY, PLACE, LINK, ROOM, HOST, {"what": "a promise of another version"}])
def test_without_measurements_nothing_is_claimed(promise: dict[str, Any]) -> None:
    before = Measured(vm_loads=[vm_load(0.5)], link_loads=[link_load(90.0, 1)])
    assert verdict(record(promise), before)["kept"] is None


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        (MEMORY, "shop is not full with 160 MiB"),
        (PLACE, "shop runs on h2"),
        (LINK, "leaf>h1 is not full at 8.0 Mbit/s"),
    ],
)
def test_promises_are_told_in_words(promise: dict[str, Any], words: str) -> None:
    assert words in (promised(record(promise)) or "")


def test_an_explanation_names_the_set_the_alternatives_and_sizes_in_their_unit() -> None:
    chosen = {"set": [{"action": "a limit of 1.00 cores", "cores": 0.5, "lead_s": 1.5}], "lacking": 0.25}
    other = {"action": "another vCPU", "why_not": "it has all of its 1 vCPUs", "lead_s": 3.0}
    where = {"where": {"vm": "shop", "host": "h1"}, "unit": "bytes", "forecast": None, "measured": {}}
    sizes = {"need": 120.0 * MIB, "available": 96 * MIB, "capacity": 2048 * MIB}
    text = "\n".join(explain(record(MEMORY, choice=chosen, **where, **sizes)))
    assert "at vm shop, host h1: need 120 MiB, available 96 MiB, capacity 2048 MiB" in text
    assert "the cheapest set in time: a limit of 1.00 cores (up to 1.5 s); 0.25 cores remain lacking" in text
    told = "\n".join(explain(record(MEMORY, choice=None, **where, **sizes, alternatives=[other])))
    assert "not: another vCPU, because it has all of its 1 vCPUs" in told
