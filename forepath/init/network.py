"""What switches tell, by way of a database: one of a controller that ran here, or one made for the occasion."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tomli_w

from cpdb import FILE_VARIABLE, Link, Node, NodeKind, SettingsError, Store, SwitchReport, open_store
from forepath.processes import controller_manager

# A destination that fewer sources speak to is nobody's service.
FEWEST_SOURCES = 3
# Looks and sends no rule; forwards, as `forepath run` will.
DISCOVERY, CONTROLLER = "ryu_apps.discovery", "ryu_apps.controller"


# On a busy machine a program may take so long until it listens.
STARTING_S, LOOK_EVERY_S = 60.0, 0.2


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
    # Switch -> port -> the port's own name
    ports: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

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
    nodes, links = store.inventory.nodes(), store.inventory.links()
    reports = store.wanted.observed_of(SwitchReport)
    own = _own_names(nodes, reports)
    nodes = [
        replace(one, name=own.get(one.name, one.name), attached_to=own.get(one.attached_to or "", one.attached_to))
        for one in nodes
    ]
    links = [replace(one, a=own.get(one.a, one.a), b=own.get(one.b, one.b)) for one in links]
    names = {one.dpid: one.name for one in nodes if one.dpid is not None}
    ports = {names[one.dpid]: one.ports for one in reports if one.dpid in names}
    return FoundNetwork(tuple(nodes), (*links, *_access_links(nodes, links)), services, ports)


def _own_names(nodes: Sequence[Node], reports: Iterable[SwitchReport]) -> dict[str, str]:
    """What switches that nobody named call themselves, where no other node is called so, by what they are called here.

    Many bridges are called alike (`br0`, `br-int`): such a name says nothing.
    """
    own = {one.dpid: one.name for one in reports}
    called = Counter([*own.values(), *(one.name for one in nodes)])
    return {
        one.name: own[one.dpid]
        for one in nodes
        if one.name.startswith("dpid:") and one.dpid in own and called[own[one.dpid]] == 1 and own[one.dpid]
    }


def _access_links(nodes: Sequence[Node], links: Sequence[Link]) -> Iterator[Link]:
    """From a switch to whoever was seen behind its port, where no link says so."""
    joined = {frozenset((one.a, one.b)) for one in links}
    for one in nodes:
        if one.attached_to and one.port and frozenset((one.attached_to, one.name)) not in joined:
            yield Link(one.attached_to, one.port, one.name, 0, None)


@dataclass(frozen=True, slots=True)
class SwitchVisit:
    """Where switches connect, for how long, and whether what is sent is delivered meanwhile; else no rule is sent."""

    listen: str
    port: int
    wait_s: float
    forwards: bool = False


def look_at_switches(visit: SwitchVisit, say: Callable[[str], None]) -> FoundNetwork:
    """Lets switches connect to a program for the occasion, and reads what it found.

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
            "controller": {"listen": visit.listen, "port": visit.port},
            "metrics": {"port": 0},
            # For a while, where a person asked for it; `forepath check` and `forepath run` ask for more.
            "tls": {"insecure": True},
        }
        file.write_text(tomli_w.dumps(told), encoding="utf-8")
        open_store(url).close()
        _listen((manager, CONTROLLER if visit.forwards else DISCOVERY), file, visit, say)
        store = open_store(url, create=False)
        try:
            return read_network(store)
        finally:
            store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(program: Sequence[str], file: Path, visit: SwitchVisit, say: Callable[[str], None]) -> None:
    with (file.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, FILE_VARIABLE: str(file)},
        )
        try:
            until = time.monotonic() + STARTING_S
            while time.monotonic() < until and process.poll() is None and not _is_heard(visit):
                time.sleep(LOOK_EVERY_S)
            say(f"waiting {visit.wait_s:g} s for switches to connect")
            until = time.monotonic() + visit.wait_s
            while time.monotonic() < until and process.poll() is None:
                time.sleep(LOOK_EVERY_S)
            ended = process.poll()
        finally:
            process.kill()
            process.wait()
    if ended is not None:
        lines = (file.parent / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SettingsError(f"--listen: {lines[-1] if lines else 'it ended'}")


def _is_heard(visit: SwitchVisit) -> bool:
    """Whether somebody listens there; a connection that says nothing harms nobody."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(visit.listen, visit.listen)
    try:
        socket.create_connection((host, visit.port), timeout=1.0).close()
    except OSError:
        return False
    return True
