"""A PostgreSQL server of a test's own that can be stopped and started again."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@dataclass
class Server:
    """Listens on loopback; everything is below `home`."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        """URL of the superuser's database."""
        return f"postgresql://forepath@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.home} -c fsync=off"
        self._run("pg_ctl", "-D", self.home / "data", "-w", "-l", self.home / "log", "-o", options, "start")

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        self._run("pg_ctl", "-D", self.home / "data", "-w", "-m", "immediate", "stop")

    def make(self) -> None:
        """An empty cluster."""
        self._run("initdb", "-D", self.home / "data", "-U", "forepath", "--auth=trust", "--no-sync")

    def _run(self, program: str, *arguments: object) -> None:
        argv = [str(PROGRAMS[-1].with_name(program)), *map(str, arguments)]
        if os.geteuid() == 0:
            # It refuses to run as root.
            argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120)


@contextmanager
def postgres() -> Iterator[Server]:
    """A running server, gone afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Server(Path(mkdtemp(prefix="forepath-postgres-")), port)
    try:
        if os.geteuid() == 0:
            shutil.chown(server.home, "postgres")
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(server.home, ignore_errors=True)
