"""A small certificate authority in one folder: made, certificates issued, renewed and revoked, all looked over."""

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cpdb import SettingsError

Days = float
Moment = datetime.datetime

AUTHORITY, AUTHORITY_KEY, REVOKED = "ca.pem", "ca.key", "revoked.pem"
# Clocks of two machines differ; what is issued counts a little earlier already.
EARLIER = datetime.timedelta(minutes=5)
# RFC 5280, A.1: the longest common name; OpenSSL counts its bytes
LONGEST_NAME = 64
_HOST = re.compile(
    r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
)


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate of the folder: `name.pem`, whose key is `name.key`."""

    name: str
    serial: int
    addresses: tuple[str, ...]
    until: Moment
    revoked: bool

    def days_left(self, now: Moment) -> Days:
        """How long it still counts; below 0 when it has expired."""
        return (self.until - now).total_seconds() / 86_400


def init_authority(folder: Path, name: str, days: Days, now: Moment) -> Path:
    """Makes the authority's key, certificate and an empty list of what is revoked; returns the certificate.

    Raises SettingsError where there is one already: what it issued would be worth nothing any more.
    """
    if (folder / AUTHORITY).exists() or (folder / AUTHORITY_KEY).exists():
        raise SettingsError(
            f"{folder / AUTHORITY}: is there already; forepath tls issue NAME issues certificates of it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    key, subject = ec.generate_private_key(ec.SECP256R1()), _subject(name)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    made = (
        _builder(subject, subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / AUTHORITY_KEY, _pem_of(key), 0o600)
    _write(folder / AUTHORITY, made.public_bytes(Encoding.PEM))
    _write_revoked(folder, [], now)
    return folder / AUTHORITY


def issue(folder: Path, name: str, addresses: Sequence[str], days: Days, now: Moment) -> Issued:
    """Makes `name.key` and `name.pem`, for servers and clients alike; each is replaced as a whole.

    `addresses` are IP addresses or host names under which a server is called. Raises SettingsError.
    """
    authority, authority_key = _authority(folder)
    days = min(days, (authority.not_valid_after_utc - now).total_seconds() / 86_400)
    if days <= 0:
        raise SettingsError(f"{folder / AUTHORITY}: has expired; make another authority in another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    names: list[x509.GeneralName] = [_general(one) for one in addresses]
    names += [x509.DNSName(name)] if _HOST.fullmatch(name) and name not in addresses else []
    builder = (
        _builder(_subject(name), authority.subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(uses, critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(authority_key, hashes.SHA256())
    _write(_file(folder, name, "key"), _pem_of(key), 0o600)
    _write(_file(folder, name, "pem"), made.public_bytes(Encoding.PEM))
    return _issued(name, made, frozenset())


def renew(folder: Path, name: str, days: Days, now: Moment) -> Issued:
    """A new key and certificate with the same name and addresses; the old one counts on until it ends."""
    before = read_issued(folder, name)
    return issue(folder, name, before.addresses, days, now)


def revoke(folder: Path, name: str, now: Moment) -> Issued:
    """Puts the certificate of this name on the list; whoever reads that list refuses it from then on."""
    gone, before = read_issued(folder, name), _revoked(folder)
    if gone.serial not in {one.serial_number for one in before}:
        entry = x509.RevokedCertificateBuilder().serial_number(gone.serial).revocation_date(now).build()
        _write_revoked(folder, [*before, entry], now)
    return read_issued(folder, name)


def read_all(folder: Path) -> list[Issued]:
    """Everything in the folder but the authority itself, by name."""
    if not (folder / AUTHORITY).is_file():
        raise SettingsError(f"{folder / AUTHORITY}: is not there; forepath tls init makes an authority")
    names = sorted(path.stem for path in folder.glob("*.pem") if path.with_suffix(".key").is_file())
    return [read_issued(folder, name) for name in names if f"{name}.pem" != AUTHORITY]


def read_issued(folder: Path, name: str) -> Issued:
    """One certificate of the folder. Raises SettingsError."""
    return _issued(name, read_certificate(_file(folder, name, "pem")), {one.serial_number for one in _revoked(folder)})


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises SettingsError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: {(error.strerror or str(error)).lower()}; forepath tls check lists what there is"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path}: is no certificate in PEM form") from error


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """What a certificate is called: its common name and its DNS names."""
    common = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return frozenset([*common, *(one for one in _addresses(certificate) if not _is_address(one))])


def file_problems(files: Sequence[Path | None], now: Moment, soon: Days) -> Iterator[str]:
    """What is wrong, or will be within `soon` days, with certificate, key, authority and list of the settings."""
    certificate, key, authority, revoked = files
    for path in (certificate, authority):
        if path is not None and (days := _days_left(read_certificate(path).not_valid_after_utc, now)) < soon:
            yield f"{path}: {_ends(days)}; forepath tls renew makes another"
    if revoked is not None:
        days = _days_left(_list(revoked).next_update_utc or now, now)
        if days < soon:
            yield f"{revoked}: {_ends(days)}, and then nobody is let in; its authority makes a new list"
    if key is not None and key.exists() and key.stat().st_mode & 0o077:
        yield f"{key}: others can read it; chmod 600 {key}"
    if certificate is not None and authority is not None:
        try:
            read_certificate(certificate).verify_directly_issued_by(read_certificate(authority))
        except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError) as error:
            if certificate.read_bytes().count(b"-----BEGIN CERT") == 1:
                yield f"{certificate}: is not of the authority {authority} ({str(error) or 'wrong signature'})"


def _ends(days: Days) -> str:
    return f"ends in {days:.0f} days" if days > 0 else "has expired"


def _days_left(until: Moment, now: Moment) -> Days:
    return (until - now).total_seconds() / 86_400


def _file(folder: Path, name: str, kind: str) -> Path:
    if not name or "/" in name or name.startswith(".") or not name.isprintable():
        raise SettingsError(f"certificate {name!r}: has no slash, no control characters and no dot first")
    if name in {Path(own).stem for own in (AUTHORITY, REVOKED)}:
        raise SettingsError(f"certificate {name!r}: is the authority's own name; choose another")
    return folder / f"{name}.{kind}"


def _subject(name: str) -> x509.Name:
    if not 0 < len(name.encode()) <= LONGEST_NAME:
        raise SettingsError(f"certificate {name[:16]!r}...: a name has 1 to {LONGEST_NAME} bytes in UTF-8")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, days: Days, now: Moment) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general(text: str) -> x509.GeneralName:
    if _is_address(text):
        return x509.IPAddress(ip_address(text))
    if not _HOST.fullmatch(text):
        raise SettingsError(f"--address {text!r}: is neither an IP address nor a host name")
    return x509.DNSName(text)


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _addresses(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))


def _issued(name: str, certificate: x509.Certificate, revoked: frozenset[int] | set[int]) -> Issued:
    gone = certificate.serial_number in revoked
    return Issued(name, certificate.serial_number, _addresses(certificate), certificate.not_valid_after_utc, gone)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / AUTHORITY_KEY).is_file():
        raise SettingsError(f"{folder / AUTHORITY_KEY}: is not there; forepath tls init makes an authority")
    key = load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{folder / AUTHORITY_KEY}: was not made by forepath tls init")
    return read_certificate(folder / AUTHORITY), key


def _list(path: Path) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: is no list of revoked certificates in PEM form") from error


def _revoked(folder: Path) -> list[x509.RevokedCertificate]:
    return list(_list(folder / REVOKED)) if (folder / REVOKED).is_file() else []


def _write_revoked(folder: Path, gone: Sequence[x509.RevokedCertificate], now: Moment) -> None:
    authority, key = _authority(folder)
    # It counts as long as the authority: what nobody renews must not lock all switches out one day.
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now - EARLIER).next_update(authority.not_valid_after_utc)
    for one in gone:
        builder = builder.add_revoked_certificate(one)
    _write(folder / REVOKED, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """As a whole or not at all: whoever reads it meanwhile sees the old file. A key is never readable by others."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        os.fsync(target.fileno())
    new.replace(path)
