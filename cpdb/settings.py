"""How every process reads its part of the one settings file: a class a table, all problems at once, a line each."""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from cpdb.errors import SettingsError
from cpdb.telemetry.retention import RetentionPolicy

DEFAULT_URL = "sqlite:///forepath.db"
DEFAULT_FILE = Path("forepath.toml")
FILE_VARIABLE = "FOREPATH_SETTINGS"
URL_VARIABLE = "FOREPATH_DATABASE_URL"
# All tables of the file. A process that owns only some of them leaves the others to those who do.
BEHAVIOUR = ("database", "controller", "predictor", "orchestrator", "routing")
TABLES = (*BEHAVIOUR, "node", "link", "virtual_ip", "host", "vm", "pool", "tenant")
IPV4 = r"^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$"
HOUR_S, DAY_S = 3600.0, 86_400.0
SECRET_KEY = re.compile("pass|secret|token", re.IGNORECASE)
# Between scheme:// and the last @ of one word, and in a URL's parameters
URL_USER = re.compile(r"(\w://)[^\s'\"]*@")
URL_PASSWORD = re.compile(r"(pass\w*=)[^&\s'\"]*", re.IGNORECASE)


def _check_share(value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"{value} is not a share between 0 and 1, e.g. 0.9")
    return value


def _check_positive(value: float) -> float:
    if not value > 0:
        raise ValueError(f"{value} must be above 0, e.g. 5")
    return value


def _check_not_negative(value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{value} must be 0 or more, e.g. 5")
    return value


ShareOf1 = Annotated[float, AfterValidator(_check_share)]
AboveZero = Annotated[float, AfterValidator(_check_positive)]
NotNegative = Annotated[float, AfterValidator(_check_not_negative)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all tables: an unknown name is an error, not a silent nothing.

    `RENAMED` holds the names that settings of this table had before, each with its new place in the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    RENAMED: ClassVar[Mapping[str, str]] = {}

    def tuned(self, **changes: Any) -> Self:
        """With some settings changed, e.g. `tuned(act=True, cpu={"headroom": 0.8})`, and checked again.

        Raises pydantic's ValidationError, a ValueError.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set}
        for name, change in changes.items():
            section = getattr(self, name, None)
            nested = isinstance(section, Section) and isinstance(change, Mapping)
            values[name] = section.tuned(**change) if isinstance(section, Section) and nested else change
        return type(self)(**values)


Tree = TypeVar("Tree", bound=Section)


class DatabaseSection(Section):
    """Where everything is remembered, and for how long at which resolution."""

    url: str = DEFAULT_URL
    keep_1s_hours: Annotated[float, Field(ge=0.25)] = 1.0
    keep_10s_hours: Annotated[float, Field(ge=0.25)] = 24.0
    keep_1min_days: Annotated[float, Field(ge=0.1)] = 30.0
    keep_forecasts_s: Annotated[float, Field(ge=60)] = 120.0
    keep_scores_hours: Annotated[float, Field(ge=0.25)] = 24.0
    keep_journal_days: Annotated[float, Field(ge=1)] = 90.0

    def retention_policy(self) -> RetentionPolicy:
        """How long what is remembered."""
        return RetentionPolicy(
            second_s=self.keep_1s_hours * HOUR_S,
            ten_seconds_s=self.keep_10s_hours * HOUR_S,
            minute_s=self.keep_1min_days * DAY_S,
            forecasts_s=self.keep_forecasts_s,
            scores_s=self.keep_scores_hours * HOUR_S,
            journal_s=self.keep_journal_days * DAY_S,
        )

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


def read_settings(
    path: Path | None, tree: type[Tree], also: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: ()
) -> Tree:
    """The tables of the settings file that `tree` has; without a path `forepath.toml`, if it is there, else defaults.

    `FOREPATH_DATABASE_URL` comes before the file's `database.url`. `also` finds what only the whole file tells.
    Raises SettingsError with one line for each problem, all at once.
    """
    content = read_tables(path)
    where: str | Path = path or (DEFAULT_FILE if content else "settings")
    own = {name: value for name, value in content.items() if name in tree.model_fields or name not in TABLES}
    if url := os.environ.get(URL_VARIABLE):
        where = where if content else URL_VARIABLE
        database = own.get("database", {})
        own["database"] = {**database, "url": url} if isinstance(database, dict) else database
    try:
        return tree.model_validate(own)
    except ValidationError as error:
        lines = list(_problem_lines(error, tree))
        if all(item["loc"] for item in error.errors()):
            # Single values come first; what concerns the whole file was not looked at yet.
            lines += [f"file: {line}" for line in also(content)]
        raise SettingsError("\n".join(f"{where}: {line}" for line in lines)) from error


def without_password(text: str) -> str:
    """The text with user and password of every URL in it replaced by ***."""
    return URL_PASSWORD.sub(r"\1***", URL_USER.sub(r"\1***@", text))


def read_tables(path: Path | None) -> dict[str, Any]:
    """What the settings file says, unchecked; nothing where no file is named and `forepath.toml` is not there.

    Raises SettingsError when it cannot be read or is no TOML.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return {}
        path = DEFAULT_FILE
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name an existing file with --settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def _problem_lines(error: ValidationError, tree: type[Section]) -> Iterator[str]:
    items = [dict(item) for item in error.errors()]
    for item in items:
        if not _follows(item, items):
            yield without_password(_problem_line(item, tree))


def _follows(item: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether a table is 'too short' only because its entries are wrong, which is told of each entry already."""
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == item["loc"] for other in items
    )


def _problem_line(item: dict[str, Any], tree: type[Section]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "file"
    if item["type"] == "extra_forbidden":
        section = _section_at(item["loc"][:-1], tree)
        value = "***" if SECRET_KEY.search(str(item["loc"][-1])) else repr(item["input"])
        if new := section.RENAMED.get(str(item["loc"][-1])):
            return f"{where} = {value}: has a new name; write {new}"
        return f"{where} = {value}: no such setting; known here: {', '.join(section.model_fields)}"
    if item["type"] == "missing":
        return f"{where}: is missing; add it, `forepath check` shows every setting"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    return f"{where} = {item['input']!r}: {item['msg']}"


def _section_at(location: tuple[Any, ...], tree: type[Section]) -> type[Section]:
    section: Any = tree
    for part in location:
        if isinstance(part, str):
            section = section_of(section.model_fields[part].annotation)
    declared: type[Section] = section
    return declared


def section_of(annotation: Any) -> Any:
    """The class of a table, or of the entries of a table that may be repeated."""
    while getattr(annotation, "__args__", None):
        annotation = annotation.__args__[0]
    return annotation
