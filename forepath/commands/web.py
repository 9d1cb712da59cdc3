"""The command that serves the page and the API."""

from typing import Annotated

import typer

from forepath.output import SettingsOption, console
from forepath.settings import load_settings


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
    from forepath.web import serve, split_listen

    effective = load_settings(settings)
    listen = listen or effective.web.listen
    host, port = split_listen(listen)
    shown = f"[{host}]" if ":" in host else host
    console.print(f"the page: http://{shown}:{port}/ (Ctrl-C ends)", markup=False, highlight=False, soft_wrap=True)
    serve(effective, listen)
