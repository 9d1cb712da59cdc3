"""Asking for bandwidth: the commands with which people say what they will need, and see what they were given."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from cpdb import (
    MBIT,
    Alarm,
    BandwidthRequest,
    InstallStatus,
    Pair,
    Reservation,
    ReservationReport,
    SettingsError,
    Store,
    VirtualIp,
    open_store,
    show_record,
)
from forepath.commands.pause import who
from forepath.moments import MomentOption, moment
from forepath.output import (
    JsonOption,
    SettingsOption,
    SinceOption,
    TableLayout,
    WideOption,
    ago,
    console,
    emit,
    print_table,
    rate,
    seconds,
    span,
)
from forepath.settings import load_settings
from forepath.views import known_source
from orchestrator import ACTING, NOT_OBTAINED, Asker, request_bandwidth, request_of


class State(StrEnum):
    """What a switch has made of a reservation, or all of them together."""

    INSTALLED = "installed"
    REFUSED = "refused"
    WAITING = "not yet"


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation and the newest word of each switch that it concerns, by name."""

    reservation: Reservation
    switches: tuple[tuple[State, ReservationReport], ...]

    @property
    def state(self) -> State:
        """Refused where any refused, installed where all hold the wanted generation."""
        states = {state for state, _ in self.switches}
        if State.REFUSED in states:
            return State.REFUSED
        return State.INSTALLED if states == {State.INSTALLED} else State.WAITING


def held(wanted: Iterable[Reservation], reports: Iterable[ReservationReport]) -> list[Held]:
    """Each reservation, those that end first at the top, with its switches."""
    # What a switch no longer holds says nothing about the switches that the pair goes through now.
    rows = [report for report in reports if report.status is not InstallStatus.REMOVED]
    return [
        Held(item, tuple((_state(item, row), row) for row in rows if row.key == item.key))
        for item in sorted(wanted, key=lambda one: (one.expires_at, one.key))
    ]


def _state(item: Reservation, row: ReservationReport) -> State:
    if row.generation < item.generation:
        return State.WAITING
    return State.INSTALLED if row.status is InstallStatus.INSTALLED else State.REFUSED


RATE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(k|m|g)bit(?:/s)?", re.IGNORECASE)
UNITS = {"k": MBIT / 1e3, "m": MBIT, "g": MBIT * 1e3}
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
    store = open_store(load_settings(settings).database.url, create=False)
    now = time.time()
    vip = _service(store, to)
    try:
        known_source(store, source)
    except SettingsError as error:
        raise SettingsError(f"--from {error}") from error
    asker = Asker(store, who(), now, priority, tenant)
    number = request_bandwidth(asker, Pair(source, vip.address), wanted, now + lasting, reason[:LONGEST_REASON])
    acting = store.leases.holder(ACTING, now) is not None
    store.close()
    if emit({"id": number, "until": now + lasting, "acting": acting}, json):
        return
    _say(f"request {number}: {rate(wanted)} from {source or 'every source'} to {vip.name} for {span(lasting)}")
    _say("forepath request list tells what became of it" if acting else "no orchestrator acts now: it stays asked")


@app.command(name="list")
def list_(
    since: SinceOption = 3600.0, wide: WideOption = False, settings: SettingsOption = None, json: JsonOption = None
) -> None:
    """Requests that are open or were asked lately: what was asked, granted, and obtained, and why.

    Examples:
        forepath request list
        forepath request list --since 1d --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    now = time.time()
    found = store.requests.since(now - since)
    services = {one.address: one.name for one in store.inventory.virtual_ips()}
    store.close()
    if emit({"now": now, "requests": [_flat(one) for one in found]}, json):
        return
    show(found, services, now, wide)


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
    store = open_store(load_settings(settings).database.url, create=False)
    done = store.requests.withdraw(number, time.time())
    store.close()
    if not done:
        raise SettingsError(f"request {number} is not open; forepath request list shows those that are")
    if not emit({"withdrawn": number}, json):
        _say(f"request {number} is withdrawn")


def show(found: Sequence[BandwidthRequest], services: dict[str, str], now: float, wide: bool) -> None:
    """Prints requests as a table, and below it why each stands as it does."""
    rows = [
        (
            str(one.id),
            f"{one.source or 'every source'} -> {services.get(one.virtual_ip, one.virtual_ip)}",
            rate(one.bytes_per_s),
            one.answer.state.value,
            rate(one.answer.granted_bytes_per_s),
            rate(one.answer.obtained_bytes_per_s),
            one.asked_by,
            ago(now, one.asked_at),
            span(one.until - now) if one.until > now else "over",
        )
        for one in found
    ]
    columns = ["no.", "for", "asked", "state", "granted", "obtained", "by", "asked at", "ends in"]
    print_table("requests", columns, rows, TableLayout(("for", "state", "by"), ("asked at", "by", "obtained"), wide))
    for one in found:
        _say(f"{one.id}, {one.reason}: {one.answer.why or 'no orchestrator has looked at it yet'}")


def _flat(request: BandwidthRequest) -> dict[str, Any]:
    row = asdict(request)
    answer: dict[str, Any] = row.pop("answer")
    return row | answer


def requested(
    asked: Sequence[BandwidthRequest], reservations: Sequence[Held], alarms: Sequence[Alarm]
) -> Iterator[dict[str, Any]]:
    """The exact state of each open request: what is held for it, which switch holds it, and which alarms are open."""
    for one in asked:
        own = [item for item in reservations if request_of(item.reservation.key) == one.id]
        told = [item.detail for item in alarms if item.kind == NOT_OBTAINED and item.key == f"request {one.id}"]
        states = sorted({item.state.value for item in own})
        yield _flat(one) | {"leases": [item.reservation.key for item in own], "installed": states, "alarms": told}


def leases_of(store: Store, now: float) -> tuple[list[Held], list[dict[str, Any]]]:
    """Everything that is held, and the open requests with what is held for each."""
    wanted: list[Reservation] = store.wanted.reservations_at(now)
    found = held(wanted, (one for one in store.wanted.observed_of(ReservationReport) if one.observed_at <= now))
    return found, list(requested(store.requests.at(now), found, store.alarms.at(now)))


def _service(store: Store, name: str) -> VirtualIp:
    services = [one for one in store.inventory.virtual_ips() if one.declared]
    found = next((one for one in services if name in (one.name, one.address)), None)
    if found is None:
        known = ", ".join(one.name for one in services) or "none"
        raise SettingsError(f"--to {name}: no such virtual IP is declared; declared are {known}")
    return found


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def reservations(
    at: MomentOption = None, wide: WideOption = False, settings: SettingsOption = None, json: JsonOption = None
) -> None:
    """Every reservation that is held: what, for whom, why, until when, and what each switch has made of it.

    Below them the open requests: asked, granted, held by which leases, and obtained.

    Examples:
        forepath reservations
        forepath reservations --at 2026-11-28T03:00
        forepath reservations --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    now = moment(at, store)
    found, asked = leases_of(store, now)
    generation, open_ones = store.wanted.generation(), store.requests.at(now)
    services = {one.address: one.name for one in store.inventory.virtual_ips()}
    store.close()
    told = {"reservations": [_held_json(one, now) for one in found], "requests": asked}
    if emit({"now": now, "generation": generation, **told}, json):
        return
    rows = [
        (
            str(one.reservation.pair),
            rate(one.reservation.bytes_per_s),
            one.state.value,
            one.reservation.owner,
            ago(now, one.reservation.created_at),
            span(one.reservation.expires_at - now),
        )
        for one in found
    ]
    columns = ["pair", "rate", "state", "owner", "created", "ends in"]
    print_table("reservations", columns, rows, TableLayout(("pair", "state", "owner"), ("created", "owner"), wide))
    for one in found:
        console.print("\n".join(_told(one)), markup=False, highlight=False, soft_wrap=True)
    if open_ones:
        show(open_ones, services, now, wide)


def _told(one: Held) -> Iterator[str]:
    item, wanted = one.reservation, one.reservation.generation
    yield f"{item.key}, generation {wanted}, {_means(item)}: {item.reason or 'no reason given'}"
    for state, row in one.switches:
        yield f"  {row.node}: {_word(state, row, wanted)}"
    if not one.switches:
        yield "  no switch has answered yet"


def _means(one: Reservation) -> str:
    limits = [f"{limit.pair} limited to {rate(limit.bytes_per_s)}" for limit in one.limits]
    return ", ".join([*limits, *([] if one.dscp is None else [f"queue (DSCP {one.dscp})"])]) or "by nothing"


def _word(state: State, row: ReservationReport, wanted: int) -> str:
    if state is State.WAITING:
        return f"not yet (has generation {row.generation} of {wanted}, {row.status})"
    return f"{state.value}: {row.detail}" if row.detail else state.value


def _held_json(one: Held, now: float) -> dict[str, Any]:
    item = one.reservation
    return asdict(item) | {
        "expires_in_s": item.expires_at - now,
        "state": one.state.value,
        "switches": [show_record(row) | {"state": state.value} for state, row in one.switches],
    }
