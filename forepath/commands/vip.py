"""Virtual IPs at run time: what is behind them, and destinations added, drained and removed by people."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from cpdb import (
    DestinationChange,
    ForepathError,
    SettingsError,
    Standing,
    Store,
    VirtualIp,
    open_store,
    read_mac,
    read_unicast,
)
from forepath.commands.pause import who
from forepath.output import JsonOption, SettingsOption, TableLayout, WideOption, console, emit, print_table
from forepath.settings import Claim, load_settings, place_problems
from forepath.standing import StandingWish, drain_change, standing_change, undrain_change
from forepath.views import ServiceView, alarm_lines, change_of, service, services

app = typer.Typer(
    name="vip", help="Virtual IPs: list what is behind them; add, drain and remove destinations.", no_args_is_help=True
)
VipArgument = Annotated[str, typer.Argument(help="Virtual IP, by name or address")]
NameArgument = Annotated[str, typer.Argument(help="Name of the destination")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; shown to whoever asks")]


def _read_by(read: Callable[[Any], str]) -> Any:
    def check(text: str | None) -> str | None:
        try:
            return text if text is None else read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return check


@app.command(name="list")
def list_(wide: WideOption = False, settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Every virtual IP with its destinations: weight, share of new connections, standing, health, who changed it.

    Examples:
        forepath vip list
        forepath vip list --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    now = time.time()
    found, alarms = services(store, now), store.alarms.open()
    store.close()
    if emit(
        {"now": now, "virtual_ips": [item.to_json() for item in found], "alarms": [asdict(a) for a in alarms]}, json
    ):
        return
    for line in alarm_lines(alarms, {one.address: one.name for one in found}):
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for one in found:
        _show(one, wide)


def _show(found: ServiceView, wide: bool) -> None:
    rows = [
        (
            one.name,
            one.address,
            one.standing,
            f"{one.health}: {one.detail}",
            f"{one.change.changed_by}: {one.change.reason}" if one.change else "",
            str(one.weight),
            f"{one.share:.1%}",
            "-" if one.sources is None else str(one.sources),
            "" if one.live is None else str(one.live),
        )
        for one in found.destinations
    ]
    title = f"{found.name} {found.address} (affinity {found.affinity}, probe {found.probe})"
    columns = ["destination", "address", "standing", "health", "changed by", "weight", "of new", "sources", "still has"]
    spare = ("changed by", "still has", "address", "sources", "of new")
    print_table(title, columns, rows, TableLayout(tuple(columns[:5]), spare, wide))


@app.command()
def add(
    vip: VipArgument,
    name: NameArgument,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Its address, IPv4 or IPv6 as the virtual IP", callback=_read_by(read_unicast)),
    ] = None,
    mac: Annotated[str | None, typer.Option("--mac", help="Its MAC", callback=_read_by(read_mac))] = None,
    weight: Annotated[int, typer.Option("--weight", min=0, max=1000, help="Against those of the others")] = 100,
    reason: ReasonOption = "added by hand",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Put a destination behind a virtual IP. It gets its first connection after it has answered its first probe.

    One that was there before may be added without --address and --mac. Examples:
        forepath vip add shop shop3 --address 10.77.0.13 --mac 52:54:00:77:00:0d
        forepath vip add shop shop2 --reason "back from repair" --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    found = service(store, vip)
    if name in {one.name for one in found.destinations}:
        raise ForepathError(f"{name} is behind {found.name} already; forepath vip list shows how it stands")
    address, mac = _place(store, found, name, address, mac)
    _unused(store, found, name, address, mac)
    change = DestinationChange(found.address, name, address, mac, weight, Standing.JOINING, who(), reason, time.time())
    _put(store, change, f"forepath vip remove {found.name} {name}", json)


def _place(store: Store, vip: VirtualIp, name: str, address: str | None, mac: str | None) -> tuple[str, str]:
    """Address and MAC as given, else as they were when it was here before."""
    declared = next((one for one in store.inventory.virtual_ips(True) if one.address == vip.address), vip)
    before = change_of(store, vip.address, name) or next(
        (one for one in declared.destinations if one.name == name), None
    )
    address = address or (before.address if before else None)
    mac = mac or (before.mac if before else None)
    if address is None or mac is None:
        raise SettingsError(f"{name} is not known behind {vip.name}; say its --address and --mac")
    return address, mac


def _unused(store: Store, vip: VirtualIp, name: str, address: str, mac: str) -> None:
    services = [one for one in store.inventory.virtual_ips() if one.declared]
    others = [
        Claim(f"destination {one.name} of {service.name}", one.name, one.address, one.mac, service.name)
        for service in services
        for one in service.destinations
    ]
    claims, names = [*others, Claim(name, name, address, mac, vip.name)], {one.address: one.name for one in services}
    before = set(place_problems(others, names))
    if problems := [line for line in place_problems(claims, names) if line not in before]:
        raise SettingsError("; ".join(problems))


@app.command()
def drain(
    vip: VipArgument,
    name: NameArgument,
    reason: ReasonOption = "drained by hand",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Give a destination no new connections; live ones stay until they end.

    Examples:
        forepath vip drain shop shop2 --reason "new kernel tonight"
        forepath vip drain shop shop2 --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    change = drain_change(store, _wish(vip, name, reason))
    _put(store, change, f"forepath vip undrain {service(store, vip).name} {name}", json)


@app.command()
def undrain(
    vip: VipArgument,
    name: NameArgument,
    reason: ReasonOption = "undrained by hand",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Give a drained destination new connections again.

    Examples:
        forepath vip undrain shop shop2
        forepath vip undrain shop shop2 --json -
    """
    store = open_store(load_settings(settings).database.url, create=False)
    change = undrain_change(store, _wish(vip, name, reason))
    _put(store, change, f"forepath vip drain {service(store, vip).name} {name}", json)


@app.command()
def remove(
    vip: VipArgument,
    name: NameArgument,
    now_: Annotated[bool, typer.Option("--now", help="Although it still serves: its connections are cut")] = False,
    reason: ReasonOption = "removed by hand",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Take a destination from behind a virtual IP, after it was drained.

    Examples:
        forepath vip remove shop shop2
        forepath vip remove shop shop2 --now --reason "its disk is gone"
    """
    store = open_store(load_settings(settings).database.url, create=False)
    found = service(store, vip)
    change = standing_change(found, _wish(vip, name, reason), Standing.REMOVED)
    standing = next(one.standing for one in found.destinations if one.name == name)
    if standing is Standing.SERVING and not now_:
        raise ForepathError(
            f"{name} still serves; forepath vip drain {found.name} {name} first, or --now to cut its connections"
        )
    _put(store, change, f"forepath vip add {found.name} {name}", json)


def _wish(vip: str, name: str, reason: str) -> StandingWish:
    return StandingWish(vip, name, who(), reason, time.time())


def _put(store: Store, change: DestinationChange, undo: str, json: str | None) -> None:
    generation = store.inventory.put_change(change)
    store.close()
    if emit({"change": asdict(replace(change, generation=generation)), "undo": undo}, json):
        return
    console.print(f"{change.name} is {change.standing.value}; to undo: {undo}", markup=False, highlight=False)
