"""The command that serves the page and the API."""

import time
from typing import Annotated

import typer

from cpdb import StoreError, open_store
from forepath.listening import listen_at, page_files, page_url
from forepath.moments import LAST
from forepath.output import SettingsOption, console
from forepath.settings import load_settings

# The newest sample is so old: nobody is measuring, it is a recording.
RECORDING_S = 60.0


def web(
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to serve", show_default="settings")
    ] = None,
    settings: SettingsOption = None,
) -> None:
    """Show everything in a browser: the network as it will be, each pair, link and machine, the journal. Read-only.

    Ends with Ctrl-C. Examples:
        forepath web
        forepath web --settings .run/demo/forepath.toml --listen 127.0.0.1:9000
    """
    # What draws and serves is not loaded for the sake of other commands.
    from forepath.web import serve

    effective = load_settings(settings)
    listen = listen or effective.web.listen
    files, listening = page_files(effective, listen), listen_at(listen)
    words = f"?at={LAST}" if _is_recording(effective.database.url) else ""
    told = f"{'the recording' if words else 'the page'}: {page_url(listen, words, files is not None)} (Ctrl-C ends)"
    console.print(told, markup=False, highlight=False, soft_wrap=True)
    serve(effective, listening, files)


def _is_recording(url: str) -> bool:
    try:
        store = open_store(url, create=False, read_only=True)
        newest = store.series.newest(time.time())
        store.close()
    except StoreError:
        # The page says so, and goes on asking.
        return False
    return newest is not None and time.time() - newest > RECORDING_S
