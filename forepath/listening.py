"""Where the page is served: read, checked before anything listens, and told to people."""

import ipaddress
import socket

from cpdb import SettingsError


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises SettingsError."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"listen {listen!r}: write HOST:PORT, e.g. 127.0.0.1:8080")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def page_url(listen: str, words: str = "") -> str:
    """Where a browser finds the page; an address of every interface is named as this machine."""
    host, port = split_listen(listen)
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/{words}"


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
