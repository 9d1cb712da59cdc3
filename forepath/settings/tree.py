"""The one settings file: what is declared about the network and the machines, and how forepath shall behave."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from cpdb import DatabaseSection, MetricsSection, Section, read_settings
from forepath.settings.places import Claim, link_problems, mixed_families, named_twice, place_problems
from forepath.settings.sections import (
    HostSection,
    LinkSection,
    NodeSection,
    PoolSection,
    TenantSection,
    VirtualIpSection,
    VmSection,
    WebSection,
)
from orchestrator import OrchestratorSection, RouteSettings
from predictor import PredictorSection
from ryu_apps import ControllerSection, TlsSection

NAMED = ("node", "virtual_ip", "host", "vm", "tenant")


class BehaviourTables(Section):
    """How forepath shall behave, whatever network it is."""

    database: DatabaseSection = DatabaseSection()
    controller: ControllerSection = ControllerSection()
    predictor: PredictorSection = PredictorSection()
    orchestrator: OrchestratorSection = OrchestratorSection()
    routing: RouteSettings = RouteSettings()
    web: WebSection = WebSection()
    metrics: MetricsSection = MetricsSection()
    tls: TlsSection = TlsSection()


class Settings(BehaviourTables):
    """Everything, with defaults; tables of what is declared are named in the singular, like [[link]]."""

    node: tuple[NodeSection, ...] = ()
    link: tuple[LinkSection, ...] = ()
    virtual_ip: tuple[VirtualIpSection, ...] = ()
    host: tuple[HostSection, ...] = ()
    vm: tuple[VmSection, ...] = ()
    pool: tuple[PoolSection, ...] = ()
    tenant: tuple[TenantSection, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "Settings":
        tables = {table: [{"name": item.name} for item in getattr(self, table)] for table in NAMED}
        if problems := _twice(tables) or list(self._in_one_place()):
            raise ValueError("\n".join(problems))
        return self

    def _in_one_place(self) -> Iterator[str]:
        services = [(one.name, one.address) for one in self.virtual_ip]
        switches = [(one.name, f"dpid {one.dpid:#x}") for one in self.node if one.dpid is not None]
        yield from named_twice("virtual_ip", services, "give each virtual IP an address of its own")
        yield from named_twice("node", switches, "give each switch the dpid that it says")
        yield from place_problems(tuple(self._claims()), {address: name for name, address in services})
        addresses = dict(services)
        for pool in self.pool:
            for one in pool.member:
                where, virtual_ip = f"pool of {pool.virtual_ip!r}, member {one.name!r}", addresses.get(pool.virtual_ip)
                yield from mixed_families(where, one.address, virtual_ip or one.address)
        yield from link_problems((one.a, one.b, one.a_port, one.b_port) for one in self.link)

    def _claims(self) -> Iterator[Claim]:
        for node in self.node:
            yield Claim(f"node {node.name!r}", node.name, node.address, node.mac)
            yield Claim(f"node {node.name!r}", node.name, node.address6, None)
        for vip in self.virtual_ip:
            for one in vip.destination:
                where = f"virtual_ip {vip.name!r}, destination {one.name!r}"
                yield Claim(where, one.name, one.address, one.mac, vip.name)
        for pool in self.pool:
            for member in pool.member:
                where = f"pool of {pool.virtual_ip!r}, member {member.name!r}"
                yield Claim(where, member.name, member.address, member.mac)


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
