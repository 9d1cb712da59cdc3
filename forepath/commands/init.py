"""`forepath init`: a settings file from what is there."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from cpdb import SettingsError, open_store
from forepath.init.file import Found, differences, settings_text, still_to_say
from forepath.init.machines import look_at_host
from forepath.init.network import FoundNetwork, look_at_switches, read_network
from forepath.listening import split_listen
from forepath.output import JsonOption, console, emit, seconds
from forepath.settings import Settings

WAIT_S = 15.0
LibvirtOption = Annotated[
    list[str] | None, typer.Option("--libvirt", metavar="URI", help="A hypervisor to look at; may be repeated")
]
ListenOption = Annotated[
    str | None, typer.Option("--listen", metavar="ADDRESS:PORT", help="Let switches connect here for a while")
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Read what a controller that runs has written there")
]
ForOption = Annotated[
    float, typer.Option("--for", metavar="SPAN", parser=seconds, show_default="15s", help="With --listen, how long")
]
WriteOption = Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Where to; without it, it is shown")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="With --write: also where it would change the file")]
DemoOption = Annotated[bool, typer.Option("--demo", help="The demo's settings instead, to read and to change")]


def init(
    libvirt: LibvirtOption = None,
    listen: ListenOption = None,
    database: DatabaseOption = None,
    lasting: ForOption = WAIT_S,
    write: WriteOption = None,
    replace: ReplaceOption = False,
    demo: DemoOption = False,
    json: JsonOption = None,
) -> None:
    """Write a settings file with all that is found: hypervisors and machines, switches, links, hosts, services.

    It only looks: no rule of a switch and no machine is changed. Guesses are marked; at the end stands what a person
    still has to say. A file that is there already is not changed: what would be different is shown. Examples:
        forepath init --libvirt qemu:///system
        forepath init --libvirt qemu+ssh://root@hA/system --listen 0.0.0.0:6653 --for 30s --write forepath.toml
        forepath init --database sqlite:///forepath.db --write forepath.toml
        forepath init --demo --write demo.toml
    """
    text, found = (_demo_text(), Found()) if demo else _found(libvirt or [], listen, database, lasting)
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
    elif written:
        _say(f"{write} is written; still to be said: {len(left)} things, at its end. forepath check looks it over")
    elif changes:
        _say("\n".join(changes))
        _say(f"{write} is as it was; --replace takes what is there now")
    else:
        _say(f"{write} says what is there")


def _found(libvirt: list[str], listen: str | None, database: str | None, wait_s: float) -> tuple[str, Found]:
    if not libvirt and listen is None and database is None:
        raise typer.BadParameter("say where to look: --libvirt URI, --listen ADDRESS:PORT or --database URL; or --demo")
    if listen is not None and database is not None:
        raise typer.BadParameter("choose one of --listen and --database")
    hosts = tuple(look_at_host(uri) for uri in libvirt)
    network = FoundNetwork()
    if listen is not None:
        network = look_at_switches(*split_listen(listen), wait_s, _tell)
    elif database is not None:
        store = open_store(database, create=False)
        network = read_network(store)
        store.close()
    found = Found(hosts, network)
    return settings_text(found), found


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
