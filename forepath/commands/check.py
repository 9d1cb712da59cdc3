"""`forepath check`: the effective settings with their origin, and every problem at once, before anything runs."""

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel, ValidationError

from cpdb import (
    BEHAVIOUR,
    URL_VARIABLE,
    SettingsError,
    StoreError,
    database_problem,
    read_tables,
    spool_in_use,
    without_password,
)
from forepath.listening import is_loopback, split_listen
from forepath.output import EXIT_FAILED, EXIT_SETTINGS, JsonOption, SettingsOption, console, emit, errors, table
from forepath.processes import controller_manager, orchestrator_config, predictor_config
from forepath.settings import Settings, load_settings
from ryu_apps import ControllerSettings, listen_problem

ANSWER_S = 5.0
# https://libvirt.org/uri.html
TRANSPORTS = ("unix", "ssh", "tcp", "tls", "libssh", "libssh2", "ext")
REMOTE = ("ssh", "tcp", "tls", "libssh", "libssh2")
# What libvirt says, and what helps; the first that fits.
HELP = (
    (r"Cannot read CA cert|Cannot read .*cacert", "put the CA's certificate there, or name its folder with ?pkipath="),
    (r"Cannot read .*(key|cert)", "put this machine's own certificate and key there, or name them with ?pkipath="),
    (
        r"verify peer's certificate",
        "both sides need unexpired certificates of one CA, and the host is addressed by the name in its certificate",
    ),
    (r"not (yet )?activated|has expired|not yet valid", "renew the certificate, or set the clock"),
    (r"known issuer|not trusted|signer", "both sides need certificates of one CA"),
    (r"(not match|different).*(host|name)|hostname", "address the host as its certificate names it"),
    (r"certificate|TLS|handshake", "check both sides' certificates: virt-pki-validate says more"),
    (r"cannot execute binary|Cannot find 'ssh'", "install the ssh client"),
    (r"Host key verification failed", "connect once by hand with ssh, so that the host's key is known"),
    (r"Permission denied \(|Too many authentication", "let ssh in without a password: ssh-copy-id to that host"),
    (r"command not found|nc: |netcat", "install netcat or virt-ssh-helper on that host"),
    (
        r"Permission denied|authentication (failed|unavailable|cancelled)",
        "run as root, or join the group libvirt there",
    ),
    (r"Name or service not known|not known|resolve", "no such name: write its address, or add it to the name service"),
    (r"No route|unreachable|timed out", "is it switched on and connected?"),
    (r"Connection refused", "it is up, but nothing listens there: start its libvirtd (or sshd) for this transport"),
    (r"No such file", "is its libvirtd running?"),
    (r"not supported|no connection driver", "this libvirt was built without that driver or transport"),
)


class DeclaredHost(Protocol):
    """A declared hypervisor."""

    @property
    def name(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def migration_uri(self) -> str | None: ...


def shape_problem(uri: str) -> str | None:
    """What is wrong with a URI as it is written, None when nothing is."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if not driver:
        return "is no address; write qemu:///system, qemu+ssh://USER@HOST/system or qemu+tls://HOST/system"
    if transport and transport not in TRANSPORTS:
        return f"unknown transport {transport!r}; libvirt knows {', '.join(TRANSPORTS)}"
    if transport in REMOTE and not parts.hostname:
        return f"names no host; write {parts.scheme}://HOST/system"
    if driver == "qemu" and parts.path not in ("/system", "/session", "/embed"):
        return f"ends in {parts.path or 'nothing'!r}; it must end in /system (or /session)"
    if transport == "ext" and "command=" not in parts.query:
        return "the transport ext needs ?command=PROGRAM"
    return None


def arrival_problem(host: DeclaredHost, others: Sequence[DeclaredHost]) -> str | None:
    """Why no other host could send machines to this one, as far as its addresses tell; None when nothing is wrong."""
    uri = host.migration_uri or host.uri
    if not others or urlsplit(uri).scheme.startswith("test"):
        return None
    if not urlsplit(uri).hostname:
        return f"{uri}: other hosts cannot reach that; set migration_uri, e.g. qemu+tls://{host.name}/system"
    found = shape_problem(uri)
    return found and f"{uri}: {found}"


@dataclass(frozen=True, slots=True)
class HostLook:
    """What a host said: why not, or its machines - name and UUID - and whether each is active."""

    problem: str | None
    machines: Mapping[tuple[str, str], bool] = field(default_factory=dict)


def connection_problem(uri: str, answer_s: float = ANSWER_S) -> str | None:
    """Tries to connect for reading; one line when it fails or takes longer than `answer_s`, None when it works."""
    return look_at(uri, answer_s).problem


def look_at(uri: str, answer_s: float = ANSWER_S) -> HostLook:
    """Connects for reading, and asks which machines there are."""
    import libvirt

    found: list[HostLook] = []

    def try_it() -> None:
        try:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            connection = libvirt.openReadOnly(uri)
            machines = {(one.name(), one.UUIDString()): bool(one.isActive()) for one in connection.listAllDomains()}
            connection.close()
            found.append(HostLook(None, machines))
        except libvirt.libvirtError as error:
            found.append(HostLook(explained(error.get_error_message() or str(error))))

    # libvirt itself waits for minutes; the thread ends by itself some day and holds nothing up.
    thread = threading.Thread(target=try_it, daemon=True, name="connect")
    thread.start()
    thread.join(answer_s)
    silent = f"no answer within {answer_s:g} s; is it switched off, or does a firewall drop it?"
    return found[0] if found else HostLook(silent)


def explained(message: str) -> str:
    """What libvirt says, in one line, and what helps."""
    said = " ".join(message.split())
    return next((f"{said}; {tip}" for pattern, tip in HELP if re.search(pattern, said)), said)


def host_problems(hosts: Sequence[DeclaredHost], machines: Sequence[str] = ()) -> Iterator[str]:
    """One line for everything that is wrong with the declared hosts, and with declared machines on them.

    Needs libvirt-python.
    """
    looks: dict[str, HostLook] = {}
    for host in hosts:
        found = shape_problem(host.uri)
        if found is None:
            looks[host.name] = look_at(host.uri)
            found = looks[host.name].problem
        if found:
            yield f"host {host.name}: {host.uri}: {found}"
        arriving = arrival_problem(host, [one for one in hosts if one is not host])
        if arriving and not (host.migration_uri is None and found):
            yield f"host {host.name}: {arriving}"
    yield from machine_problems(looks, len(looks) == len(hosts), machines)


def machine_problems(looks: Mapping[str, HostLook], whole: bool, machines: Sequence[str]) -> Iterator[str]:
    """Declared machines that no host has - where all answered - and names that several machines bear at once."""
    active: dict[str, dict[str, str]] = defaultdict(dict)
    for host, look in looks.items():
        for (name, uuid), runs in look.machines.items():
            if runs:
                active[name][uuid] = host
    for name, own in active.items():
        if len(own) > 1:
            where = " and ".join(sorted(own.values()))
            yield f"vm {name!r}: several machines bear this name, on {where}; none is touched until one is renamed"
    known = {name for look in looks.values() for name, _ in look.machines}
    for name in machines if whole and not any(look.problem for look in looks.values()) else ():
        if name not in known:
            yield f"vm {name!r}: no declared host has a machine of this name; define it there, or leave it out here"


def check(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Show the effective settings, and find every problem at once: settings, database, hypervisors, programs.

    Examples:
        forepath check
        forepath check --settings lab.toml --json -
    """
    content = read_tables(settings)
    try:
        effective = load_settings(settings)
    except SettingsError as error:
        problems = [*str(error).splitlines(), *_beside_wrong_settings(content)]
        if not emit({"ok": False, "problems": problems, "notes": [], "settings": {}}, json):
            errors.print("\n".join(problems), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_SETTINGS) from error
    problems = find_problems(effective)
    shown = in_force(effective)
    notes = list(find_notes(effective))
    masked = _masked(shown.model_dump(mode="json"))
    payload = {"ok": not problems, "problems": problems, "notes": notes, "settings": masked}
    if not emit(payload, json):
        rows = [(path, _shown(path, value), _origin(path, value, content)) for path, value in flatten(shown)]
        console.print(table("effective settings", ["setting", "value", "origin"], rows, left=3))
        console.print("\n".join(f"note: {line}" for line in notes), end="\n" if notes else "", markup=False)
        console.print("\n".join(f"problem: {line}" for line in problems) or "no problem found", markup=False)
    if problems:
        raise typer.Exit(EXIT_FAILED)


def in_force(settings: Settings) -> Settings:
    """The settings with what one table takes from another filled in."""
    try:
        config = orchestrator_config(settings, act=False)
    except SettingsError:
        return settings  # what is wrong is told as a problem
    values = {name: getattr(config, name) for name in type(settings.orchestrator).model_fields}
    return settings.model_copy(update={"orchestrator": settings.orchestrator.model_copy(update=values)})


def _beside_wrong_settings(content: Mapping[str, Any]) -> list[str]:
    """What else is wrong, without the tables that cannot be read; nothing where what is declared cannot be."""
    try:
        Settings.model_validate(content)
    except ValidationError as error:
        wrong = {str(item["loc"][0]) if item["loc"] else "" for item in error.errors()}
        if wrong <= set(BEHAVIOUR):
            return find_problems(Settings.model_validate({n: table for n, table in content.items() if n not in wrong}))
    return []


def find_problems(settings: Settings) -> list[str]:
    """One line for each thing that would go wrong later: what, where, how to mend."""
    return [
        *_together(settings),
        *_references(settings),
        *_database(settings),
        *_hypervisors(settings),
        *_programs(),
        *_port(settings),
        *_page(settings),
    ]


def find_notes(settings: Settings) -> Iterator[str]:
    """One line for what is right as it is, but may not be what was meant."""
    ranks = {one.priority for one in settings.virtual_ip}
    if len(settings.virtual_ip) > 1 and len(ranks) == 1:
        yield (
            f"all {len(settings.virtual_ip)} virtual IPs have priority {ranks.pop()}: on a full link whoever sends "
            "more than a fair share gives way to the others; with a higher `priority` for one, all others "
            "would give way to that"
        )


def _together(settings: Settings) -> list[str]:
    """What one process is told by several tables, and does not fit together."""
    problems: list[str] = []
    for build in (predictor_config, partial(orchestrator_config, act=False)):
        try:
            build(settings)
        except SettingsError as error:
            problems += str(error).splitlines()
    return problems


def _references(settings: Settings) -> list[str]:
    known = (
        {one.name for one in settings.node} | {one.name for one in settings.host} | {one.name for one in settings.vm}
    )
    machines = {item.name for item in settings.vm}
    lines = [
        f"link {link.a}>{link.b}: {end} = {name!r}: no node or host of that name; declare it with [[node]]"
        for link in settings.link
        for end, name in (("a", link.a), ("b", link.b))
        if name not in known
    ]
    return lines + [
        f"virtual_ip {service.name}: destination {one.name!r} is no declared VM; it cannot be resized or moved"
        for service in settings.virtual_ip
        for one in service.destination
        if settings.host and one.name not in machines
    ]


def _database(settings: Settings) -> list[str]:
    try:
        # One that is outdated is brought up to date by the first command that writes.
        problem = database_problem(settings.database.url)
    except StoreError as error:
        problem = str(error)
    return [problem] if problem else []


def _port(settings: Settings) -> list[str]:
    section = settings.controller
    problem = listen_problem(section.listen, section.port)
    folder = ControllerSettings(database=settings.database, controller=section).state_directory()
    # Taken by our own controller at work, that is as it should be.
    return [problem] if problem and not (folder and spool_in_use(folder / "spool")) else []


def _page(settings: Settings) -> list[str]:
    if not settings.web.enabled:
        return []
    host, _ = split_listen(settings.web.listen)
    if is_loopback(host):
        return []
    can = "change" if settings.web.token_file or settings.web.token_variable else "see"
    return [
        f"web.listen = {settings.web.listen!r}: whoever reaches it can {can} everything; listen on 127.0.0.1 and put a "
        "reverse proxy with TLS and a password before it, or set web.enabled = false"
    ]


def _hypervisors(settings: Settings) -> list[str]:
    if not settings.host:
        return []
    try:
        import libvirt  # noqa: F401 - only whether it is there
    except ImportError:
        return ["libvirt-python is not installed; pip install 'forepath[libvirt]' (needs libvirt's headers)"]
    return list(host_problems(settings.host, [one.name for one in settings.vm]))


def _programs() -> list[str]:
    if controller_manager() is None:
        return ["ryu-manager is neither beside this Python nor on the PATH; run make setup"]
    return []


def flatten(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every setting, in the order of the classes."""
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, item in enumerate(value):
                yield from flatten(item, f"{prefix}{name}.{number}.")
        else:
            yield f"{prefix}{name}", value


def _origin(path: str, value: Any, content: Mapping[str, Any]) -> str:
    """Who said so: the file, the environment, another setting of the file, or nobody."""
    if path == "database.url" and os.environ.get(URL_VARIABLE):
        return "environment"
    if _at(path, content) is not None:
        return "file"
    return "default" if value == dict(flatten(Settings())).get(path, value) else "derived"


def _at(path: str, content: Any) -> Any:
    for part in path.split("."):
        if isinstance(content, list):
            content = content[int(part)]
        elif isinstance(content, dict):
            content = content.get(part)
        else:
            return None
    return content


def _shown(path: str, value: Any) -> str:
    # A database URL may hold a password.
    return without_password(str(value)) if path == "database.url" else str(value)


def _masked(shown: dict[str, Any]) -> dict[str, Any]:
    return shown | {"database": shown["database"] | {"url": without_password(shown["database"]["url"])}}
