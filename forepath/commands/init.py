"""`forepath init`: a settings file from what is there."""

import tomllib
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from cpdb import SettingsError, open_store
from forepath.init.file import Found, differences, settings_text, still_to_say
from forepath.init.machines import look_at_host
from forepath.init.network import FoundNetwork, SwitchVisit, look_at_switches, read_network
from forepath.listening import split_listen
from forepath.output import JsonOption, console, emit, seconds
from forepath.settings import Settings

WAIT_S = 15.0
LibvirtOption = Annotated[
    list[str] | None, typer.Option("--libvirt", metavar="URI", help="A hypervisor to look at; may be repeated")
]
ListenOption = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", help="Let switches connect here for a while; no rule is sent"),
]
ControllerOption = Annotated[
    str | None,
    typer.Option("--controller", metavar="HOST:PORT", help="The same, and forward meanwhile, as forepath run will"),
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Read what a controller that runs has written there")
]
ForOption = Annotated[
    float,
    typer.Option("--for", metavar="SPAN", parser=seconds, show_default="15s", help="How long switches are looked at"),
]
WriteOption = Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Where to; without it, it is shown")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="With --write: also where it would change the file")]
DemoOption = Annotated[bool, typer.Option("--demo", help="The demo's settings instead, to read and to change")]


def init(
    libvirt: LibvirtOption = None,
    listen: ListenOption = None,
    controller: ControllerOption = None,
    database: DatabaseOption = None,
    lasting: ForOption = WAIT_S,
    write: WriteOption = None,
    replace: ReplaceOption = False,
    demo: DemoOption = False,
    json: JsonOption = None,
) -> None:
    """Write a settings file with all that is found: hypervisors and machines, switches, links, hosts, services.

    It only looks: no machine and, but for --controller, no rule of a switch is changed. Guesses are marked; at the end
    stands what a person still has to say. A file that is there already is not changed: what would be different is
    shown. Examples:
        forepath init --libvirt qemu:///system
        forepath init --libvirt qemu+ssh://root@hA/system --listen 0.0.0.0:6653 --for 30s --write forepath.toml
        forepath init --controller 127.0.0.1:6653 --write forepath.toml
        forepath init --database sqlite:///forepath.db --write forepath.toml
        forepath init --demo --write demo.toml
    """
    places = LookPlaces(listen, controller, database)
    text, found = (_demo_text(), Found()) if demo else _found(libvirt or [], places, lasting)
    Settings.model_validate(tomllib.loads(text))
    before = write.read_text(encoding="utf-8") if write is not None and write.exists() else None
    changes = [] if before is None else list(differences(before, text))
    written = write is not None and (before is None or (replace and bool(changes)))
    if write is not None and written:
        write.write_text(text, encoding="utf-8")
    left = [] if demo else still_to_say(found)
    if emit({"settings": text, "written": str(write) if written else None, "changes": changes, "to_say": left}, json):
        return
    if write is None:
        print(text, end="")
    else:
        _report(f"{write}", written, changes, len(left))


def _report(file: str, written: bool, changes: list[str], left: int) -> None:
    if written:
        _say(f"{file} is written; still to be said: {left} things, at its end. forepath check looks it over")
    elif changes:
        _say("\n".join(changes))
        _say(f"{file} is as it was; --replace takes what is there now")
    else:
        _say(f"{file} says what is there")


class LookPlaces(NamedTuple):
    """Where the network is looked at: switches that connect, or a database."""

    listen: str | None
    controller: str | None
    database: str | None


def _found(libvirt: list[str], places: LookPlaces, wait_s: float) -> tuple[str, Found]:
    if not libvirt and not any(places):
        raise typer.BadParameter(
            "say where to look: --libvirt URI, --listen or --controller HOST:PORT, or --database URL; or --demo"
        )
    if sum(one is not None for one in places) > 1:
        raise typer.BadParameter("choose one of --listen, --controller and --database")
    hosts = tuple(look_at_host(uri) for uri in libvirt)
    found = Found(hosts, _network(places, wait_s), places.controller)
    return settings_text(found), found


def _network(places: LookPlaces, wait_s: float) -> FoundNetwork:
    if listen := places.listen or places.controller:
        visit = SwitchVisit(*split_listen(listen), wait_s, forwards=places.controller is not None)
        return look_at_switches(visit, _tell)
    if places.database is None:
        return FoundNetwork()
    store = open_store(places.database, create=False)
    try:
        return read_network(store)
    finally:
        store.close()


def _demo_text() -> str:
    from forepath.demo.layout import LabLayout
    from forepath.demo.scene import as_toml, scene

    layout = LabLayout()
    uris = {host.name: f"qemu+ssh://root@{host.name}/system" for host in layout.hypervisors}
    try:
        return as_toml(scene(layout, Path("forepath.db"), uris, {}))
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _tell(text: str) -> None:
    typer.echo(text, err=True)
