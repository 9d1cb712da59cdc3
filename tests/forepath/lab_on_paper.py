"""The lab's inventory with hand-written facts, and the command line called in this process."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cpdb import (
    ActionRecord,
    ActionTiming,
    Communication,
    Forecast,
    HostLoad,
    Limit,
    LinkLoad,
    Node,
    NodeKind,
    OutcomeKind,
    Pair,
    Quantity,
    Reservation,
    Store,
    Trust,
    VmLoad,
)
from forepath.cli import main
from forepath.demo.layout import LabLayout
from forepath.demo.scene import scene
from forepath.settings import Settings

SHOP, SEARCH, BACKUP = "10.77.0.101", "10.77.0.102", "10.77.0.103"
SHOPPING, COPYING = Pair("c1", SHOP), Pair("c4", BACKUP)
SHOP_BYTES, BACKUP_BYTES = 100_000, 1_060_000
SHOP_PEAK = 600_000.0
# Somebody limits c4 so far; beside what is foreseen of c1 that is still too much for the link to hA.
BY_HAND_BYTES_PER_S = 1_000_000.0
ACCESS_BYTES_PER_S = 1_500_000.0
LEVELS = (0.1, 0.5, 0.9, 0.99)
MIB = 1 << 20


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        found = json.loads(self.out, parse_constant=_no_constant)
        assert isinstance(found, dict)
        return found


Forepath = Callable[..., Said]


def _no_constant(word: str) -> float:
    raise AssertionError(f"{word} is not JSON")


def call(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["forepath", *words])
    try:
        main()
        code: int | str | None = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return Said(int(code or 0), said.out, said.err)


def paper_settings(database: Path) -> Settings:
    layout = LabLayout()
    return scene(layout, database, {host.name: "test:///default" for host in layout.hypervisors}, {})


def place(store: Store) -> None:
    """Where the controller has seen the machines."""
    layout = LabLayout()
    ports = {host.name: (host.switch, host.port) for host in layout.hypervisors}
    store.inventory.put_nodes(
        Node(vm.name, NodeKind.VM, attached_to=ports[vm.host][0], port=ports[vm.host][1]) for vm in layout.vms
    )


def fan(pair: Pair, issued_at: float, horizon_s: int, quantity: Quantity, middle: float) -> Forecast:
    values = {level: middle * (0.5 + level) for level in LEVELS}
    return Forecast(pair, issued_at, horizon_s, quantity, "ewma", values, trust=Trust(30, 0.1, 0.8, 0.25, 1.5))


def fill(store: Store, now: float | None = None) -> float:
    """Ten seconds of facts that end at `now`; returns it. c1 sends to shop, c4 copies to backup, both on hA."""
    now = time.time() if now is None else now
    place(store)
    store.facts.add_communications([row for age in range(10) for row in _talk(now - age)])
    store.facts.add_loads([row for age in range(10) for row in _loads(now - age)])
    peaks = {Quantity.BYTES_PEAK: SHOP_PEAK, Quantity.BYTES_MEAN: SHOP_PEAK}
    counts = {Quantity.CONNECTIONS_PEAK: 20.0, Quantity.CONNECTIONS_MEAN: 20.0}
    store.forecasts.add_forecasts(
        [
            fan(SHOPPING, now, horizon, quantity, value)
            for horizon in (5, 15, 30)
            for quantity, value in (peaks | counts).items()
        ]
    )
    limits = (Limit(COPYING, BY_HAND_BYTES_PER_S),)
    store.wanted.reserve(
        Reservation("c2-search", Pair("c2", SEARCH), 5e5, limits, "somebody", "by hand", now, now + 60)
    )
    for action in actions(now):
        store.journal.add_action(action)
    return now


def _talk(t: float) -> list[Communication]:
    return [
        Communication("c1", SHOP, "shop1", t, 1.0, SHOP_BYTES, 100, 4),
        Communication("c4", BACKUP, "backup1", t, 1.0, BACKUP_BYTES, 1_000, 0),
    ]


def _loads(t: float) -> list[LinkLoad | HostLoad | VmLoad]:
    size = SHOP_BYTES + BACKUP_BYTES
    machines = [
        VmLoad(vm.name, vm.host, t, "running", 0.05, vm.quota_cores, vm.vcpus, vm.memory_bytes, vm.memory_bytes)
        for vm in LabLayout().vms
    ]
    return [
        LinkLoad("leaf2", "hA", t, 1.0, size, 1_100),
        HostLoad("hA", t, 0.2, 0.8, 512 * MIB, 2048 * MIB),
        HostLoad("hB", t, 0.1, 0.8, 256 * MIB, 2048 * MIB),
        *machines,
    ]


def actions(now: float) -> list[ActionRecord]:
    """One that was advised, one that was done, one that failed: in this order of time."""
    reason = {"need": 0.4, "available": 0.2, "capacity": 0.8, "where": {"vm": "shop1"}}
    shared = (reason, "predictive")
    limit = {"vm": "shop1", "from": 0.2, "to": 0.4}
    move = {"vm": "batch1", "from": "hA", "to": "hB"}
    return [
        ActionRecord("set_cpu_limit", "shop1", limit, "advice", *shared, now - 30, ActionTiming(now - 20, 1.0),
                     outcome=OutcomeKind.ADVISED),
        ActionRecord("set_cpu_limit", "shop1", limit, "shop1 needs more", *shared, now - 20,
                     ActionTiming(now - 10, 1.0, now - 19.5), OutcomeKind.DONE, "done"),
        ActionRecord("migrate_vm", "batch1", move, "hA runs short", *shared, now - 10, ActionTiming(now + 5, 5.0),
                     outcome=OutcomeKind.FAILED, sentence="hB: no memory"),
    ]  # fmt: skip
