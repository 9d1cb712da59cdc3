"""`forepath check`: the effective settings with their origin, and every problem at once, before anything runs."""

from typing import Any

import typer
from pydantic import BaseModel

from cpdb import SettingsError, StoreError, StoreOutdated, open_store
from forepath.host_uris import host_problems
from forepath.output import EXIT_FAILED, EXIT_SETTINGS, JsonOption, SettingsOption, console, emit, errors, table
from forepath.processes import controller_manager, orchestrator_config, predictor_config, slow_lane
from forepath.settings import Settings, load, without_password
from orchestrator import problems as orchestrator_problems


def check(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Show the effective settings, and find every problem at once: settings, database, hypervisors, programs.

    Examples:
        forepath check
        forepath check --settings lab.toml --json -
    """
    try:
        effective = load(settings)
    except SettingsError as error:
        problems = str(error).splitlines()
        if not emit({"ok": False, "problems": problems, "settings": {}}, json):
            errors.print("\n".join(problems), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_SETTINGS) from error
    problems = find_problems(effective)
    shown = effective.model_dump(mode="json")
    shown["database"]["url"] = _shown("database.url", effective.database.url)
    payload = {"ok": not problems, "problems": problems, "settings": shown}
    if not emit(payload, json):
        rows = [(path, value, origin) for path, value, origin in flatten(effective)]
        console.print(table("effective settings", ["setting", "value", "origin"], rows, left=3))
        console.print("\n".join(f"problem: {line}" for line in problems) or "no problem found", markup=False)
    if problems:
        raise typer.Exit(EXIT_FAILED)


def find_problems(settings: Settings) -> list[str]:
    """One line for each thing that would go wrong later: what, where, how to mend."""
    return [
        *_behaviour(settings),
        *_references(settings),
        *_database(settings),
        *_hypervisors(settings),
        *_programs(),
    ]


def _behaviour(settings: Settings) -> list[str]:
    try:
        predictor_config(settings)
        slow_lane(settings)
    except SettingsError as error:
        return [str(error), *orchestrator_problems(orchestrator_config(settings, act=False))]
    return orchestrator_problems(orchestrator_config(settings, act=False))


def _references(settings: Settings) -> list[str]:
    known = (
        {one.name for one in settings.node} | {one.name for one in settings.host} | {one.name for one in settings.vm}
    )
    machines = {item.name for item in settings.vm}
    lines = [
        f"link.{number}.{end} = {name!r}: no node or host of that name; declare it with [[node]]"
        for number, link in enumerate(settings.link)
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
        open_store(settings.database.url, create=False).close()
    except StoreOutdated:
        return []  # the first command that writes creates it or brings it up to date
    except StoreError as error:
        return [str(error)]
    return []


def _hypervisors(settings: Settings) -> list[str]:
    if not settings.host:
        return []
    try:
        import libvirt  # noqa: F401 - only whether it is there
    except ImportError:
        return ["libvirt-python is not installed; pip install 'forepath[libvirt]' (needs libvirt's headers)"]
    return list(host_problems(settings.host))


def _programs() -> list[str]:
    if controller_manager() is None:
        return ["ryu-manager is neither beside this Python nor on the PATH; run make setup"]
    return []


def flatten(section: BaseModel, prefix: str = "") -> list[tuple[str, str, str]]:
    """(path, value, 'file' or 'default') of every setting, in the order of the model."""
    rows: list[tuple[str, str, str]] = []
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            rows += flatten(value, f"{path}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, item in enumerate(value):
                rows += flatten(item, f"{path}.{number}.")
        else:
            origin = "file" if name in section.model_fields_set else "default"
            rows.append((path, _shown(path, value), origin))
    return rows


def _shown(path: str, value: Any) -> str:
    # A database URL may hold a password.
    return without_password(str(value)) if path == "database.url" else str(value)
