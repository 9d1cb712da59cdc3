"""Asking for bandwidth: the commands with which people say what they will need, and see what they were given."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cpdb import Alarm, BandwidthRequest, Pair, Reservation, SettingsError, Store, VirtualIp, open_store
from forepath.commands.halt import who
from forepath.held import Held, held
from forepath.output import JsonOption, SettingsOption, ago, console, emit, rate, table
from forepath.settings import load
from forepath.spans import SinceOption, seconds, span
from orchestrator import ACTING, NOT_OBTAINED, Asker, request_bandwidth, request_of

RATE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(k|m|g)bit(?:/s)?", re.IGNORECASE)
UNITS = {"k": 1e3 / 8, "m": 1e6 / 8, "g": 1e9 / 8}
LONGEST_REASON = 200

app = typer.Typer(
    name="request", help="Ask for bandwidth ahead of time, list requests, withdraw them.", no_args_is_help=True
)


def bytes_per_s(text: str | float) -> float:
    """Bytes/s of a rate such as 500kbit, 5mbit or 1.5gbit. Raises BadParameter (exit code 2)."""
    if isinstance(text, float):
        return text
    found = RATE.fullmatch(text.strip())
    value = float(found[1]) * UNITS[found[2].lower()] if found else 0.0
    if value <= 0:
        raise typer.BadParameter(f"{text!r} is no rate; write e.g. 500kbit, 5mbit or 1gbit")
    return value


@app.command()
def bandwidth(
    to: Annotated[str, typer.Option("--to", help="Virtual IP, by name or address")],
    wanted: Annotated[float, typer.Option("--rate", metavar="RATE", parser=bytes_per_s, help="E.g. 500kbit or 5mbit")],
    lasting: Annotated[float, typer.Option("--for", metavar="SPAN", parser=seconds, help="How long, e.g. 60s or 2h")],
    reason: Annotated[str, typer.Option("--reason", help="What it is for; shown to whoever asks")],
    source: Annotated[str, typer.Option("--from", help="Source node", show_default="every source")] = "",
    priority: Annotated[
        int | None, typer.Option("--priority", min=0, help="0 is the lowest", show_default="the virtual IP's")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Who it counts for", show_default="the virtual IP's")
    ] = None,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Ask that a rate be kept free for a source, or for all sources of a virtual IP, from now on.

    The orchestrator decides in its next cycle; forepath request list tells what became of it. Examples:
        forepath request bandwidth --from c1 --to shop --rate 5mbit --for 60s --reason "a video call"
        forepath request bandwidth --to shop --rate 20mbit --for 2h --reason "the sale" --priority 20 --json -
    """
    store = open_store(load(settings).database.url, create=False)
    now = time.time()
    vip = _service(store, to)
    _known_source(store, source)
    asker = Asker(store, who(), now, priority, tenant)
    number = request_bandwidth(asker, Pair(source, vip.address), wanted, now + lasting, reason[:LONGEST_REASON])
    acting = store.duty.holder(ACTING, now) is not None
    store.close()
    if emit({"id": number, "until": now + lasting, "acting": acting}, json):
        return
    _say(f"request {number}: {rate(wanted)} from {source or 'every source'} to {vip.name} for {span(lasting)}")
    _say("forepath request list tells what became of it" if acting else "no orchestrator acts now: it stays asked")


@app.command(name="list")
def list_(since: SinceOption = 3600.0, settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Requests that are open or were asked lately: what was asked, granted, and obtained, and why.

    Examples:
        forepath request list
        forepath request list --since 1d --json -
    """
    store = open_store(load(settings).database.url, create=False)
    now = time.time()
    found = store.requests.since(now - since)
    services = {one.address: one.name for one in store.inventory.virtual_ips()}
    store.close()
    if emit({"now": now, "requests": [asdict(one) for one in found]}, json):
        return
    show(found, services, now)


@app.command()
def withdraw(
    number: Annotated[int, typer.Argument(help="Number of the request", min=1)],
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """End a request before its time; what is held for it is given back in the orchestrator's next cycle.

    Examples:
        forepath request withdraw 3
        forepath request withdraw 3 --json -
    """
    store = open_store(load(settings).database.url, create=False)
    done = store.requests.withdraw(number, time.time())
    store.close()
    if not done:
        raise SettingsError(f"request {number} is not open; forepath request list shows those that are")
    if not emit({"withdrawn": number}, json):
        _say(f"request {number} is withdrawn")


def show(found: Sequence[BandwidthRequest], services: dict[str, str], now: float) -> None:
    """Prints requests as a table, and below it why each stands as it does."""
    rows = [
        (
            str(one.id),
            f"{one.source or 'every source'} -> {services.get(one.virtual_ip, one.virtual_ip)}",
            rate(one.bytes_per_s),
            one.state.value,
            rate(one.granted_bytes_per_s),
            rate(one.obtained_bytes_per_s),
            one.asked_by,
            ago(now, one.asked_at),
            span(one.until - now) if one.until > now else "over",
        )
        for one in found
    ]
    columns = ["no.", "for", "asked", "state", "granted", "obtained", "by", "asked at", "ends in"]
    console.print(table("requests", columns, rows, texts=(1, 3, 6)))
    for one in found:
        _say(f"{one.id}, {one.reason}: {one.why or 'no orchestrator has looked at it yet'}")


def requested(
    asked: Sequence[BandwidthRequest], reservations: Sequence[Held], alarms: Sequence[Alarm]
) -> Iterator[dict[str, Any]]:
    """The exact state of each open request: what is held for it, which switch holds it, and which alarms are open."""
    for one in asked:
        own = [item for item in reservations if request_of(item.reservation.key) == one.id]
        told = [item.detail for item in alarms if item.kind == NOT_OBTAINED and item.key == f"request {one.id}"]
        states = sorted({item.state.value for item in own})
        yield asdict(one) | {"leases": [item.reservation.key for item in own], "installed": states, "alarms": told}


def leases_of(store: Store, now: float) -> tuple[list[Held], list[dict[str, Any]]]:
    """Everything that is held, and the open requests with what is held for each."""
    wanted: list[Reservation] = store.wanted.reservations(now)
    found = held(wanted, store.wanted.observed())
    return found, list(requested(store.requests.open(now), found, store.alarms.open()))


def _service(store: Store, name: str) -> VirtualIp:
    services = [one for one in store.inventory.virtual_ips() if one.declared]
    found = next((one for one in services if name in (one.name, one.address)), None)
    if found is None:
        known = ", ".join(one.name for one in services) or "none"
        raise SettingsError(f"--to {name}: no such virtual IP is declared; declared are {known}")
    return found


def _known_source(store: Store, name: str) -> None:
    known = {one.name for one in store.inventory.nodes()} | {one.address for one in store.inventory.nodes()}
    if name and name not in known:
        raise SettingsError(f"--from {name}: no such node is known; forepath pairs shows who has spoken")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
