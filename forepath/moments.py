"""The moment that a reading command looks at: the present, or a past one that the database still holds."""

import re
import time
from datetime import datetime, timedelta
from math import inf
from typing import Annotated

import typer

from cpdb import SettingsError, Store
from forepath.output import seconds

LAST = "last"
CLOCK = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?")
MomentOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="MOMENT",
        help="As it was then: 2026-11-28T03:00, 03:00, -10m, or last: what was measured last",
        show_default="now",
    ),
]


def moment(text: str | None, store: Store) -> float:
    """Unix seconds of the moment that `text` names; None is the present.

    A date and time (ISO 8601; without a zone, local time), a time of day (the last such), -SPAN, or "last". Raises
    BadParameter (exit code 2), and SettingsError for "last" where nothing was measured.
    """
    now = time.time()
    if text is None:
        return now
    if text == LAST:
        newest = store.series.newest(inf)
        if newest is None:
            raise SettingsError("--at last: nothing was measured so far; is the controller running?")
        return newest
    found = read_past(text.strip(), now)
    if found is None or not 0 <= found <= now:
        problem = "is no moment" if found is None else "is not in the past"
        raise typer.BadParameter(f"{text!r} {problem}; write e.g. 2026-11-28T03:00, 03:00, -10m or {LAST}")
    return found


def read_past(text: str, now: float) -> float | None:
    """Unix seconds of a date and time, a time of day or -SPAN; None when the text is none. Raises BadParameter."""
    if text.startswith("-"):
        return now - seconds(text[1:])
    try:
        if CLOCK.fullmatch(text):
            today = datetime.fromisoformat(f"{datetime.fromtimestamp(now).date()}T{text}")
            return (today if today.timestamp() <= now else today - timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def shown(t: float) -> str:
    """A moment for people, in local time."""
    return f"{datetime.fromtimestamp(t):%Y-%m-%d %H:%M:%S}"
