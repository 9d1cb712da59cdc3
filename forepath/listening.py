"""Where the page is served: read, checked before anything listens, and told to people."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from cpdb import SettingsError, is_loopback
from forepath.settings import Settings
from ryu_apps import NO_TLS, TlsFiles


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises SettingsError."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"listen {listen!r}: write HOST:PORT, e.g. 127.0.0.1:8080")
    return host, int(port)


def page_url(listen: str, words: str = "", secure: bool = False) -> str:
    """Where a browser finds the page; an address of every interface is named as this machine."""
    host, port = split_listen(listen)
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http{'s' if secure else ''}://{shown}:{port}/{words}"


def page_files(settings: Settings, listen: str) -> TlsFiles | None:
    """The files to serve the page with; None: plain, which beyond loopback must be allowed. Raises SettingsError.

    With `tls.page = "mutual"` only those who show a certificate of the authority are let in.
    """
    files = settings.tls.files()
    if is_loopback(split_listen(listen)[0]):
        return None
    if files is None and not settings.tls.insecure:
        raise SettingsError(f"web.listen = {listen!r}: {NO_TLS}")
    return files._replace(authority=None, revoked=None) if files and settings.tls.page == "server" else files


def open_doors(settings: Settings) -> Iterator[str]:
    """Where somebody who has no certificate could come in from elsewhere, allowed or not."""
    controller, web = settings.controller, settings.web
    if settings.tls.open_door(controller.listen):
        yield f"controller.listen = {controller.listen!r}: {NO_TLS}"
    plain = settings.tls.certificate is None or settings.tls.page == "server"
    if web.enabled and plain and not is_loopback(split_listen(web.listen)[0]):
        can = "change" if web.token_file or web.token_variable else "see"
        yield (
            f"web.listen = {web.listen!r}: whoever reaches it can {can} everything; serve it by [tls] to those "
            'who have a certificate (page = "mutual"), or listen on 127.0.0.1, or set web.enabled = false'
        )
    if settings.predictor.shards.scheduler and (problem := open_cluster(settings.predictor.shards.scheduler)):
        yield problem


def open_cluster(scheduler: str) -> str | None:
    """Why what workers are told could be read on its way from a Dask scheduler elsewhere; None where it cannot."""
    found = urlsplit(scheduler)
    if found.scheme in ("tls", "wss") or is_loopback(found.hostname or ""):
        return None
    return (
        f"predictor.shards.scheduler = {scheduler!r}: workers are told the database's password in the clear, and "
        "whoever reaches the scheduler can run anything on them; use tls://, or allow it with tls.insecure = true"
    )


def listen_at(listen: str) -> socket.socket:
    """A socket that listens there. Raises SettingsError with what is in the way."""
    host, port = split_listen(listen)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingsError(f"{listen}: {why}; give another --listen HOST:PORT, or [web] listen") from error


def address_problem(listen: str) -> str | None:
    """Why nothing can be served there now, with the mend; None when nothing is in the way."""
    try:
        listen_at(listen).close()
    except SettingsError as error:
        return str(error)
    return None
