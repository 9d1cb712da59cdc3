"""The one settings file: what is declared about the network and the machines, and how forepath shall behave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from cpdb import DatabaseSection, Section, read_settings
from forepath.settings.sections import (
    HostSection,
    LinkSection,
    NodeSection,
    PoolSection,
    TenantSection,
    VirtualIpSection,
    VmSection,
)
from orchestrator import OrchestratorSection, RouteSettings
from predictor import PredictorSection
from ryu_apps import ControllerSection

NAMED = ("node", "virtual_ip", "host", "vm", "tenant")


class Settings(Section):
    """Everything, with defaults; tables of the file are named in the singular, like [[link]]."""

    database: DatabaseSection = DatabaseSection()
    controller: ControllerSection = ControllerSection()
    predictor: PredictorSection = PredictorSection()
    orchestrator: OrchestratorSection = OrchestratorSection()
    routing: RouteSettings = RouteSettings()
    node: tuple[NodeSection, ...] = ()
    link: tuple[LinkSection, ...] = ()
    virtual_ip: tuple[VirtualIpSection, ...] = ()
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


def load_settings(path: Path | None) -> Settings:
    """Reads the settings file; without a path `forepath.toml` is read if it is there, else all is default.

    Raises SettingsError with one line for each problem, all at once.
    """
    return read_settings(path, Settings, _twice)


def _twice(content: Mapping[str, Any]) -> list[str]:
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
