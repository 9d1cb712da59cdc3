"""Commands that only read: status, pairs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cpdb import open_store
from forepath import views
from forepath.commands.pause import pause_warnings, stop_file
from forepath.moments import MomentOption, moment, shown
from forepath.output import (
    JsonOption,
    SettingsOption,
    TableLayout,
    WideOption,
    ago,
    console,
    emit,
    on_one_line,
    print_table,
    rate,
    table,
)
from forepath.routed import routing, told_routing
from forepath.settings import load_settings
from forepath.views import alarm_lines
from predictor import FAST, SLOW

ROOM_FOR_WHY = 110


def status(at: MomentOption = None, settings: SettingsOption = None, json: JsonOption = None) -> None:
    """How fresh everything is, and whether it is paused: samples, forecasts, reservations, machines, last actions.

    Examples:
        forepath status
        forepath status --at 03:00
        forepath status --json -
    """
    effective = load_settings(settings)
    store = open_store(effective.database.url, create=False)
    now = moment(at, store)
    payload = views.overview(store, now) | {"stop_file": stop_file(effective) if at is None else None}
    payload["routing"] = routing(effective, store)
    if emit(payload, json):
        return
    if at is not None:
        console.print(f"as it was at   {shown(now)}")
    for line in pause_warnings(store.pauses.at(now), payload["stop_file"], now):
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    for line in alarm_lines(store.alarms.at(now), {one.address: one.name for one in store.inventory.virtual_ips()}):
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"last sample    {ago(now, payload['last_sample_at'])}")
    console.print(f"last forecast  {ago(now, payload['last_forecast_at'])}")
    _print_duty(payload, now)
    console.print(f"routing        {told_routing(payload['routing'])}", markup=False, soft_wrap=True)
    for item in payload["observed"]:
        if item["kind"] == "blend" and item["key"] in (FAST, SLOW):
            console.print(f"models {item['key']:<8}{item['detail']}", markup=False, soft_wrap=True)
    _print_masters(payload, now)
    _print_refreshes(payload, now)
    _print_machines(payload)
    _print_reservations(payload, now)
    _print_actions(payload, now)


def _print_duty(payload: dict[str, Any], now: float) -> None:
    told = [f"{name}: {one['holder']}, since {ago(now, one['since'])}" for name, one in payload["on_duty"].items()]
    console.print(f"orchestrator   {'; '.join(told) or 'none is running'}", markup=False, soft_wrap=True)


def _print_masters(payload: dict[str, Any], now: float) -> None:
    served: dict[str, list[str]] = {}
    for switch, one in payload["masters"].items():
        served.setdefault(one["controller"], []).append(switch)
    for controller, switches in sorted(served.items()):
        since = ago(now, max(payload["masters"][switch]["since"] for switch in switches))
        told = f"{controller}: master of {', '.join(sorted(switches))}, since {since}"
        console.print(f"controller     {told}", markup=False, soft_wrap=True)


def _print_refreshes(payload: dict[str, Any], now: float) -> None:
    rows = [
        (item["node"], item["detail"], ago(now, item["observed_at"]))
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
    rows: list[Sequence[str]] = [
        (str(item["id"]), item["kind"], item["target"], item["outcome"], ago(now, item["issued_at"]), item["why"])
        for item in payload["actions"]
    ]
    columns = ["no.", "kind", "target", "outcome", "issued", "why"]
    if console.width < ROOM_FOR_WHY:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    cut = on_one_line(columns, rows, columns.index("why" if "why" in columns else "target"), console.width)
    console.print(table("last actions", columns, cut, left=6))


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
    print_table("reservations", ["pair", "rate", "ends in", "why"], rows, TableLayout(("pair", "why")))


def pairs(
    at: MomentOption = None, wide: WideOption = False, settings: SettingsOption = None, json: JsonOption = None
) -> None:
    """Who talks to which virtual IP, how much, how often, and what is expected.

    Examples:
        forepath pairs
        forepath pairs --at -10m
        forepath pairs --json pairs.json
    """
    store = open_store(load_settings(settings).database.url, create=False)
    found = views.pairs(store, moment(at, store))
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
    spare = ("packet", "destination", "connections", *ahead[1:])
    print_table("communication pairs", columns, rows, TableLayout(("source", "service", "destination"), spare, wide))
