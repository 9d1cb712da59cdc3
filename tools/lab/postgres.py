"""A PostgreSQL server of one's own on loopback, that can crash and come back."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """Everything of it is below `home`; `options` are for the server's command line."""

    home: Path
    port: int
    options: str = ""

    @property
    def url(self) -> str:
        """URL of the superuser's database."""
        return f"postgresql://forepath@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.home} {self.options}"
        self.run("pg_ctl", "-D", self.home / "data", "-w", "-l", self.home / "log", "-o", options, "start")

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        self.run("pg_ctl", "-D", self.home / "data", "-w", "-m", "immediate", "stop")

    def run(self, program: str, *words: object) -> None:
        """Runs one of its programs. Raises RuntimeError where there are none."""
        programs = _programs()
        if programs is None:
            raise RuntimeError(why_not())
        argv = [str(programs / program), *map(str, words)]
        if os.geteuid() == 0:
            # It refuses to run as root.
            argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120)


@contextmanager
def private_postgres(options: str = "-c fsync=off") -> Iterator[PostgresServer]:
    """A running, empty server, gone afterwards. Raises RuntimeError when none can be started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="forepath-postgres-")), port, options)
    try:
        if os.geteuid() == 0:
            shutil.chown(server.home, "postgres")
        server.run("initdb", "-D", server.home / "data", "-U", "forepath", "--auth=trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(server.home, ignore_errors=True)
