"""The one settings file: what is declared about the network and the machines, and how forepath shall behave."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cpdb import DEFAULT_URL, NodeKind, SettingsError

DEFAULT_FILE = Path("forepath.toml")
SECRET_KEY = re.compile("pass|secret|token", re.IGNORECASE)
# Between scheme:// and the last @ of one word, and in a URL's parameters
URL_USER = re.compile(r"(\w://)[^\s'\"]*@")
URL_PASSWORD = re.compile(r"(pass\w*=)[^&\s'\"]*", re.IGNORECASE)
MAC = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"
IPV4 = r"^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$"
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.:-]+$")]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
NAMED = ("node", "virtual_ip", "host", "vm")


class Section(BaseModel):
    """Base of all sections: an unknown key is an error, not a silent nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Database(Section):
    """Where everything is remembered, and for how long at which resolution."""

    url: str = DEFAULT_URL
    keep_1s_hours: Annotated[float, Field(ge=0.25)] = 1.0
    keep_10s_hours: Annotated[float, Field(ge=0.25)] = 24.0
    keep_1min_days: Annotated[float, Field(ge=0.1)] = 30.0
    keep_forecasts_s: Annotated[float, Field(ge=60)] = 120.0
    keep_scores_hours: Annotated[float, Field(ge=0.25)] = 24.0
    keep_journal_days: Annotated[float, Field(ge=1)] = 90.0

    @field_validator("url")
    @classmethod
    def _sound(cls, url: str) -> str:
        # Cut at the wrong place, a part of the password would be shown as the host.
        if url.count("@") > 1:
            raise ValueError("has more than one @; inside a password write it as %40")
        try:
            urlsplit(url).port  # noqa: B018 - reading it is the check
        except ValueError:
            raise ValueError("has no number as its port; write e.g. postgresql://USER@HOST:5432/NAME") from None
        return url


class Controller(Section):
    """The OpenFlow controller, when `forepath run` starts it."""

    listen: Annotated[str, Field(pattern=IPV4)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 6653
    poll_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0


class Predictor(Section):
    """What is forecast, and from how much history.

    `slow_horizons_s` are those of the lane for slow actions, in cells of `slow_step_s`; none = no such lane.
    """

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    horizons_s: Annotated[tuple[Annotated[int, Field(ge=1, le=600)], ...], Field(min_length=1, max_length=16)] = (
        5,
        15,
        30,
    )
    slow_horizons_s: Annotated[tuple[Annotated[int, Field(ge=10, le=3600)], ...], Field(max_length=16)] = (
        60,
        120,
        300,
        600,
    )
    slow_step_s: Annotated[float, Field(ge=2, le=60)] = 10.0
    slow_history_s: Annotated[float, Field(ge=240)] = 3600.0
    levels: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=32)] = (
        0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99,
    )  # fmt: skip
    history_s: Annotated[float, Field(ge=60)] = 900.0
    refit_every_s: Positive = 30.0


class Orchestrator(Section):
    """How much certainty and room an action needs. Whether it acts at all is said on the command line, with --act.

    `cost_of_short` is what being short costs, in units of what idling costs; it decides which quantile of a forecast
    counts as the need, unless `level` names that quantile itself.
    """

    cycle_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    policy: Literal["predictive", "reactive"] = "predictive"
    cost_of_short: Annotated[float, Field(ge=1, le=1000)] = 9.0
    level: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    margin: Annotated[float, Field(ge=1, le=3)] = 1.15
    link_headroom: Share = 0.92
    host_headroom: Share = 0.92
    lease_s: Annotated[float, Field(ge=2, le=600)] = 8.0
    migration_mbit_per_s: Positive = 1000.0
    migration_over_links: bool = False
    migration_limit_s: Annotated[float, Field(ge=1, le=3600)] = 30.0

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "Orchestrator":
        if self.level is not None and "cost_of_short" in self.model_fields_set:
            raise ValueError("level and cost_of_short say the same in two ways; give one of them")
        return self


class NodeSection(Section):
    """A switch, client or hypervisor with a name of its own."""

    name: Name
    kind: NodeKind
    address: Annotated[str, Field(pattern=IPV4)] | None = None
    mac: Annotated[str, Field(pattern=MAC)] | None = None
    dpid: Annotated[int, Field(ge=1)] | None = None


class LinkSection(Section):
    """A link between two nodes; a switch's port must be given for its capacity to be known to the controller.

    `queue_device` is the interface with which switch `a` sends to `b`: there, a share of capacity can be guaranteed.
    """

    a: Name
    b: Name
    a_port: Annotated[int, Field(ge=0)] = 0
    b_port: Annotated[int, Field(ge=0)] = 0
    capacity_mbit_per_s: Positive
    queue_device: Annotated[str, Field(pattern=r"^[^\s/]{1,15}$")] | None = None
    guaranteed_share: Annotated[float, Field(gt=0, lt=1)] = 0.8

    @model_validator(mode="after")
    def _share_of_a_queue(self) -> "LinkSection":
        if self.queue_device is None and "guaranteed_share" in self.model_fields_set:
            raise ValueError("guaranteed_share needs queue_device, the switch's interface from a towards b")
        return self


class DestinationSection(Section):
    """One of the alternative destinations of a virtual IP. `name` is the VM's name; weight 0 means stand-by."""

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    mac: Annotated[str, Field(pattern=MAC)]
    weight: Annotated[int, Field(ge=0, le=1000)] = 100


class VirtualIPSection(Section):
    """A service address; competitors of lower priority may be limited for the sake of a higher one."""

    name: Name
    address: Annotated[str, Field(pattern=IPV4)]
    priority: int = 0
    tenant: Name | None = None
    destination: Annotated[tuple[DestinationSection, ...], Field(min_length=1)]


class HostSection(Section):
    """A hypervisor host: how to reach its libvirtd, and what it can carry."""

    name: Name
    uri: str
    migration_uri: str | None = None
    cpu_cores: Positive
    memory_mib: Annotated[int, Field(gt=0)]
    cordoned: bool = False


class VmSection(Section):
    """A virtual machine: its rank, and between which limits its CPU may be set."""

    name: Name
    priority: int = 0
    tenant: Name | None = None
    cpu_cores_base: Positive
    cpu_cores_max: Positive
    vcpus_max: Annotated[int, Field(ge=1)] = 1
    movable: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "VmSection":
        if self.cpu_cores_max < self.cpu_cores_base:
            raise ValueError(f"cpu_cores_max {self.cpu_cores_max} is below cpu_cores_base {self.cpu_cores_base}")
        return self


class Settings(Section):
    """Everything, with defaults; tables of the file are named in the singular, like [[link]]."""

    database: Database = Database()
    controller: Controller = Controller()
    predictor: Predictor = Predictor()
    orchestrator: Orchestrator = Orchestrator()
    node: tuple[NodeSection, ...] = ()
    link: tuple[LinkSection, ...] = ()
    virtual_ip: tuple[VirtualIPSection, ...] = ()
    host: tuple[HostSection, ...] = ()
    vm: tuple[VmSection, ...] = ()

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
