"""Writes what was found as a settings file: everything found, guesses marked, and what a person still has to say."""

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpdb import MBIT, Link, Node, NodeKind
from forepath.init.machines import FoundHost, FoundInterface, FoundMachine
from forepath.init.network import FoundNetwork
from forepath.listening import split_listen

GUESSED_MBIT = 1000.0
MOST_SUGGESTED = 20
# Names of the settings file: sections.Name
UNNAMED = re.compile(r"[^\w.:-]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of the file; `comments` say of a setting why it is a guess, and under "" of the whole."""

    table: str
    values: Mapping[str, Any]
    comments: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """As it stands in the file."""
        if note := self.comments.get(""):
            yield f"# {note}"
        yield f"[[{self.table}]]"
        for name, value in self.values.items():
            text = f"{name} = {json.dumps(value)}"
            yield f"{text:<34}  # {self.comments[name]}" if name in self.comments else text


@dataclass(frozen=True, slots=True)
class Found:
    """All that was looked at."""

    hosts: tuple[FoundHost, ...] = ()
    network: FoundNetwork = field(default_factory=FoundNetwork)
    # Where switches connected to a controller that is to listen there from now on
    controller: str | None = None

    @property
    def machines(self) -> Iterator[tuple[FoundHost, FoundMachine]]:
        """Every machine with its host."""
        return ((host, machine) for host in self.hosts for machine in host.machines)

    def owner(self, node: Node) -> tuple[FoundHost, FoundMachine, FoundInterface] | None:
        """The machine whose interface was seen as this node."""
        for host, machine in self.machines:
            for one in machine.interfaces:
                if node.mac == one.mac or (node.address and node.address == one.address):
                    return host, machine, one
        return None


def settings_text(found: Found) -> str:
    """The file. Whatever is in it is valid: what would not be is left out, or stands as a comment."""
    entries = [*_nodes(found), *_hosts(found), *_machines(found), *_links(found)]
    parts = [
        "# Written by forepath init. What it guessed is marked; forepath check tells what does not fit together.",
        *filter(None, ["\n".join(_services(found))]),
        '[database]\nurl = "sqlite:///forepath.db"',
        *_controller(found),
        *("\n".join(one.lines()) for one in entries),
        "\n".join(["# Still to be said by a person:", *(f"# * {line}" for line in still_to_say(found))]),
    ]
    return "\n\n".join(parts) + "\n"


def _controller(found: Found) -> Iterator[str]:
    if found.controller is not None:
        listen, port = split_listen(found.controller)
        yield f'[controller]\nlisten = "{listen}"\nport = {port}'


def named(text: str) -> str:
    """A name that the file may hold."""
    return UNNAMED.sub("-", text)[:64] or "unnamed"


def _nodes(found: Found) -> Iterator[Entry]:
    for one in found.network.switches:
        nameless = one.name.startswith("dpid:")
        note = {"name": "it has no name of its own; give it one"} if nameless else {}
        yield Entry("node", {"name": named(one.name), "kind": "switch", "dpid": f"{one.dpid:#x}"}, note)
    for one in _hosts_seen(found):
        values = {"name": named(one.name), "kind": "client", "address": one.address, "mac": one.mac}
        place = f"seen at port {one.port} of {one.attached_to}" if one.attached_to else "seen"
        yield Entry("node", {k: v for k, v in values.items() if v}, {"": place, "kind": "guess: it may serve as well"})
    for _, machine in found.machines:
        interface = next((one for one in machine.interfaces if one.address), None) or next(
            iter(machine.interfaces), None
        )
        if interface is not None:
            values = {
                "name": named(machine.name),
                "kind": "vm",
                "address": _address(found, interface),
                "mac": interface.mac,
            }
            yield Entry("node", {k: v for k, v in values.items() if v}, {})


def _address(found: Found, interface: FoundInterface) -> str | None:
    seen = (one.address for one in found.network.nodes if one.mac == interface.mac and one.address)
    return interface.address or next(seen, None)


def _hosts_seen(found: Found) -> Iterator[Node]:
    for one in found.network.nodes:
        if one.kind in (NodeKind.HOST, NodeKind.CLIENT) and (one.mac or one.address) and found.owner(one) is None:
            yield one


def _hosts(found: Found) -> Iterator[Entry]:
    for one in found.hosts:
        values = {
            "name": named(one.name),
            "uri": one.uri,
            "cpu_cores": float(one.cpu_cores),
            "memory_mib": one.memory_mib,
        }
        yield Entry("host", values, {"cpu_cores": "all that it has; say less if others use it"})


def _machines(found: Found) -> Iterator[Entry]:
    for host, one in found.machines:
        values = {
            "name": named(one.name),
            "host": named(host.name),
            "cpu_cores_base": float(one.vcpus),
            "cpu_cores_max": float(max(one.vcpus, one.vcpus_max)),
            "vcpus_max": max(one.vcpus, one.vcpus_max),
        }
        notes = {
            "": f"{'runs' if one.running else 'does not run'} on {host.name}, {one.memory_mib} MiB",
            "cpu_cores_base": "guess: what it has now; it is never given less",
            "cpu_cores_max": "guess: what it was defined with",
        }
        yield Entry("vm", values, notes)


def _links(found: Found) -> Iterator[Entry]:
    ports = {named(switch): names for switch, names in found.network.ports.items()}
    for one in _joined(found):
        a_port, b_port = ({"a_port": one.a_port} if one.a_port else {}), ({"b_port": one.b_port} if one.b_port else {})
        known = one.capacity_bytes_per_s
        values = {
            "a": one.a,
            **a_port,
            "b": one.b,
            **b_port,
            "capacity_mbit_per_s": known / MBIT if known else GUESSED_MBIT,
        }
        notes = {"capacity_mbit_per_s": "what the ports say of themselves" if known else "guess: the ports do not say"}
        ends = {"a_port": (one.a, one.a_port), "b_port": (one.b, one.b_port)}
        called = {end: ports.get(switch, {}).get(port or 0) for end, (switch, port) in ends.items()}
        yield Entry("link", values, notes | {end: named(name) for end, name in called.items() if name})


def _joined(found: Found) -> Iterator[Link]:
    """Links by the names of this file: a machine's interface stands for its host; each pair of ends once."""
    owners = {name: owner[0].name for one in found.network.nodes if (owner := found.owner(one)) for name in (one.name,)}
    owners |= {one.address or "": owner[0].name for one in found.network.nodes if (owner := found.owner(one))}
    known = {one.name for one in (*found.network.switches, *_hosts_seen(found))} | {host.name for host in found.hosts}
    done: set[frozenset[str]] = set()
    for one in found.network.links:
        a, b = owners.get(one.a, one.a), owners.get(one.b, one.b)
        if {a, b} <= known and a != b and frozenset((a, b)) not in done:
            done.add(frozenset((a, b)))
            yield Link(named(a), one.a_port, named(b), one.b_port, one.capacity_bytes_per_s)


def _services(found: Found) -> Iterator[str]:
    """Suggestions, as comments, before all tables: who becomes a virtual IP, only a person knows."""
    why = {one.address: f"{one.sources} sources speak to it" for one in found.network.services}
    machines = (_address(found, one) for _, machine in found.machines for one in machine.interfaces)
    why |= {address: "a machine" for address in machines if address and address not in why}
    if why:
        yield "# Services that forepath is to steer and prepare for: uncomment the first line, the last one and those"
        yield "# meant, and give each an address that nobody has; sources speak to that from then on."
        yield "# virtual_ip = ["
        yield from (_suggestion(found, *one) for one in itertools.islice(why.items(), MOST_SUGGESTED))
        yield "# ]"


def _suggestion(found: Found, address: str, why: str) -> str:
    node = next((one for one in found.network.nodes if address in (one.address, one.name)), None)
    owner = found.owner(node or Node(address, NodeKind.HOST, address))
    name = named(owner[1].name if owner else address)
    mac = owner[2].mac if owner else (node.mac if node else None)
    behind = f'{{ name = "{name}", address = "{address}", mac = "{mac or "..."}" }}'
    return f'#   {{ name = "{name}-service", address = "...", destination = [{behind}] }},  # {why}'


def still_to_say(found: Found) -> list[str]:
    """What nobody but a person knows, or what could not be seen, a line each."""
    lines = []
    if not found.network.switches:
        lines.append(
            "no switch was seen: run it again with --listen or --controller, or --database of a controller that runs"
        )
    elif not any(_between(found)):
        lines.append(
            "no link between switches was seen: with --listen, a switch hands up LLDP frames only where a rule of its "
            "own says so; --controller sends one that does"
        )
    lines += [f"which port leads to {name}: [[link]]" for name in _unjoined(found)]
    if not found.hosts:
        lines.append("no hypervisor was looked at: run it again with --libvirt URI for each")
    if any(found.machines):
        lines.append("which machines matter more ([[vm]] priority), and which may be moved (movable = true)")
    lines.append("which services there are, and which matter more: [[virtual_ip]] with priority")
    return lines


def _between(found: Found) -> Iterator[Link]:
    switches = {one.name for one in found.network.switches}
    return (one for one in found.network.links if {one.a, one.b} <= switches)


def _unjoined(found: Found) -> Sequence[str]:
    ends = {end for one in _joined(found) for end in (one.a, one.b)}
    return [named(one.name) for one in found.hosts if named(one.name) not in ends]


def differences(before: str, after: str) -> Iterable[str]:
    """What would change in the file, as people read patches; nothing where nothing would."""
    names = "the file as it is", "what is there now"
    return (
        line.rstrip("\n") for line in difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
    )
