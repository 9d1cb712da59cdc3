"""The one settings file: what is declared about the network and the machines, and how forepath shall behave."""

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from cpdb import SettingsError
from forepath.settings.machines import PoolSection
from forepath.settings.sections import (
    Controller,
    Database,
    HostSection,
    LinkSection,
    NodeSection,
    Orchestrator,
    Predictor,
    Routing,
    Section,
    TenantSection,
    VirtualIPSection,
    VmSection,
)

DEFAULT_FILE = Path("forepath.toml")
SECRET_KEY = re.compile("pass|secret|token", re.IGNORECASE)
# Between scheme:// and the last @ of one word, and in a URL's parameters
URL_USER = re.compile(r"(\w://)[^\s'\"]*@")
URL_PASSWORD = re.compile(r"(pass\w*=)[^&\s'\"]*", re.IGNORECASE)
NAMED = ("node", "virtual_ip", "host", "vm", "tenant")


class Settings(Section):
    """Everything, with defaults; tables of the file are named in the singular, like [[link]]."""

    database: Database = Database()
    controller: Controller = Controller()
    predictor: Predictor = Predictor()
    orchestrator: Orchestrator = Orchestrator()
    routing: Routing = Routing()
    node: tuple[NodeSection, ...] = ()
    link: tuple[LinkSection, ...] = ()
    virtual_ip: tuple[VirtualIPSection, ...] = ()
    host: tuple[HostSection, ...] = ()
    vm: tuple[VmSection, ...] = ()
    pool: tuple[PoolSection, ...] = ()
    tenant: tuple[TenantSection, ...] = ()

    @model_validator(mode="after")
    def _each_named_once(self) -> "Settings":
        tables = {table: [{"name": item.name} for item in getattr(self, table)] for table in NAMED}
        if problems := _twice(tables):
            raise ValueError("; ".join(problems))
        return self


def load(path: Path | None) -> Settings:
    """Reads the settings file; without a path `forepath.toml` is read if it is there, else all is default.

    Raises SettingsError with one line for each problem, all at once.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return Settings()
        path = DEFAULT_FILE
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name an existing file with --settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        lines = _problems(error)
        if all(item["loc"] for item in error.errors()):
            # Single values come first; what concerns the whole file was not looked at yet.
            lines += [f"file: {line}" for line in _twice(content)]
        raise SettingsError("\n".join(f"{path}: {line}" for line in lines)) from error


def without_password(text: str) -> str:
    """The text with user and password of every URL in it replaced by ***."""
    return URL_PASSWORD.sub(r"\1***", URL_USER.sub(r"\1***@", text))


def _twice(content: dict[str, Any]) -> list[str]:
    """One line for each name that a table declares more than once; entries without a sound name are left out."""
    lines = []
    for table in NAMED:
        rows = content.get(table, ())
        names = [row["name"] for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]
        lines += [
            f"{table}: {name!r} is declared {names.count(name)} times; names must be unique"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
    return lines


def _problems(error: ValidationError) -> list[str]:
    items = [dict(item) for item in error.errors()]
    return [without_password(_problem(item)) for item in items if not _follows(item, items)]


def _follows(item: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether a table is 'too short' only because its entries are wrong, which is told of each entry already."""
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == item["loc"] for other in items
    )


def _problem(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "file"
    if item["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(item["loc"][:-1]))
        value = "***" if SECRET_KEY.search(str(item["loc"][-1])) else repr(item["input"])
        return f"{where} = {value}: no such setting; known here: {known}"
    if item["type"] == "missing":
        return f"{where}: is missing; add it, `forepath check` shows every setting"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    return f"{where} = {item['input']!r}: {item['msg']}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    section: Any = Settings
    for part in location:
        if isinstance(part, str):
            section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    while getattr(annotation, "__args__", None):
        annotation = annotation.__args__[0]
    return annotation
