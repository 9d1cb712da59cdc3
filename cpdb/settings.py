"""How every process reads its part of the one settings file: a class a table, all problems at once, a line each."""

import codecs
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from cpdb.engine import spread_hosts
from cpdb.errors import SettingsError
from cpdb.telemetry.retention import RetentionPolicy

DEFAULT_URL = "sqlite:///forepath.db"
DEFAULT_FILE = Path("forepath.toml")
FILE_VARIABLE = "FOREPATH_SETTINGS"
URL_VARIABLE = "FOREPATH_DATABASE_URL"
# All tables of the file. A process that owns only some of them leaves the others to those who do.
BEHAVIOUR = ("database", "controller", "predictor", "orchestrator", "routing", "web", "metrics", "tls")
TABLES = (*BEHAVIOUR, "node", "link", "virtual_ip", "host", "vm", "pool", "tenant")
HOUR_S, DAY_S = 3600.0, 86_400.0
SECRET_KEY = re.compile("pass|secret|token", re.IGNORECASE)
# Between scheme:// and the last @ of one word, and in a URL's parameters
URL_USER = re.compile(r"(\w://)[^\s'\"]*@")
URL_PASSWORD = re.compile(r"(pass\w*=)[^&\s'\"]*", re.IGNORECASE)
# What the library says of types means Python's; people write TOML.
WORDS = {
    "tuple_type": "must be a list, e.g. [1, 2]",
    "list_type": "must be a list, e.g. [1, 2]",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "string_type": 'must be text in quotes, e.g. "text"',
    "finite_number": "must be a finite number",
    "path_type": "must be a path in quotes",
}
NUMBERS = {"int": "must be a whole number", "float": "must be a number", "bool": "must be true or false"}


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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
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
    keep_past_forecasts_hours: Annotated[float, Field(ge=0)] = 48.0
    keep_past_forecasts_mb: Annotated[float, Field(ge=0)] = 1000.0
    keep_scores_hours: Annotated[float, Field(ge=0.25)] = 24.0
    keep_journal_days: Annotated[float, Field(ge=1)] = 90.0

    def retention_policy(self) -> RetentionPolicy:
        """How long what is remembered."""
        return RetentionPolicy(
            second_s=self.keep_1s_hours * HOUR_S,
            ten_seconds_s=self.keep_10s_hours * HOUR_S,
            minute_s=self.keep_1min_days * DAY_S,
            forecasts_s=self.keep_forecasts_s,
            past_forecasts_s=self.keep_past_forecasts_hours * HOUR_S,
            past_forecasts_bytes=self.keep_past_forecasts_mb * 1e6,
            scores_s=self.keep_scores_hours * HOUR_S,
            journal_s=self.keep_journal_days * DAY_S,
        )

    @field_validator("url")
    @classmethod
    def _sound(cls, url: str) -> str:
        # Cut at the wrong place, a part of the password would be shown as the host.
        if url.count("@") > 1:
            raise ValueError("has more than one @; inside a password write it as %40")
        url = spread_hosts(url)
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
        lines = list(_problem_lines(error, tree, own))
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
        return tomllib.loads(_text(path.read_bytes()))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name an existing file with --settings") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def _text(content: bytes) -> str:
    """What a file says; some editors put a byte order mark before it. Raises ValueError."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:2]:
        raise ValueError("the file is in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in UTF-8; save the file as UTF-8") from None


def _problem_lines(error: ValidationError, tree: type[Section], content: Mapping[str, Any]) -> Iterator[str]:
    items = [dict(item) for item in error.errors()]
    for item in items:
        if not _follows(item, items):
            for line in _problem_line(item, tree, content).splitlines():
                yield without_password(line)


def _follows(item: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether a table is 'too short' only because its entries are wrong, which is told of each entry already."""
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == item["loc"] for other in items
    )


def _problem_line(item: dict[str, Any], tree: type[Section], content: Mapping[str, Any]) -> str:
    where = place_of(item["loc"], content) or "file"
    if item["type"] == "extra_forbidden":
        section = _section_at(item["loc"][:-1], tree)
        value = "***" if SECRET_KEY.search(str(item["loc"][-1])) else repr(item["input"])
        if new := section.RENAMED.get(str(item["loc"][-1])):
            return f"{where} = {value}: has a new name; write {new}"
        return f"{where} = {value}: no such setting; known here: {', '.join(section.model_fields)}"
    if item["type"] == "missing":
        return f"{where}: is missing; add it, `forepath check` shows every setting"
    if item["type"] == "value_error":
        return "\n".join(f"{where}: {line}" for line in str(item["ctx"]["error"]).splitlines())
    if item["type"] == "tuple_type" and tree.model_fields.keys() >= {*item["loc"]} and item["loc"][0] in TABLES:
        return f"{where}: must be declared in a table of its own for each: write [[{where}]]"
    return f"{where} = {item['input']!r}: {in_words(item)}"


def in_words(item: Mapping[str, Any]) -> str:
    """What one error of the library says, for who writes the file."""
    kind, _, how = str(item["type"]).partition("_")
    if how in ("type", "parsing", "from_float") and kind in NUMBERS:
        return NUMBERS[kind]
    said = re.sub(r"^(Input|Value) should", "must", str(item["msg"]))
    return WORDS.get(item["type"], re.sub(r"^(String|Tuple|List) should", "must", said))


def place_of(location: Sequence[str | int], content: Any) -> str:
    """Where in the file something stands: an entry of a table by its name, where it has one, else by its number."""
    where = join = ""
    for part in location:
        content = _within(content, part)
        if isinstance(part, str):
            where, join = f"{where}{join}{part}", "."
            continue
        join = ": "
        if isinstance(content, Mapping) and isinstance(content.get("name"), str):
            where += f" {content['name']!r}"
        elif isinstance(content, Mapping) and {"a", "b"} <= content.keys():
            where += f" {content['a']}>{content['b']}"
        else:
            where += f" no. {part + 1}"
    return where


def _within(content: Any, part: str | int) -> Any:
    try:
        return content[part]
    except (KeyError, IndexError, TypeError):
        return None


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
