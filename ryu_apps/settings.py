"""Settings of the controller: group [forepath] of Ryu's own configuration file, checked at the door."""

import os
from collections.abc import Iterable
from configparser import ConfigParser
from configparser import Error as ParseError
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cpdb import DEFAULT_URL, SettingsError
from ryu_apps.framework import CONF, cfg
from ryu_apps.services.health import Rules

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
    # A pair that never falls silent is moved to its new path after this long; its packets may overtake each other then
    path_patience_s: float = 10.0
    # Destinations: seconds between two questions, silences in a row that put one out, answers that take it back
    probe_every_s: float = 2.0
    probe_failures: int = 3
    probe_successes: int = 2
    # Rows that wait for the database at most; more are dropped and counted
    most_rows: int = 500_000
    # Where batches wait while the database is away, and counters outlast a restart; beside an SQLite file by default
    state_dir: str = ""
    spool_mib: int = 256
    # sFlow: HOST:PORT to listen on (nothing: off), and who may send, NAME=ADDRESS with commas between
    sflow_listen: str = ""
    sflow_agents: str = ""
    # Connections: how long hello and features may take, how long a peer may be silent, how many one address may have
    handshake_s: float = 10.0
    silent_s: float = 15.0
    most_connections: int = 256
    # Flow statistics: bytes of one reply, all its parts together; 64 MiB are half a million entries
    most_reply_bytes: int = 64 << 20


_LEAST: dict[str, float] = {"poll_s": 0.1, "wanted_s": 0.1, "idle_s": 1, "forget_s": 10}
_LEAST |= {"handshake_s": 1, "silent_s": 3, "most_connections": 1, "most_reply_bytes": 65536}
_LEAST |= {"path_patience_s": 0, "probe_every_s": 0.2, "probe_failures": 1, "probe_successes": 1}
_LEAST |= {"first_meter": 1, "most_pairs": 1, "most_rows": 1, "spool_mib": 1}
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
    settings = Settings(**values)
    agents(settings)
    return settings


def probing(settings: Settings) -> Rules:
    """How destinations are asked whether they live."""
    return Rules(settings.probe_every_s, settings.probe_failures, settings.probe_successes)


def state_directory(settings: Settings) -> Path | None:
    """Where the controller keeps what must outlast it; None for a database that does not outlast it either."""
    if settings.state_dir:
        return Path(settings.state_dir)
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        return Path("forepath-controller")
    return Path(f"{url.database}.controller") if url.database not in (None, "", ":memory:") else None


def agents(settings: Settings) -> dict[str, str]:
    """sFlow agents: address -> name. Raises SettingsError."""
    pairs = [one.strip().partition("=") for one in settings.sflow_agents.split(",") if one.strip()]
    try:
        known = {str(ip_address(address.strip())): name.strip() for name, _, address in pairs if name and address}
    except ValueError as error:
        raise SettingsError(f"[{GROUP}] sflow_agents: {error} (for example leaf1=127.0.0.1,leaf2=10.0.0.2)") from None
    if len(known) != len(pairs):
        raise SettingsError(f"[{GROUP}] sflow_agents: each NAME=ADDRESS needs a name and an address of its own")
    if settings.sflow_listen and not (known and settings.sflow_listen.rpartition(":")[2].isdigit()):
        raise SettingsError(f"[{GROUP}] sflow_listen: HOST:PORT (for example 127.0.0.1:6343), with sflow_agents set")
    return known


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
