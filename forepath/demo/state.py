"""The live state below the demo's progress bar: busiest pairs, machines, reservations, last actions."""

from rich.console import Group, RenderableType
from rich.text import Text

from cpdb import Store, StoreError
from forepath import views
from forepath.output import rate, table

PAIRS_SHOWN = 4
ACTIONS_SHOWN = 5


def state_table(store: Store, now: float) -> RenderableType:
    """Three small tables; when the database is busy, one line instead."""
    try:
        return Group(_pairs(store, now), "", _machines(store, now), "", _actions(store, now))
    except StoreError as error:
        return Text(str(error))


def _pairs(store: Store, now: float) -> RenderableType:
    rows = [
        (
            f"{one.pair.source} -> {one.service}",
            rate(one.bytes_per_s),
            f"{one.connections_per_s:.1f}/s",
            *(rate(one.expected_q90.get(horizon)) for horizon in (5, 15, 30)),
        )
        for one in views.pairs(store, now)[:PAIRS_SHOWN]
    ]
    return table("pairs", ["pair", "now", "connections", "expected +5 s", "+15 s", "+30 s"], rows)


def _machines(store: Store, now: float) -> RenderableType:
    held = ", ".join(f"{one.pair} {rate(one.bytes_per_s)}" for one in store.wanted.reservations(now)) or "none"
    rows = [
        (one.vm, one.host, f"{one.cpu_cores_used:.2f}", f"{one.cpu_cores_limit:.2f}")
        for one in views.newest_vm_loads(store, now)
    ]
    return Group(table("VMs", ["VM", "host", "cores used", "limit"], rows, left=2), f"reserved: {held}")


def _actions(store: Store, now: float) -> RenderableType:
    rows = [
        (f"{now - one.issued_at:.0f} s ago", one.policy, one.kind, one.target, one.outcome.value)
        for one in store.journal.actions(limit=ACTIONS_SHOWN)
    ]
    return table("last actions", ["issued", "policy", "action", "target", "outcome"], rows, left=5)
