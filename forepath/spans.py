"""Spans of time as people write them: 90, 90s, 10m, 1.5h, 2d."""

import re
from typing import Annotated

import typer

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
