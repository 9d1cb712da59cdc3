"""Commands that only read: status, pairs, paths."""

import time
from dataclasses import asdict
from itertools import pairwise
from typing import Annotated, Any

import typer

from cpdb import Store, open_store
from forepath import views
from forepath.output import JsonOption, SettingsOption, ago, console, emit, rate, table
from forepath.paths import PathFinder
from forepath.settings import load

HorizonOption = Annotated[int, typer.Option("--horizon", help="Seconds ahead, one of the forecast horizons")]


def _open(settings_file: Any) -> Store:
    return open_store(load(settings_file).database.url, create=False)


def status(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """How fresh everything is: samples, forecasts, reservations, machines, last actions.

    Examples:
        forepath status
        forepath status --json -
    """
    store = _open(settings)
    now = time.time()
    span = store.facts.span()
    latest = store.foresight.latest(now, views.FORECAST_MAX_AGE_S)
    payload: dict[str, Any] = {
        "now": now,
        "last_sample_at": span[1] if span else None,
        "last_forecast_at": latest[0].issued_at if latest else None,
        "reservations": [asdict(item) for item in store.wanted.reservations(now)],
        "observed": [asdict(item) for item in store.wanted.observed()],
        "vms": [asdict(item) for item in views.newest_vm_loads(store, now)],
        "hosts": [asdict(item) for item in views.newest_host_loads(store, now)],
        "actions": [asdict(item) for item in store.journal.actions(limit=5)],
    }
    if emit(payload, json):
        return
    console.print(f"last sample    {ago(now, payload['last_sample_at'])}")
    console.print(f"last forecast  {ago(now, payload['last_forecast_at'])}")
    _print_refreshes(payload, now)
    _print_machines(payload)
    _print_reservations(payload, now)
    rows = [
        (str(item["id"]), item["kind"], item["target"], item["outcome"], ago(now, item["issued_at"]), item["why"])
        for item in payload["actions"]
    ]
    console.print(table("last actions", ["no.", "kind", "target", "outcome", "issued", "why"], rows, left=6))


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
    found = views.pairs(_open(settings), time.time())
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


def paths(
    source: Annotated[str | None, typer.Option("--from", help="Source node")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Virtual IP (name or address) or node")] = None,
    horizon: HorizonOption = 15,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """The path predicted traffic will take, hop by hop, with predicted load against capacity on each link.

    Examples:
        forepath paths
        forepath paths --from c1 --to shop
        forepath paths --from c1 --to shop --horizon 5 --json -
    """
    store = _open(settings)
    finder = PathFinder.of(store)
    found = views.links(store, time.time(), horizon, finder.path)
    if source is not None or to is not None:
        if source is None or to is None:
            raise typer.BadParameter("give both --from and --to, or neither")
        hops = finder.to_service(source, to, time.time())
        by_hop = {(view.from_node, view.to_node): view for view in found}
        found = [by_hop[hop] for hop in pairwise(hops) if hop in by_hop]
    if emit({"horizon_s": horizon, "links": [_link(view) for view in found]}, json):
        return
    rows = [
        (
            f"{view.from_node} -> {view.to_node}",
            rate(view.capacity_bytes_per_s),
            rate(view.bytes_per_s),
            rate(view.predicted_q50),
            rate(view.predicted_q90),
            f"{view.predicted_utilisation:.0%}" if view.capacity_bytes_per_s else "-",
        )
        for view in found
    ]
    columns = ["link", "capacity", "now", "peak q50", "peak q90", "of capacity"]
    console.print(table(f"predicted for the next {horizon} s", columns, rows))


def _link(view: views.LinkView) -> dict[str, Any]:
    return asdict(view) | {"predicted_utilisation": view.predicted_utilisation}
