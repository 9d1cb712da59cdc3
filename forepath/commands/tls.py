"""`forepath tls`: certificates for switches, the controller and the page, from a small authority of one's own."""

import datetime
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from cpdb import SettingsError
from forepath import authority
from forepath.authority import AUTHORITY, REVOKED, Issued
from forepath.output import EXIT_FAILED, JsonOption, SettingsOption, console, emit, table
from forepath.settings import Settings, load_settings
from ryu_apps import make_context

app = typer.Typer(
    name="tls",
    help="Certificates for switches, the controller and the page, from a small authority of one's own.",
    no_args_is_help=True,
)
FOLDER, YEAR_DAYS, SOON_DAYS = Path("tls"), 365.0, 30.0
FolderOption = Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where the authority and its files lie")]
DaysOption = Annotated[float, typer.Option("--days", min=0.01, help="How long it counts")]
AddressOption = Annotated[
    list[str] | None, typer.Option("--address", metavar="A", help="A server's IP address or host name; may be repeated")
]
NameArgument = Annotated[str, typer.Argument(help="Whom it is for: a [[node]]'s name, a server's, a person's")]
SoonOption = Annotated[float, typer.Option("--within", min=0, help="What ends within so many days")]


@app.command()
def init(
    folder: FolderOption = FOLDER,
    name: Annotated[str, typer.Option("--name", help="What the authority is called")] = "forepath authority",
    days: DaysOption = 10 * YEAR_DAYS,
    json: JsonOption = None,
) -> None:
    """Make an authority: its key, its certificate, and an empty list of what is revoked.

    Keep ca.key where no switch and no server can read it; only issuing needs it. Examples:
        forepath tls init
        forepath tls init --folder /etc/forepath/tls --name "example.org networks"
    """
    made = authority.init_authority(folder, name, days, _now())
    if not emit({"authority": str(made), "revoked": str(folder / REVOKED)}, json):
        _say(f"{made}: the authority; next: forepath tls issue controller --address ITS-ADDRESS --folder {folder}")


@app.command()
def issue(
    name: NameArgument,
    address: AddressOption = None,
    folder: FolderOption = FOLDER,
    days: DaysOption = YEAR_DAYS,
    browser: Annotated[bool, typer.Option("--browser", help="NAME.p12 too, for a browser")] = False,
    json: JsonOption = None,
) -> None:
    """Issue a certificate: NAME.pem with its key NAME.key, and say where to name them.

    Examples:
        forepath tls issue controller --address 192.0.2.10 --address ctl.example.org
        forepath tls issue leaf1
        forepath tls issue anna --browser
    """
    if (folder / f"{name}.pem").exists():
        raise SettingsError(f"{folder / name}.pem: is there already; forepath tls renew {name} makes another")
    made = authority.issue(folder, name, address or [], days, _now())
    password = _for_browser(folder, name) if browser else None
    if emit(_payload(made) | ({"p12": str(folder / f"{name}.p12"), "password": password} if browser else {}), json):
        return
    where = folder.absolute()
    _say(f"{folder / name}.pem counts until {made.until:%Y-%m-%d}")
    if browser:
        _say(f"{folder / name}.p12: its password is {password}; it is told only now")
    elif address:
        _say(f'[tls]\ncertificate = "{where / name}.pem"\nkey = "{where / name}.key"')
        _say(f'authority = "{where / AUTHORITY}"\nrevoked = "{where / REVOKED}"')
    else:
        _say(f"on the switch: ovs-vsctl set-ssl {where / name}.key {where / name}.pem {where / AUTHORITY}")


@app.command()
def renew(
    name: Annotated[str | None, typer.Argument(help="Whose; without it, all that end soon")] = None,
    folder: FolderOption = FOLDER,
    days: DaysOption = YEAR_DAYS,
    within: SoonOption = SOON_DAYS,
    json: JsonOption = None,
) -> None:
    """Make a new key and certificate in the place of an old one; whoever runs takes them for new connections.

    Connections that are open stay. Examples:
        forepath tls renew controller
        forepath tls renew --within 60
    """
    now = _now()
    ending = [one.name for one in authority.read_all(folder) if not one.revoked and one.days_left(now) < within]
    made = [authority.renew(folder, one, days, now) for one in ([name] if name else ending)]
    if not emit({"renewed": [_payload(one) for one in made]}, json):
        _say("\n".join(f"{folder / one.name}.pem counts until {one.until:%Y-%m-%d}" for one in made) or "nothing ends")


@app.command()
def revoke(name: NameArgument, folder: FolderOption = FOLDER, json: JsonOption = None) -> None:
    """Revoke a certificate: from the next second on nobody who reads the list lets it in, and who is in is put out.

    Examples:
        forepath tls revoke leaf1
    """
    made = authority.revoke(folder, name, _now())
    if not emit(_payload(made), json):
        _say(f"{folder / REVOKED} lists {name}; copy it to where tls.revoked is read")


@app.command()
def check(
    folder: Annotated[Path | None, typer.Option("--folder", metavar="DIR", help="An authority's folder too")] = None,
    within: SoonOption = SOON_DAYS,
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Look over what [tls] names, and an authority's folder: what fits, what ends when. Exit code 1 on a problem.

    Examples:
        forepath tls check
        forepath tls check --folder tls --within 60
    """
    effective, now = load_settings(settings), _now()
    problems = list(tls_problems(effective, now, within))
    folder = folder or (FOLDER if (FOLDER / AUTHORITY).is_file() else None)
    issued = authority.read_all(folder) if folder else []
    problems += [
        f"{folder}/{one.name}.pem: ends in {one.days_left(now):.0f} days; forepath tls renew {one.name}"
        for one in issued
        if not one.revoked and one.days_left(now) < within
    ]
    if not emit({"ok": not problems, "problems": problems, "issued": [_payload(one) for one in issued]}, json):
        rows = [(one.name, ", ".join(one.addresses), f"{one.until:%Y-%m-%d}", _state(one, now)) for one in issued]
        if folder:
            console.print(table(f"issued in {folder}", ("name", "addresses", "until", "state"), rows, left=4))
        _say("\n".join(f"problem: {line}" for line in problems) or "no problem found")
    if problems:
        raise typer.Exit(EXIT_FAILED)


def tls_problems(settings: Settings, now: datetime.datetime, within_days: float = SOON_DAYS) -> Iterator[str]:
    """What is wrong with the files that [tls] names, or soon will be, and which switch could never connect."""
    files = settings.tls.files()
    if files is None:
        return
    try:
        make_context(files)
        yield from authority.file_problems([Path(one) if one else None for one in files], now, within_days)
    except SettingsError as error:
        yield str(error)
    if settings.tls.strict and not any(one.dpid for one in settings.node):
        yield "tls.strict = true, and no [[node]] has a dpid: no switch may connect; declare them, or set it to false"


def _for_browser(folder: Path, name: str) -> str:
    password = secrets.token_urlsafe(12)
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    made, top = (authority.read_certificate(folder / one) for one in (f"{name}.pem", AUTHORITY))
    packed = pkcs12.serialize_key_and_certificates(
        name.encode(),
        key,  # type: ignore[arg-type]
        made,
        [top],
        BestAvailableEncryption(password.encode()),
    )
    target = folder / f"{name}.p12"
    target.touch(mode=0o600)
    target.write_bytes(packed)
    return password


def _payload(one: Issued) -> dict[str, object]:
    return {
        "name": one.name,
        "serial": f"{one.serial:x}",
        "addresses": one.addresses,
        "until": one.until.isoformat(),
        "revoked": one.revoked,
    }


def _state(one: Issued, now: datetime.datetime) -> str:
    return "revoked" if one.revoked else "expired" if one.days_left(now) < 0 else f"{one.days_left(now):.0f} days left"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
