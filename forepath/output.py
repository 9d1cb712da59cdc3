"""How commands speak and are spoken to: tables for people, one JSON document for programs, spans of time."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpdb import FILE_VARIABLE, ForepathError, show_rate

# Where nobody's terminal sets the width (a file, a pipe), lines may be long enough for a whole table row.
WIDTH_WITHOUT_TERMINAL = 150


def printable(text: str) -> str:
    """The text without characters that would move a terminal's cursor, or hide what else is said: told by number.

    Names come from switches, guests, files and the network; who made them up may not be a friend.
    """
    return "".join(one if one.isprintable() or one in "\n\t" else f"\\x{ord(one):02x}" for one in text)


class PlainConsole(Console):
    """A console on which no text of others is more than text."""

    def print(self, *objects: Any, **how: Any) -> None:
        """As rich does it, texts made printable."""
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **how)


console = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
errors = PlainConsole(stderr=True)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SETTINGS = 3
EXIT_STORE = 4
EXIT_IMPOSSIBLE = 5
EXIT_INTERRUPTED = 130

EXIT_CODES = """
Exit codes: 0 done; 1 it failed, the last line says why; 2 wrong arguments; 3 wrong settings, or what was
named is not there (any more); 4 the database is unreachable or outdated; 5 cannot be had on this machine;
130 interrupted.
"""

SettingsOption = Annotated[
    Path | None, typer.Option("--settings", "-c", envvar=FILE_VARIABLE, help="Settings file [default: forepath.toml]")
]


def writable(target: str | None) -> str | None:
    """Checks a path that is to be written; the callback of options that name one. Raises BadParameter (exit code 2)."""
    # Before the work, not after it: a demo's figures must not be lost to a wrong path.
    if target not in (None, "-"):
        folder = Path(target).parent
        if Path(target).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise typer.BadParameter(f"{target} cannot be written; name a file in an existing folder, or -")
    return target


JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="PATH|-", help="Write one JSON document to a file, or - for stdout", callback=writable
    ),
]


def emit(payload: dict[str, Any], target: str | None) -> bool:
    """Writes `payload` as JSON to `target`; False when no target was given and a person should be shown a table.

    Raises ForepathError when the file cannot be written.
    """
    if target is None:
        return False
    text = json.dumps(finite(payload), indent=2, default=str)
    if target == "-":
        sys.stdout.write(text + "\n")
    else:
        try:
            Path(target).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ForepathError(f"--json {target}: {error.strerror}; name a file that can be written, or -") from error
    return True


def finite(value: Any) -> Any:
    """The same for JSON, which has no NaN and no infinity: what is not known is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, texts: Sequence[int] | None = None
) -> Table:
    """A table whose first `left` columns (or those numbered in `texts`) are text and whose others are numbers."""
    texts = range(left) if texts is None else texts
    result = Table(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    for number, name in enumerate(columns):
        result.add_column(name, justify="left" if number in texts else "right", overflow="fold")
    for row in rows:
        # Names may hold brackets, which are no markup there.
        result.add_row(*(Text(printable(cell)) for cell in row))
    return result


def on_one_line(columns: Sequence[str], rows: Sequence[Sequence[str]], column: int, width: int) -> list[list[str]]:
    """The rows with one column cut, so that each takes one line of a table that is `width` characters wide."""
    room = max(12, width - _needed(columns, rows) + max(len(row[column]) for row in (columns, *rows)))
    return [
        [f"{cell[: room - 1].rstrip()}…" if at == column and len(cell) > room else cell for at, cell in enumerate(row)]
        for row in rows
    ]


WideOption = Annotated[bool, typer.Option("--wide", help="All columns and whole texts, however long the lines")]
GAP = 3


class TableLayout(NamedTuple):
    """Which columns hold text, and which go first where the terminal is narrow; `wide`: none, and nothing is cut."""

    texts: tuple[str, ...]
    spare: tuple[str, ...] = ()
    wide: bool = False


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], layout: TableLayout) -> None:
    """Prints a table with one line a row; what does not fit is left out, and it is said."""
    columns, cells, left_out = list(columns), [list(row) for row in rows], list[str]()
    for name in () if layout.wide else layout.spare:
        if _needed(columns, cells) > console.width and name in columns:
            at = columns.index(name)
            left_out.append(columns.pop(at))
            cells = [row[:at] + row[at + 1 :] for row in cells]
    texts = [at for at, name in enumerate(columns) if name in layout.texts]
    if layout.wide:
        # As long as need be: a terminal folds lines, a table would fold cells.
        long = PlainConsole(width=max(console.width, _needed(columns, cells)))
        long.print(table(title, columns, cells, texts=texts))
        return
    for at in sorted(texts, key=lambda at: -max((len(row[at]) for row in cells), default=0)):
        cells = on_one_line(columns, cells, at, console.width)
    console.print(table(title, columns, cells, texts=texts))
    if left_out:
        console.print(f"left out: {', '.join(left_out)}; --wide shows all", markup=False, highlight=False)


def _needed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters of a line that holds every cell whole."""
    return sum(max(len(row[at]) for row in (columns, *rows)) + GAP for at in range(len(columns))) - GAP


def rate(bytes_per_s: float | None) -> str:
    """A rate as people in networking read it: Mbit/s."""
    return "-" if bytes_per_s is None else show_rate(bytes_per_s, 2)


def ago(now: float, then: float | None) -> str:
    """How long ago, in a few letters."""
    if then is None:
        return "never"
    seconds = max(now - then, 0.0)
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"


SPAN = re.compile(r"\+?(\d+(?:\.\d+)?|\.\d+)\s*(s|m|min|h|d)?", re.IGNORECASE)
UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str | float) -> float:
    """Seconds of a span above 0; without a unit, or as a number, it is seconds. Raises BadParameter (exit code 2)."""
    if isinstance(text, float):
        return text
    found = SPAN.fullmatch(text.strip())
    value = float(found[1]) * UNITS_S[(found[2] or "s").lower()] if found else 0.0
    if value <= 0:
        raise typer.BadParameter(f"{text!r} is no span of time; write e.g. 90s, 10m, 1.5h or 2d")
    return value


def span(seconds: float) -> str:
    """A span in a few letters, e.g. 45 s, 10 min, 3 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


SinceOption = Annotated[
    float, typer.Option("--since", metavar="SPAN", parser=seconds, show_default="1h", help="How far back, e.g. 10m")
]
