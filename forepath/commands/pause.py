"""The kill switch: pause and resume. What they set is in the database and counts on every machine that uses it."""

import getpass
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from cpdb import Pause, open_store
from forepath.output import JsonOption, SettingsOption, ago, console, emit, seconds, span
from forepath.settings import Settings, load_settings

LONGEST_NAME = 128


def pause(
    lasting: Annotated[
        float | None, typer.Option("--for", metavar="SPAN", parser=seconds, help="End by itself, e.g. after 10m")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to whoever asks")] = "",
    settings: SettingsOption = None,
    json: JsonOption = None,
) -> None:
    """Let no orchestrator start anything, on any machine with this database, until `forepath resume`.

    It goes on planning and advising; leases that are held run out by themselves; what is under way ends. Examples:
        forepath pause
        forepath pause --for 10m --reason "changing cables"
    """
    store = open_store(load_settings(settings).database.url, create=False)
    now = time.time()
    before = store.pauses.in_force(now)
    made = Pause(now, who(), reason, None if lasting is None else now + lasting)
    store.pauses.pause(made)
    held = store.wanted.reservations(now)
    store.close()
    if emit({"paused": asdict(made), "before": asdict(before) if before else None, "reservations": len(held)}, json):
        return
    _say(told(made, now))
    if before:
        _say(f"in place of: {_begun(before, now)}")
    if held:
        last_s = max(one.expires_at for one in held) - now
        _say(f"reservations still held: {len(held)}; unless renewed by hand the last ends in {span(last_s)}")


def resume(settings: SettingsOption = None, json: JsonOption = None) -> None:
    """Lift the pause: orchestrators that were started with --act act again from their next cycle on.

    Examples:
        forepath resume
        forepath resume --json -
    """
    effective = load_settings(settings)
    store, stopped = open_store(effective.database.url, create=False), stop_file(effective)
    now = time.time()
    lifted = store.pauses.resume(now, who())
    store.close()
    if emit({"resumed": asdict(lifted) if lifted else None, "stop_file": stopped}, json):
        return
    _say(f"resumed; it was {_begun(lifted, now)}" if lifted else "nothing was paused")
    if stopped:
        _say(f"but {stopped} stops an orchestrator that runs in this folder; remove that file to go on")


def told(item: Pause, now: float) -> str:
    """A pause for people: since when, by whom, why, until when."""
    end = "until forepath resume" if item.ends_at is None else f"ends in {span(max(0.0, item.ends_at - now))}"
    return f"{_begun(item, now)}, {end}"


def _begun(item: Pause, now: float) -> str:
    why = f" ({item.reason})" if item.reason else ""
    return f"paused {ago(now, item.paused_at)} by {item.paused_by}{why}"


def pause_warnings(item: Pause | None, stopped: str | None, now: float) -> Iterator[str]:
    """What keeps the orchestrator from acting, a line each; `stopped` is the file that does."""
    if item is not None:
        yield f"{told(item, now)}: nothing is started"
    if stopped:
        yield f"stopped by {stopped} in this folder; remove that file to go on"


def stop_file(settings: Settings) -> str | None:
    """The file that stops an orchestrator of this folder, if it is there."""
    file = settings.orchestrator.guard.stop_file
    return str(file) if file is not None and file.exists() else None


def who() -> str:
    """The person at the keyboard, also behind sudo, and the machine: name@host."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return f"{name}@{socket.gethostname()}"[:LONGEST_NAME]


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
