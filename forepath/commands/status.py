"""Commands that only read: status, pairs."""

import time
from dataclasses import asdict
from typing import Any

from cpdb import LeaseHolder, Store, open_store, show_record
from forepath import views
from forepath.commands.pause import pause_warnings, stop_file
from forepath.output import JsonOption, SettingsOption, ago, console, emit, rate, table
from forepath.settings import load_settings
from forepath.views import alarm_lines
from orchestrator import ACTING, ADVISING
from predictor import FAST, SLOW


def status(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """How fresh everything is, and whether it is paused: samples, forecasts, reservations, machines, last actions.

    Examples:
        forepath status
        forepath status --json -
    """
    effective, now = load_settings(settings), time.time()
    store = open_store(effective.database.url, create=False)
    pause, alarms = store.pauses.in_force(now), store.alarms.open()
    payload = {
        "now": now,
        "paused": asdict(pause) if pause else None,
        "stop_file": stop_file(effective),
        **_known(store, now),
        "alarms": [asdict(item) for item in alarms],
    }
    if emit(payload, json):
        return
    for line in pause_warnings(effective, pause, now):
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    for line in alarm_lines(alarms, {one.address: one.name for one in store.inventory.virtual_ips()}):
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"last sample    {ago(now, payload['last_sample_at'])}")
    console.print(f"last forecast  {ago(now, payload['last_forecast_at'])}")
    _print_duty(payload, now)
    for item in payload["observed"]:
        if item["kind"] == "blend" and item["key"] in (FAST, SLOW):
            console.print(f"models {item['key']:<8}{item['detail']}", markup=False, soft_wrap=True)
    _print_refreshes(payload, now)
    _print_machines(payload)
    _print_reservations(payload, now)
    _print_actions(payload, now)


def _known(store: Store, now: float) -> dict[str, Any]:
    """The newest of each sort that the store holds."""
    span, latest = store.facts.span(), store.forecasts.latest(now, views.FORECAST_MAX_AGE_S)
    return {
        "on_duty": {name: asdict(one) for name, one in _on_duty(store, now).items()},
        "last_sample_at": span[1] if span else None,
        "last_forecast_at": latest[0].issued_at if latest else None,
        "reservations": [asdict(item) for item in store.wanted.reservations(now)],
        "observed": [show_record(item) for item in store.wanted.observed()],
        "vms": [asdict(item) for item in views.newest_vm_loads(store, now)],
        "hosts": [asdict(item) for item in views.newest_host_loads(store, now)],
        "actions": [asdict(item) for item in store.journal.actions(limit=5)],
    }


def _on_duty(store: Store, now: float) -> dict[str, LeaseHolder]:
    """The orchestrators at work, by what they may do: of each sort one works, others stand by."""
    held = {name: store.leases.holder(lease, now) for name, lease in (("acting", ACTING), ("advising", ADVISING))}
    return {name: one for name, one in held.items() if one is not None}


def _print_duty(payload: dict[str, Any], now: float) -> None:
    told = [f"{name}: {one['holder']}, since {ago(now, one['since'])}" for name, one in payload["on_duty"].items()]
    console.print(f"orchestrator   {'; '.join(told) or 'none is running'}", markup=False, soft_wrap=True)


def _print_refreshes(payload: dict[str, Any], now: float) -> None:
    rows = [
        (item["node"], f"{item['detail']} s", ago(now, item["observed_at"]))
        for item in payload["observed"]
        if item["kind"] == "refresh"
    ]
    if rows:
        console.print(table("switches", ["switch", "counters renewed every", "measured"], rows))


def _print_machines(payload: dict[str, Any]) -> None:
    hosts = [
        (item["host"], f"{item['cpu_cores_used']:.2f}", f"{item['cpu_cores_capacity']:.2f}")
        for item in payload["hosts"]
    ]
    console.print(table("hosts", ["host", "cores used", "capacity"], hosts))
    machines = [
        (item["vm"], item["host"], item["state"], f"{item['cpu_cores_used']:.2f}", f"{item['cpu_cores_limit']:.2f}")
        for item in payload["vms"]
    ]
    console.print(table("VMs", ["VM", "host", "state", "cores used", "limit"], machines, left=3))


def _print_actions(payload: dict[str, Any], now: float) -> None:
    rows = [
        (str(item["id"]), item["kind"], item["target"], item["outcome"], ago(now, item["issued_at"]), item["why"])
        for item in payload["actions"]
    ]
    console.print(table("last actions", ["no.", "kind", "target", "outcome", "issued", "why"], rows, left=6))


def _print_reservations(payload: dict[str, Any], now: float) -> None:
    rows = [
        (
            f"{item['pair']['source']} -> {item['pair']['virtual_ip']}",
            rate(item["bytes_per_s"]),
            f"{item['expires_at'] - now:.0f} s",
            item["reason"],
        )
        for item in payload["reservations"]
    ]
    console.print(table("reservations", ["pair", "rate", "ends in", "why"], rows))


def pairs(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Who talks to which virtual IP, how much, how often, and what is expected.

    Examples:
        forepath pairs
        forepath pairs --json pairs.json
    """
    found = views.pairs(open_store(load_settings(settings).database.url, create=False), time.time())
    if emit({"pairs": [asdict(view) for view in found]}, json):
        return
    horizons = sorted({horizon for view in found for horizon in view.expected_q90})
    rows = [
        (
            view.pair.source,
            view.service,
            view.destination or "-",
            rate(view.bytes_per_s),
            f"{view.connections_per_s:.1f}/s",
            f"{view.mean_packet_bytes:.0f} B",
            *(rate(view.expected_q90.get(horizon)) for horizon in horizons),
        )
        for view in found
    ]
    ahead = [f"peak q90 +{horizon} s" for horizon in horizons]
    columns = ["source", "service", "destination", "now", "connections", "packet", *ahead]
    console.print(table("communication pairs", columns, rows, left=3))
