"""What may be set of the controller: the tables [controller] and [database] of forepath.toml, checked at the door."""

import errno
import os
import socket
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ParseError
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cpdb import (
    FILE_VARIABLE,
    Address,
    DatabaseSection,
    MetricsSection,
    Section,
    SettingsError,
    ShareOf1,
    read_settings,
)
from ryu_apps.accounts import MAX_ACCOUNTS, parse_accounts
from ryu_apps.rules import OWNER
from ryu_apps.tables import TABLES, TablePlaces
from ryu_apps.tls import NO_TLS, BoundNode, SwitchTrust, TlsSection, bound_names, make_context

GROUP = "forepath"
LAST_TABLE, LAST_VLAN = 254, 4094
EXAMPLE_AGENTS = "agents = { leaf1 = '10.0.0.2' }"
# Where the settings of Ryu's own file went, whose group [forepath] names nothing but the settings file by now.
MOVED = {
    "database_url": "database.url",
    "poll_s": "controller.poll_s",
    "wanted_s": "controller.wanted_s",
    "first_meter": "controller.first_meter",
    "most_pairs": "controller.pairs.max_pairs",
    "idle_s": "controller.pairs.idle_s",
    "forget_s": "controller.pairs.forget_s",
    "path_patience_s": "controller.pairs.path_timeout_s",
    "probe_every_s": "controller.probes.every_s",
    "probe_failures": "controller.probes.failures",
    "probe_successes": "controller.probes.successes",
    "most_rows": "controller.storage.max_rows",
    "state_dir": "controller.storage.state_dir",
    "spool_mib": "controller.storage.spool_mib",
    "sflow_listen": "controller.sflow.listen",
    "sflow_agents": "controller.sflow.agents",
    "handshake_s": "controller.connections.handshake_s",
    "silent_s": "controller.connections.silent_s",
    "most_connections": "controller.connections.max_connections",
    "most_reply_bytes": "controller.connections.max_reply_bytes",
}


class ConnectionsSection(Section):
    """What one peer may cost: seconds for hello and features, seconds of silence, connections of one address.

    `max_reply_bytes` bounds one reply, all its parts together; 64 MiB are half a million flow entries. Of the frames
    that come in at one port so many a second are looked at; who sends more is held (`switch/flood_gate.py`).
    """

    handshake_s: Annotated[float, Field(ge=1)] = 10.0
    silent_s: Annotated[float, Field(ge=3)] = 15.0
    max_connections: Annotated[int, Field(ge=1)] = 256
    max_reply_bytes: Annotated[int, Field(ge=65536)] = 64 << 20
    port_packets_per_s: Annotated[float, Field(ge=10)] = 200.0


class PairsSection(Section):
    """The rule budget: sources beyond `max_pairs` pairs are counted in sums, and placed connection by connection.

    One port may have `port_share` of them, one source `source_share`: who invents sources there, or speaks to all,
    takes the room of no other.
    After `idle_s` of silence changed weights may move a pair, after `forget_s` it is forgotten. Where a switch cannot
    write connections down, a pair that never falls silent is moved to another path after `path_timeout_s`, and its
    packets may overtake each other.
    """

    max_pairs: Annotated[int, Field(ge=1)] = 4096
    port_share: ShareOf1 = 0.75
    source_share: ShareOf1 = 0.25
    idle_s: Annotated[float, Field(ge=1)] = 60.0
    forget_s: Annotated[float, Field(ge=10)] = 900.0
    path_timeout_s: Annotated[float, Field(ge=0)] = 10.0


class ProbesSection(Section):
    """How often destinations are asked whether they live, and how many answers or silences in a row decide.

    A source that keeps to one destination leaves it when it has been down for `leave_after_s`.
    """

    every_s: Annotated[float, Field(ge=0.2)] = 0.3
    failures: Annotated[int, Field(ge=1)] = 3
    successes: Annotated[int, Field(ge=1)] = 2
    leave_after_s: Annotated[float, Field(ge=0)] = 1.5


class StorageSection(Section):
    """Where batches wait while the database is away, and counters outlast a restart.

    More than `max_rows` in memory are dropped and counted. Without a `state_dir`, it lies beside an SQLite file.
    """

    state_dir: Path | None = None
    spool_mib: Annotated[int, Field(ge=1)] = 256
    max_rows: Annotated[int, Field(ge=1)] = 500_000


class SflowSection(Section):
    """Where samples are received, HOST:PORT (none: off), and who may send them: switch name = address."""

    listen: str | None = None
    agents: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sound(self) -> "SflowSection":
        try:
            addresses = self.by_address()
        except ValueError as error:
            raise ValueError(f"agents: {error}; write e.g. {EXAMPLE_AGENTS}") from None
        if len(addresses) != len(self.agents) or not all(self.agents):
            raise ValueError("agents: each needs a name and an address of its own")
        _, _, port = (self.listen or ":1").rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"listen = {self.listen!r} needs the form HOST:PORT, e.g. 127.0.0.1:6343")
        if self.listen and not addresses:
            raise ValueError(f"listen = {self.listen!r} needs agents, who may send; write e.g. {EXAMPLE_AGENTS}")
        return self

    def by_address(self) -> dict[str, str]:
        """Names of the agents by address. Raises ValueError."""
        return {str(ip_address(address.strip())): name for name, address in self.agents.items()}


class NetflowSection(SflowSection):
    """The same for flows of NetFlow v9 and IPFIX; `sampling` N, 1 in N packets, is for who does not say it."""

    sampling: Annotated[int, Field(ge=1)] = 1


class AccountsSection(Section):
    """What is counted beside virtual IPs: at most `max_pairs` pairs that samples show to talk much, and `declared`."""

    max_pairs: Annotated[int, Field(ge=0, le=100_000)] = 0
    from_mbit_per_s: Annotated[float, Field(gt=0)] = 1.0
    declared: Annotated[list[str], Field(max_length=MAX_ACCOUNTS)] = Field(default_factory=list)

    @field_validator("declared")
    @classmethod
    def _readable(cls, texts: list[str]) -> list[str]:
        parse_accounts(texts)
        return texts


def _vlan_range(text: int | str) -> tuple[int, int]:
    first, _, last = str(text).partition("-")
    return (int(first), int(last or first)) if first.isdecimal() and (last or first).isdecimal() else (0, 0)


class JoiningSection(Section):
    """How forepath fits in with what a network already has: its tables are `first_table` and the `TABLES - 1` next.

    A guest forwards nothing: packets go on to what the switch does by itself, or to the rules of another application in
    the table `guest_next`, which may be `first_table` itself.
    """

    first_table: int = 0
    mode: Literal["forward", "guest"] = "forward"
    guest_next: Literal["normal"] | int = "normal"
    vlans: tuple[int | str, ...] = ()
    access: dict[str, int] = Field(default_factory=dict)

    @field_validator("first_table")
    @classmethod
    def _in_switch(cls, first: int) -> int:
        if not 0 <= first <= LAST_TABLE + 1 - TABLES:
            raise ValueError(
                f"forepath needs {TABLES} tables from there on, and OpenFlow has 0 to {LAST_TABLE}: "
                f"0 to {LAST_TABLE + 1 - TABLES}"
            )
        return first

    @field_validator("vlans")
    @classmethod
    def _ranges(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for one in value:
            first, last = _vlan_range(one)
            if not 1 <= first <= last <= LAST_VLAN:
                raise ValueError(f"{one!r}: VLANs are numbers from 1 to {LAST_VLAN}, or ranges; write 20 or '30-39'")
        return value

    @field_validator("access")
    @classmethod
    def _ports(cls, value: dict[str, int]) -> dict[str, int]:
        for place, vlan in value.items():
            switch, _, port = place.rpartition(":")
            if not switch or not port.isdecimal() or not 1 <= vlan <= LAST_VLAN:
                raise ValueError(f"{place!r} = {vlan}: write SWITCH:PORT = VLAN, e.g. 'leaf1:3' = 20")
        return value

    def used_vlans(self) -> frozenset[int]:
        """VLANs that are declared to be in use."""
        ranges = [_vlan_range(one) for one in self.vlans]
        return frozenset(vlan for first, last in ranges for vlan in range(first, last + 1)) | {*self.access.values()}

    @model_validator(mode="after")
    def _beside_ours(self) -> Self:
        after, to = self.first_table + TABLES, self.guest_next
        if to != "normal" and self.mode != "guest":
            raise ValueError(f'guest_next = {to!r}: only a guest hands packets over; write mode = "guest" too')
        if to not in ("normal", self.first_table) and not after <= int(to) <= LAST_TABLE:
            raise ValueError(
                f"guest_next = {to!r}: tables {self.first_table} to {after - 1} are forepath's; write "
                f'{self.first_table} to share the first one, {after} to {LAST_TABLE}, or "normal"'
            )
        return self

    def places(self) -> TablePlaces:
        """What switches are told instead of our own numbers. Beside another application packets are ours alone."""
        alone = self.mode != "guest" or self.guest_next == "normal"
        return TablePlaces(self.first_table, None if alone else OWNER)


class MeasuringSection(JoiningSection):
    """Where samples come from, and what is counted beside virtual IPs."""

    sflow: SflowSection = SflowSection()
    netflow: NetflowSection = NetflowSection()
    accounts: AccountsSection = AccountsSection()

    def sampled_switches(self) -> frozenset[str]:
        """Names of switches that send samples."""
        return frozenset(name for one in (self.sflow, self.netflow) if one.listen for name in one.agents)


class ControllerSection(MeasuringSection):
    """Where switches connect, and how often they and the database are asked. `first_meter` on, meters are ours.

    Of broadcast and multicast a port with hosts may send `group_mbit_per_s`; 0 is no limit.
    """

    listen: Address = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 6653
    poll_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    wanted_s: Annotated[float, Field(ge=0.1, le=60)] = 0.5
    first_meter: Annotated[int, Field(ge=1)] = 60_000
    group_mbit_per_s: Annotated[float, Field(ge=0)] = 10.0
    connections: ConnectionsSection = ConnectionsSection()
    pairs: PairsSection = PairsSection()
    probes: ProbesSection = ProbesSection()
    storage: StorageSection = StorageSection()


class LabelSection(Section):
    """What the controller reads of [routing]."""

    model_config = ConfigDict(extra="ignore")
    first_label: Literal[1024, 2048, 3072] = 3072


class ControllerSettings(Section):
    """The tables of the settings file that the controller reads."""

    database: DatabaseSection = DatabaseSection()
    controller: ControllerSection = ControllerSection()
    metrics: MetricsSection = MetricsSection()
    tls: TlsSection = TlsSection()
    node: tuple[BoundNode, ...] = ()
    routing: LabelSection = LabelSection()

    @model_validator(mode="after")
    def _sound(self) -> "ControllerSettings":
        # The controller goes on without its database: an address that never works must not look like one that is away.
        try:
            make_url(self.database.url)
        except ArgumentError:
            raise ValueError("database.url is none; write sqlite:///FILE.db or postgresql://USER@HOST/NAME") from None
        return self

    def trust(self) -> SwitchTrust:
        """Which certificates which switches must show; without [tls] nobody is asked for any."""
        files = self.tls.files()
        return SwitchTrust(self.tls.strict, bound_names(self.node), files.revoked) if files else SwitchTrust()

    def state_directory(self) -> Path | None:
        """Where the controller keeps what must outlast it; None for a database that does not outlast it either."""
        if self.controller.storage.state_dir is not None:
            return self.controller.storage.state_dir
        url = make_url(self.database.url)
        if url.get_backend_name() != "sqlite":
            return Path("forepath-controller")
        return Path(f"{url.database}.controller") if url.database not in (None, "", ":memory:") else None


def listen_problem(host: str, port: int) -> str | None:
    """Why no switch could be served there now, with the mend; None when nothing is in the way."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return cannot_listen(host, port, error)
    return None


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """One line about a port that cannot be listened at."""
    mends = {
        errno.EADDRINUSE: f"another program has it (ss -ltnp 'sport = :{port}' names it): end that, or set another "
        "controller.port",
        errno.EADDRNOTAVAIL: "this machine has no such address: set controller.listen to one that it has, or 0.0.0.0",
        errno.EACCES: "ports below 1024 need more rights: set another controller.port",
    }
    mend = mends.get(error.errno or 0, "set controller.listen and controller.port")
    return f"no switch can connect to {host}:{port}, {(error.strerror or str(error)).lower()}; {mend}"


def load_controller() -> ControllerSettings:
    """The settings in force; Ryu itself is told where to listen unless its command line says so.

    The file is named by FOREPATH_SETTINGS or by `settings` in group [forepath] of Ryu's own file, else it is
    ./forepath.toml if there is one. Raises SettingsError that names every problem with its place and its mend.
    """
    # Only here: who reads the classes alone, like `forepath check`, needs no framework.
    from ryu_apps.framework import CONF, cfg

    CONF.register_opts([cfg.StrOpt("settings")], group=GROUP)
    if problems := [line for path in CONF.config_file or () for line in _moved_settings(Path(path))]:
        raise SettingsError("\n".join(problems))
    named = os.environ.get(FILE_VARIABLE) or CONF[GROUP].settings
    settings = read_settings(Path(named) if named else None, ControllerSettings)
    CONF.set_default("ofp_listen_host", settings.controller.listen)
    CONF.set_default("ofp_tcp_listen_port", settings.controller.port)
    CONF.set_default("ofp_ssl_listen_port", settings.controller.port)
    if files := settings.tls.files():
        make_context(files)
        for option, path in zip(("ctl_cert", "ctl_privkey", "ca_certs"), files, strict=False):
            CONF.set_default(option, path)
    if CONF.ctl_cert is None and settings.tls.open_door(CONF.ofp_listen_host) and not settings.tls.insecure:
        raise SettingsError(f"controller.listen = {CONF.ofp_listen_host!r}: {NO_TLS}")
    return settings


def _moved_settings(path: Path) -> Iterator[str]:
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path)
    except ParseError as error:
        yield f"{path}: {error}"
        return
    names = set(parser[GROUP]) - {"settings"} - set(parser.defaults()) if parser.has_section(GROUP) else ()
    for name in sorted(names):
        place, _, new = MOVED.get(name, "").rpartition(".")
        mend = f"write {new} in [{place}] of forepath.toml" if new else "is no setting; here stands settings = FILE"
        yield f"{path}: [{GROUP}] {name}: {mend}"
