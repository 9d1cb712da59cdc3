"""`python -m tools.command_page`: writes into docs/commands.md what the commands say of themselves."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from forepath.cli import app
from tools.monitoring import with_part

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
# What every command takes is told once.
EVERYWHERE = ("settings", "json")
Command = Callable[..., Any]


class CommandWord(NamedTuple):
    """One parameter as it is typed: its words, its value ("" for a flag), its help, and its default for people."""

    words: str
    value: str
    help: str
    default: str
    argument: bool
    required: bool


def commands(group: typer.Typer = app, name: str = "forepath") -> Iterator[tuple[str, Command]]:
    """Every command that does something, with its whole name, in the order of the command line's own help."""
    for one in group.registered_commands:
        if one.callback is not None:
            yield f"{name} {one.name or one.callback.__name__.replace('_', '-')}", one.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            own = inner.name if isinstance(inner.name, str) else inner.typer_instance.info.name
            yield from commands(inner.typer_instance, f"{name} {own}")


def parameters(command: Command) -> Iterator[CommandWord]:
    """What a command takes besides what all take."""
    hints = get_type_hints(command, include_extras=True)
    for name, given in inspect.signature(command).parameters.items():
        if name in EVERYWHERE or get_origin(hints[name]) is not Annotated:
            continue
        kind, info = get_args(hints[name])[:2]
        argument, required = isinstance(info, ArgumentInfo), given.default is inspect.Parameter.empty
        # Within Annotated, the library takes the first name for a default.
        decls = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
        words = (info.metavar or name.upper()) if argument else ", ".join(decls or [f"--{name.replace('_', '-')}"])
        shown = info.show_default if isinstance(info.show_default, str) else given.default
        unsaid = required or shown in (None, False, "", ()) or (argument and shown is None)
        default = "" if unsaid else str(shown.value if isinstance(shown, Enum) else shown)
        yield CommandWord(words, "" if argument else _value(kind, info), info.help or "", default, argument, required)


def _value(kind: Any, info: Any) -> str:
    kinds = [one for one in get_args(kind) or (kind,) if one is not NoneType]
    if info.metavar or kinds == [bool]:
        return str(info.metavar or "")
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if isinstance(kinds[0], type) and issubclass(kinds[0], Enum):
        return "|".join(one.value for one in kinds[0])
    return {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}.get(kinds[0].__name__, "TEXT")


def told(command: Command) -> list[str]:
    """Paragraphs of its help but for the examples, each in one line."""
    text = re.split(r"\bExamples?:", inspect.getdoc(command) or "")[0]
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def overview() -> str:
    """A table of all commands, each with the sentence that it begins its help with."""
    rows = [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(told(one)[0])} |" for name, one in commands()]
    return "\n".join(["| command | |", "|---|---|", *rows]) + "\n"


def reference() -> str:
    """What each command says and takes, one after the other."""
    return "\n".join(line for name, one in commands() for line in _section(name, one))


def _section(name: str, command: Command) -> Iterator[str]:
    taken = list(parameters(command))
    usage = [_used(one) for one in taken if one.argument or one.required]
    yield f"### {name}\n\n    {' '.join([name, *usage])}\n"
    yield from (f"{part}\n" for part in told(command))
    for one in taken:
        default = f" (default: {one.default})" if one.default else ""
        yield f"* `{f'{one.words} {one.value}'.rstrip()}`: {one.help}{default}"
    if taken:
        yield ""


def _used(one: CommandWord) -> str:
    words = f"{one.words} {one.value}".rstrip()
    return words if one.required else f"[{words}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page_text(before: str) -> str:
    """The page with both parts as they are now."""
    return with_part(with_part(before, "overview", overview()), "reference", reference())


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
