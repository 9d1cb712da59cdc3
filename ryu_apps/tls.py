"""Who may connect, and as which switch: certificates of one authority, and their names bound to switch numbers."""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog
from cryptography import x509
from pydantic import ConfigDict, model_validator

from cpdb import Dpid, Section, SettingsError, is_loopback

NO_TLS = (
    "without TLS whoever reaches it could pass for somebody else; give certificate, key and authority in [tls] "
    "(forepath tls makes them), or allow it with tls.insecure = true"
)
_log = structlog.get_logger("ryu_apps.tls")
_CRL_END = b"-----END X509 CRL-----"
# What OpenSSL's numbers mean to who looks after the network; x509_vfy.h
_EXPIRED, _REVOKED, _NO_CRL, _OLD_CRL = 10, 23, 3, 12
_WHY = {
    _EXPIRED: ("certificate expired", "its certificate has expired; forepath tls renew makes another"),
    _REVOKED: ("certificate revoked", "its certificate is revoked"),
    _NO_CRL: ("certificate foreign", "tls.revoked has no list of its certificate's authority"),
    _OLD_CRL: ("revocation list expired", "the list in tls.revoked has expired; its authority makes a new one"),
}
_FOREIGN = ("certificate foreign", "its certificate is not of the authority in tls.authority")
_NONE = ("certificate missing", "it shows no certificate; ovs-vsctl set-ssl gives it one")


class TlsFiles(NamedTuple):
    """PEM files: our certificate (with those between it and the authority), its key, who we believe, what not."""

    certificate: str
    key: str
    authority: str | None = None
    revoked: str | None = None


class TlsSection(Section):
    """Certificates for switches and the page (PEM files): all three, or none; `revoked` lists what counts no more.

    Each switch must show the certificate of its [[node]]; with `strict` no other may connect. `page` says whether who
    looks at the page from elsewhere must show one too. `insecure` allows to listen beyond loopback without TLS.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    revoked: Path | None = None
    strict: bool = True
    page: Literal["mutual", "server"] = "mutual"
    insecure: bool = False

    @model_validator(mode="after")
    def _whole(self) -> "TlsSection":
        given = [self.certificate, self.key, self.authority]
        if any(given) != all(given) or (self.revoked and not all(given)):
            raise ValueError("certificate, key and authority belong together: three PEM files; forepath tls makes them")
        return self

    def files(self) -> TlsFiles | None:
        """The files, None where there is no TLS."""
        if not (self.certificate and self.key and self.authority):
            return None
        revoked = str(self.revoked) if self.revoked else None
        return TlsFiles(str(self.certificate), str(self.key), str(self.authority), revoked)

    def open_door(self, listen: str) -> bool:
        """Whether other machines could connect to this address without TLS."""
        return self.certificate is None and not is_loopback(listen)


class BoundNode(Section):
    """Of a [[node]], what binds a switch's number to the name in its certificate."""

    model_config = ConfigDict(extra="ignore")

    name: str
    dpid: Dpid | None = None
    certificate: str | None = None


class Stranger(Exception):
    """A peer that may not connect, or not as this switch. `reason` is counted, the text says why."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's context for TLS 1.2 and later; with an authority, peers must show its certificates.

    Raises SettingsError with the file that is in the way.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, path in files._asdict().items():
        if path is not None and (problem := _unreadable(path)):
            raise SettingsError(f"tls.{name} = {path!r}: {problem}")
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"tls.certificate = {files.certificate!r}: is no certificate of the key {files.key!r} ({_said(error)})"
        ) from error
    for name, path in (("authority", files.authority), ("revoked", files.revoked)):
        try:
            if path is not None:
                context.load_verify_locations(path)
        except (OSError, ValueError) as error:
            raise SettingsError(f"tls.{name} = {path!r}: cannot be used ({_said(error)}); it must be PEM") from error
    if files.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    if files.revoked is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _unreadable(path: str) -> str | None:
    try:
        with Path(path).open("rb"):
            return None
    except OSError as error:
        return f"{(error.strerror or str(error)).lower()}; forepath tls init and issue make such files"


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")


@dataclass(slots=True)
class LiveContext:
    """A context that follows its files: what is new counts for the next connection, what is wrong changes nothing."""

    files: TlsFiles
    _made: ssl.SSLContext | None = None
    _seen: tuple[Any, ...] = ()

    def current(self) -> ssl.SSLContext:
        """The context of the files as they are, or as they last were sound. Raises SettingsError the first time."""
        seen = tuple(map(_stamp, filter(None, self.files)))
        if self._made is None:
            self._made, self._seen = make_context(self.files), seen
        elif seen != self._seen:
            self._seen = seen
            try:
                self._made = make_context(self.files)
                _log.info("certificates read again", certificate=self.files.certificate)
            except SettingsError as error:
                # Half of a new pair, perhaps: the other half is a change of its own.
                _log.error("new certificates are not used, the old stay in force", why=str(error))
        return self._made


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def revoked_serials(path: str | None) -> frozenset[int]:
    """Serial numbers on all lists of a PEM file; none where it cannot be read."""
    if path is None:
        return frozenset()
    try:
        pieces = [one + _CRL_END for one in Path(path).read_bytes().split(_CRL_END)[:-1]]
        return frozenset(entry.serial_number for piece in pieces for entry in x509.load_pem_x509_crl(piece))
    except (OSError, ValueError):
        return frozenset()


class Peer(NamedTuple):
    """Whom a checked certificate is for: its names (common name, DNS names), and its serial number."""

    names: frozenset[str]
    serial: int


def read_peer(shown: Mapping[str, Any] | None) -> Peer | None:
    """What `getpeercert()` says, None where nothing was shown."""
    if not shown:
        return None
    common = [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
    other = [value for name, value in shown.get("subjectAltName", ()) if name == "DNS"]
    return Peer(frozenset([*common, *other]), int(str(shown.get("serialNumber", "0")), 16))


def told_of(error: ssl.SSLError) -> Stranger | None:
    """What a failed handshake was about, None when it was not about a certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Stranger(*_WHY.get(error.verify_code, (_FOREIGN[0], f"{_FOREIGN[1]} ({error.verify_message})")))
    return Stranger(*_NONE) if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE" else None


@dataclass(slots=True)
class SwitchTrust:
    """Which certificate each switch must show: `names` by dpid. Where `strict`, no other switch may connect.

    `live` holds the connections that were let in, by what they are cut with.
    """

    strict: bool = False
    names: Mapping[Dpid, str] = field(default_factory=dict)
    revoked: str | None = None
    live: dict[Any, Peer] = field(default_factory=dict)
    _lists: tuple[Any, ...] = ()

    def admit(self, peer: Peer | None, dpid: Dpid) -> None:
        """Raises Stranger when who showed this certificate may not be this switch."""
        bound = self.names.get(dpid)
        if bound is not None and (peer is None or bound not in peer.names):
            said = ", ".join(sorted(peer.names)) if peer and peer.names else "nobody"
            raise Stranger("certificate of another", f"dpid {dpid:016x} is {bound!r}, and its certificate {said!r}")
        if bound is None and self.strict:
            raise Stranger(
                "dpid not declared",
                f"dpid {dpid:016x} is no declared switch; give it a [[node]] with this dpid, or set tls.strict = false",
            )

    def newly_revoked(self) -> Iterator[Any]:
        """Connections whose certificate has been revoked since they were let in; looks when the list has changed."""
        stamp = _stamp(self.revoked) if self.revoked else ()
        if stamp != self._lists:
            self._lists, gone = stamp, revoked_serials(self.revoked)
            yield from [one for one, peer in self.live.items() if peer.serial in gone]


def bound_names(nodes: Iterable[Any]) -> dict[Dpid, str]:
    """The certificate's name of each declared switch: what `certificate` says, else the node's own."""
    return {one.dpid: one.certificate or one.name for one in nodes if one.dpid is not None}
