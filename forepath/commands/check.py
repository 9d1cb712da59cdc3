"""`forepath check`: the effective settings with their origin, and every problem at once, before anything runs."""

import datetime
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

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
from forepath.check_notes import find_notes
from forepath.commands.tls import tls_problems
from forepath.hypervisor_addresses import host_problems
from forepath.listening import open_doors
from forepath.output import EXIT_FAILED, EXIT_SETTINGS, JsonOption, SettingsOption, console, emit, errors, table
from forepath.processes import controller_manager, orchestrator_config, predictor_config
from forepath.routed import never_routed
from forepath.settings import Settings, load_settings
from ryu_apps import ControllerSettings, framework_name, listen_problem


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
    notes = list(find_notes(effective, time.time()))
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
        *(() if settings.tls.insecure else open_doors(settings)),
        *tls_problems(settings, datetime.datetime.now(datetime.UTC)),
    ]


def _together(settings: Settings) -> list[str]:
    """What one process is told by several tables, and does not fit together."""
    problems: list[str] = []
    for build in (predictor_config, partial(orchestrator_config, act=False)):
        try:
            build(settings)
        except SettingsError as error:
            problems += str(error).splitlines()
    if settings.routing.enabled is True and (why := never_routed(settings)):
        problems.append(f"routing.enabled = true: {why}; or set it to false")
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


def _hypervisors(settings: Settings) -> list[str]:
    if not settings.host:
        return []
    try:
        import libvirt  # noqa: F401 - only whether it is there
    except ImportError:
        return ["libvirt-python is not installed; pip install 'forepath[libvirt]' (needs libvirt's headers)"]
    moves = any(one.movable for one in settings.vm)
    return list(host_problems(settings.host, [one.name for one in settings.vm], moves))


def _programs() -> list[str]:
    if controller_manager() is None:
        return ["ryu-manager is neither beside this Python nor on the PATH; run make setup"]
    try:
        framework_name()
    except SettingsError as error:
        return [str(error)]
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
