"""Whether hypervisors can be reached at the addresses that are said of them, and what helps where they cannot."""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

ANSWER_S = 5.0
# https://libvirt.org/uri.html
TRANSPORTS = ("unix", "ssh", "tcp", "tls", "libssh", "libssh2", "ext")
REMOTE = ("ssh", "tcp", "tls", "libssh", "libssh2")
# What libvirt says, and what helps; the first that fits.
HELP = (
    (r"Cannot read CA cert|Cannot read .*cacert", "put the CA's certificate there, or name its folder with ?pkipath="),
    (r"Cannot read .*(key|cert)", "put this machine's own certificate and key there, or name them with ?pkipath="),
    (
        r"verify peer's certificate",
        "both sides need unexpired certificates of one CA, and the host is addressed by the name in its certificate",
    ),
    (r"not (yet )?activated|has expired|not yet valid", "renew the certificate, or set the clock"),
    (r"known issuer|not trusted|signer", "both sides need certificates of one CA"),
    (r"(not match|different).*(host|name)|hostname", "address the host as its certificate names it"),
    (r"certificate|TLS|handshake", "check both sides' certificates: virt-pki-validate says more"),
    (r"cannot execute binary|Cannot find 'ssh'", "install the ssh client"),
    (r"Host key verification failed", "connect once by hand with ssh, so that the host's key is known"),
    (r"Permission denied \(|Too many authentication", "let ssh in without a password: ssh-copy-id to that host"),
    (r"command not found|nc: |netcat", "install netcat or virt-ssh-helper on that host"),
    (
        r"Permission denied|authentication (failed|unavailable|cancelled)",
        "run as root, or join the group libvirt there",
    ),
    (r"Name or service not known|not known|resolve", "no such name: write its address, or add it to the name service"),
    (r"No route|unreachable|timed out", "is it switched on and connected?"),
    (r"Connection refused", "it is up, but nothing listens there: start its libvirtd (or sshd) for this transport"),
    (r"No such file", "is its libvirtd running?"),
    (r"not supported|no connection driver", "this libvirt was built without that driver or transport"),
)


class DeclaredHost(Protocol):
    """A declared hypervisor."""

    @property
    def name(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def migration_uri(self) -> str | None: ...


def shape_problem(uri: str) -> str | None:
    """What is wrong with a URI as it is written, None when nothing is."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if not driver:
        return "is no address; write qemu:///system, qemu+ssh://USER@HOST/system or qemu+tls://HOST/system"
    if transport and transport not in TRANSPORTS:
        return f"unknown transport {transport!r}; libvirt knows {', '.join(TRANSPORTS)}"
    if transport in REMOTE and not parts.hostname:
        return f"names no host; write {parts.scheme}://HOST/system"
    if driver == "qemu" and parts.path not in ("/system", "/session", "/embed"):
        return f"ends in {parts.path or 'nothing'!r}; it must end in /system (or /session)"
    if transport == "ext" and "command=" not in parts.query:
        return "the transport ext needs ?command=PROGRAM"
    return None


def arrival_problem(host: DeclaredHost, others: Sequence[DeclaredHost]) -> str | None:
    """Why no other host could send machines to this one, as far as its addresses tell; None when nothing is wrong."""
    uri = host.migration_uri or host.uri
    if not others or urlsplit(uri).scheme.startswith("test"):
        return None
    if not urlsplit(uri).hostname:
        return f"{uri}: other hosts cannot reach that; set migration_uri, e.g. qemu+tls://{host.name}/system"
    found = shape_problem(uri)
    return found and f"{uri}: {found}"


@dataclass(frozen=True, slots=True)
class HostLook:
    """What a host said: why not, or its machines - name and UUID - and whether each is active."""

    problem: str | None
    machines: Mapping[tuple[str, str], bool] = field(default_factory=dict)


def connection_problem(uri: str, answer_s: float = ANSWER_S) -> str | None:
    """Tries to connect for reading; one line when it fails or takes longer than `answer_s`, None when it works."""
    return look_at(uri, answer_s).problem


def look_at(uri: str, answer_s: float = ANSWER_S) -> HostLook:
    """Connects for reading, and asks which machines there are."""
    import libvirt

    found: list[HostLook] = []

    def try_it() -> None:
        try:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            connection = libvirt.openReadOnly(uri)
            machines = {(one.name(), one.UUIDString()): bool(one.isActive()) for one in connection.listAllDomains()}
            connection.close()
            found.append(HostLook(None, machines))
        except libvirt.libvirtError as error:
            found.append(HostLook(explained(error.get_error_message() or str(error))))

    # libvirt itself waits for minutes; the thread ends by itself some day and holds nothing up.
    thread = threading.Thread(target=try_it, daemon=True, name="connect")
    thread.start()
    thread.join(answer_s)
    silent = f"no answer within {answer_s:g} s; is it switched off, or does a firewall drop it?"
    return found[0] if found else HostLook(silent)


def explained(message: str) -> str:
    """What libvirt says, in one line, and what helps."""
    said = " ".join(message.split())
    return next((f"{said}; {tip}" for pattern, tip in HELP if re.search(pattern, said)), said)


def host_problems(hosts: Sequence[DeclaredHost], machines: Sequence[str] = (), moves: bool = True) -> Iterator[str]:
    """One line for everything that is wrong with the declared hosts, and with declared machines on them.

    Whether others reach a host matters where a machine `moves`. Needs libvirt-python.
    """
    looks: dict[str, HostLook] = {}
    for host in hosts:
        found = shape_problem(host.uri)
        if found is None:
            looks[host.name] = look_at(host.uri)
            found = looks[host.name].problem
        if found:
            yield f"host {host.name}: {host.uri}: {found}"
        arriving = arrival_problem(host, [one for one in hosts if one is not host]) if moves else None
        if arriving and not (host.migration_uri is None and found):
            yield f"host {host.name}: {arriving}"
    yield from machine_problems(looks, len(looks) == len(hosts), machines)


def machine_problems(looks: Mapping[str, HostLook], whole: bool, machines: Sequence[str]) -> Iterator[str]:
    """Declared machines that no host has - where all answered - and names that several machines bear at once."""
    active: dict[str, dict[str, str]] = defaultdict(dict)
    for host, look in looks.items():
        for (name, uuid), runs in look.machines.items():
            if runs:
                active[name][uuid] = host
    for name, own in active.items():
        if len(own) > 1:
            where = " and ".join(sorted(own.values()))
            yield f"vm {name!r}: several machines bear this name, on {where}; none is touched until one is renamed"
    known = {name for look in looks.values() for name, _ in look.machines}
    for name in machines if whole and not any(look.problem for look in looks.values()) else ():
        if name not in known:
            yield f"vm {name!r}: no declared host has a machine of this name; define it there, or leave it out here"
