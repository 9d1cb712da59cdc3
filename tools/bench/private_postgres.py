"""A PostgreSQL server of one's own for the length of a block: on loopback, in a folder that is removed afterwards."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql")


def why_not() -> str | None:
    """Why no server can be started here, in one line; None when one can."""
    if _programs() is None:
        return f"no PostgreSQL server programs below {PROGRAMS}; deploy/system-packages.sh installs them"
    return None


def _programs() -> Path | None:
    found = sorted(PROGRAMS.glob("*/bin/postgres"))
    return found[-1].parent if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_postgres(argv: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root.
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv] if os.geteuid() == 0 else argv


@contextmanager
def private_postgres(options: str = "") -> Iterator[str]:
    """URL of an empty server's superuser database. Raises RuntimeError when none can be started."""
    programs = _programs()
    if programs is None:
        raise RuntimeError(why_not())
    home = Path(tempfile.mkdtemp(prefix="forepath-postgres-"))
    port = _free_port()
    try:
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        data = home / "data"
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "forepath", "--auth=trust", "--no-sync"]
        subprocess.run(_as_postgres(initdb), check=True, capture_output=True, cwd="/", timeout=120)
        network = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} {options}"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
        start = [*control, "-l", str(home / "log"), "-o", network, "start"]
        subprocess.run(_as_postgres(start), check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120)
        try:
            yield f"postgresql://forepath@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(_as_postgres(stop), check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)
    finally:
        shutil.rmtree(home, ignore_errors=True)
