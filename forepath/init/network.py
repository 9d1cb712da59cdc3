"""What switches tell, by way of a database: one of a controller that ran here, or one made for the occasion."""

import os
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from cpdb import FILE_VARIABLE, Link, Node, NodeKind, SettingsError, Store, open_store
from forepath.processes import controller_manager

# A destination that fewer sources speak to is nobody's service.
FEWEST_SOURCES = 3
DISCOVERY = "ryu_apps.discovery"


@dataclass(frozen=True, slots=True)
class FoundService:
    """An address that many speak to."""

    address: str
    sources: int


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """Switches, the hosts behind their ports, links between all of them, and what looks like a service."""

    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    services: tuple[FoundService, ...] = ()

    @property
    def switches(self) -> tuple[Node, ...]:
        """Those that have connected."""
        return tuple(one for one in self.nodes if one.kind is NodeKind.SWITCH and one.dpid is not None)


def read_network(store: Store) -> FoundNetwork:
    """What a database holds of it. Raises StoreError."""
    sources: dict[str, set[str]] = defaultdict(set)
    for key in store.facts.flow_keys().values():
        sources[key.virtual_ip].add(key.source)
    many = ((address, len(own)) for address, own in sources.items() if len(own) >= FEWEST_SOURCES)
    services = tuple(FoundService(*one) for one in sorted(many, key=lambda one: (-one[1], one[0])))
    return FoundNetwork(tuple(store.inventory.nodes()), tuple(store.inventory.links()), services)


def look_at_switches(listen: str, port: int, wait_s: float, say: Callable[[str], None]) -> FoundNetwork:
    """Lets switches connect for so long to a program that sends no rules, and reads what it found.

    Raises SettingsError when it cannot listen there.
    """
    manager = controller_manager()
    if manager is None:
        raise SettingsError("ryu-manager is not installed beside this Python; run make setup")
    folder = Path(tempfile.mkdtemp(prefix="forepath-init-"))
    try:
        url, file = f"sqlite:///{folder}/found.db", folder / "found.toml"
        told = {
            "database": {"url": url},
            "controller": {"listen": listen, "port": port},
            "metrics": {"port": 0},
            # It sends no rules, and only looks at what a person asked to be seen.
            "tls": {"insecure": True},
        }
        file.write_text(tomli_w.dumps(told), encoding="utf-8")
        open_store(url).close()
        _listen(manager, file, wait_s, say)
        store = open_store(url, create=False)
        try:
            return read_network(store)
        finally:
            store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(manager: str, file: Path, wait_s: float, say: Callable[[str], None]) -> None:
    with (file.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            (manager, DISCOVERY),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, FILE_VARIABLE: str(file)},
        )
        try:
            say(f"waiting {wait_s:g} s for switches to connect")
            until = time.monotonic() + wait_s
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.2)
            ended = process.poll()
        finally:
            process.kill()
            process.wait()
    if ended is not None:
        lines = (file.parent / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SettingsError(f"--listen: {lines[-1] if lines else 'it ended'}")
