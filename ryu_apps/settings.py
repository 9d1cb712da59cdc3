"""Settings of the controller: group [forepath] of Ryu's own configuration file, checked at the door."""

import os
from collections.abc import Iterable
from configparser import ConfigParser
from configparser import Error as ParseError
from dataclasses import dataclass, fields

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cpdb import DEFAULT_URL, SettingsError
from ryu_apps.framework import CONF, cfg

GROUP = "forepath"
URL_VARIABLE = "FOREPATH_DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings with their defaults."""

    database_url: str = DEFAULT_URL
    # Seconds between two statistics requests to a switch
    poll_s: float = 1.0
    # Seconds between two readings of what is wanted
    wanted_s: float = 0.5
    # Meters from this number on are ours
    first_meter: int = 60_000
    # Rule budget: pairs beyond this many are not accounted or steered
    most_pairs: int = 4096
    # Silence after which changed weights may move a pair, and after which a pair is forgotten
    idle_s: float = 60.0
    forget_s: float = 900.0
    # Rows that wait for the database at most; more are dropped and counted
    most_rows: int = 50_000


_LEAST: dict[str, float] = {"poll_s": 0.1, "wanted_s": 0.1, "idle_s": 1, "forget_s": 10}
_LEAST |= {"first_meter": 1, "most_pairs": 1, "most_rows": 1}
_KINDS = {str: cfg.StrOpt, int: cfg.IntOpt, float: cfg.FloatOpt}


def _options() -> list[object]:
    options = []
    for item in fields(Settings):
        more = {"min": _LEAST[item.name]} if item.name in _LEAST else {}
        kind = type(item.default)
        options.append(_KINDS[kind](item.name, default=item.default, **more))
    return options


def load() -> Settings:
    """The settings in force. Raises SettingsError that names every problem with its place."""
    CONF.register_opts(_options(), group=GROUP)
    problems = [*_unknown(CONF.config_file or ()), *_unreadable()]
    if problems:
        raise SettingsError("; ".join(problems))
    values = {item.name: getattr(CONF[GROUP], item.name) for item in fields(Settings)}
    values["database_url"] = os.environ.get(URL_VARIABLE) or values["database_url"]
    try:
        make_url(values["database_url"])
    except ArgumentError:
        raise SettingsError(
            f"database URL {values['database_url']!r} makes no sense; write sqlite:///FILE.db or postgresql://USER@HOST/NAME"
        ) from None
    return Settings(**values)


def _unreadable() -> Iterable[str]:
    for item in fields(Settings):
        try:
            getattr(CONF[GROUP], item.name)
        except (ValueError, cfg.Error) as error:
            yield f"[{GROUP}] {item.name}: {error} (for example {item.default})"


def _unknown(files: Iterable[str]) -> Iterable[str]:
    known = {item.name for item in fields(Settings)}
    for path in files:
        parser = ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(path)
        except ParseError as error:
            yield f"{path}: {error}"
            continue
        if parser.has_section(GROUP):
            for name in sorted(set(parser[GROUP]) - known - set(parser.defaults())):
                yield f"{path}: [{GROUP}] {name} is no setting; there are {', '.join(sorted(known))}"
