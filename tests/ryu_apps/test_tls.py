"""Switches that connect by TLS: the right ones, and those with nobody's, an old, a revoked or another's certificate."""

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import openflow_corpus as corpus
import pytest
from test_connections import HEALTHY, Controlled, controller, hung_up

from cpdb import SettingsError
from forepath import authority
from ryu_apps.settings import ControllerSettings
from ryu_apps.tls import LiveContext, Peer, Stranger, SwitchTrust, TlsFiles, TlsSection, bound_names

NOW = datetime.datetime.now(datetime.UTC)
OTHER = 0x52


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    authority.init_authority(made, "test authority", 30, NOW)
    for name in ("controller", "leaf1", "leaf2", "gone"):
        authority.issue(made, name, ["127.0.0.1"] if name == "controller" else [], 20, NOW)
    authority.issue(made, "old", [], 1, NOW - datetime.timedelta(days=2))
    authority.init_authority(made / "theirs", "another authority", 30, NOW)
    authority.issue(made / "theirs", "leaf1", [], 20, NOW)
    return made


def section(folder: Path) -> str:
    paths = {"certificate": "controller.pem", "key": "controller.key", "authority": "ca.pem", "revoked": "revoked.pem"}
    lines = [f'{name} = "{folder / file}"' for name, file in paths.items()]
    nodes = ((HEALTHY, "leaf1"), (OTHER, "leaf2"), (0x53, "gone"))
    return "\n".join(
        ["[tls]", *lines, *(f'[[node]]\nname = "{name}"\nkind = "switch"\ndpid = {dpid}' for dpid, name in nodes)]
    )


def shown(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder.parent / "ca.pem" if name == "" else folder / "ca.pem"))
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Controlled]:
    with controller(tmp_path_factory.mktemp("controller"), tables=section(folder)) as made:
        yield made


@contextlib.contextmanager
def dialled(running: Controlled, folder: Path, name: str, trusted: Path | None = None) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str((trusted or folder) / "ca.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    with running.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
        yield peer


def says_features(peer: socket.socket, dpid: int) -> None:
    features = next(one for one in corpus.singles() if one[1] == 6)
    peer.sendall(corpus.message(0) + features[:8] + dpid.to_bytes(8) + features[16:])
    peer.sendall(corpus.multipart(13, b""))


def is_turned_away(
    running: Controlled, folder: Path, name: str, trusted: Path | None = None, dpid: int = OTHER
) -> bool:
    try:
        with dialled(running, folder, name, trusted) as peer:
            says_features(peer, dpid)
            return hung_up(peer, 10)
    except OSError:
        # The other side has hung up in the middle of the handshake.
        return True


def told(running: Controlled, reason: str) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if f"stranger {reason}" in running.lines:
            return True
        time.sleep(0.05)
    return False


def test_a_switch_is_who_its_certificate_says_and_strangers_harm_nobody(running: Controlled, folder: Path) -> None:
    before = running.lines.count(f"up {OTHER}")
    with dialled(running, folder, "leaf1") as peer:
        says_features(peer, HEALTHY)
        assert running.waits_for(f"up {HEALTHY}")
        assert is_turned_away(running, folder, "leaf1")
        assert told(running, "certificate of another")
        assert is_turned_away(running, folder, "leaf1", dpid=0x99) and told(running, "dpid not declared")
        assert is_turned_away(running, folder, "old") and told(running, "certificate expired")
        assert is_turned_away(running, folder / "theirs", "leaf1", folder) and told(running, "certificate foreign")
        assert is_turned_away(running, folder, "") and told(running, "certificate missing")
        with running.connect() as plain:
            plain.sendall(corpus.message(0))
            assert hung_up(plain)
        # An answer to an echo shows that it is served as before.
        peer.sendall(corpus.message(2, xid=77))
        assert _hears(peer, corpus.message(3, xid=77)[:8])
    assert running.lines.count(f"up {OTHER}") == before and f"up {0x99}" not in running.lines


def _hears(peer: ssl.SSLSocket, wanted: bytes, within_s: float = 20.0) -> bool:
    peer.settimeout(within_s)
    heard = b""
    while wanted not in heard:
        if not (data := peer.recv(65536)):
            return False
        heard += data
    return True


def test_renewed_and_revoked_certificates_count_at_once_and_open_connections_stay(
    running: Controlled, folder: Path
) -> None:
    with dialled(running, folder, "leaf2") as stays, dialled(running, folder, "gone") as goes:
        says_features(stays, OTHER)
        says_features(goes, 0x53)
        assert running.waits_for(f"up {OTHER}") and running.waits_for(f"up {0x53}")
        before = stays.getpeercert(binary_form=True)
        authority.renew(folder, "controller", 20, NOW)
        with dialled(running, folder, "leaf1") as newer:
            assert newer.getpeercert(binary_form=True) != before
        authority.revoke(folder, "gone", NOW)
        assert hung_up(goes, 20)
        assert running.waits_for(f"down {0x53}")
        assert is_turned_away(running, folder, "gone", dpid=0x53) and told(running, "certificate revoked")
        # Files that do not fit together change nothing.
        key, kept = folder / "controller.key", (folder / "controller.key").read_bytes()
        key.write_bytes((folder / "leaf1.key").read_bytes())
        with dialled(running, folder, "leaf1"):
            pass
        key.write_bytes(kept)
        stays.sendall(corpus.message(2, xid=78))
        assert _hears(stays, corpus.message(3, xid=78)[:8])
    assert running.lines.count(f"up {0x53}") == 1


def test_who_is_bound_to_what() -> None:
    settings = ControllerSettings.model_validate(
        {
            "node": [
                {"name": "a", "kind": "switch", "dpid": 1},
                {"name": "b", "dpid": 2, "certificate": "ovs"},
                {"name": "c"},
            ]
        }
    )
    assert bound_names(settings.node) == {1: "a", 2: "ovs"}
    trust = SwitchTrust(True, bound_names(settings.node))
    trust.admit(Peer(frozenset({"ovs", "other"}), 5), 2)
    for peer, dpid in ((Peer(frozenset({"b"}), 5), 2), (None, 1), (Peer(frozenset({"a"}), 5), 3)):
        with pytest.raises(Stranger):
            trust.admit(peer, dpid)
    SwitchTrust(False, bound_names(settings.node)).admit(None, 3)
    with pytest.raises(Stranger):
        SwitchTrust(False, bound_names(settings.node)).admit(None, 1)


def test_files_that_are_no_use_are_named(tmp_path: Path, folder: Path) -> None:
    good = TlsFiles(*(str(folder / one) for one in ("controller.pem", "controller.key", "ca.pem", "revoked.pem")))
    LiveContext(good).current()
    (tmp_path / "rubbish").write_text("rubbish")
    for name in good._fields:
        for file in ("rubbish", "nowhere"):
            with pytest.raises(
                SettingsError, match=f"tls\\.{'certificate' if name == 'key' and file == 'rubbish' else name} = "
            ):
                LiveContext(good._replace(**{name: str(tmp_path / file)})).current()
    for wrong in ({"certificate": "a"}, {"revoked": "a"}, {"key": "a", "authority": "b"}):
        with pytest.raises(ValueError, match="belong together"):
            TlsSection.model_validate(wrong)


@pytest.mark.parametrize(
    ("tls", "host", "is_open"),
    [({}, "127.0.0.1", False), ({}, "0.0.0.0", True), ({}, "192.0.2.1", True)],
)
def test_without_tls_only_this_machine_may_connect(tls: dict[str, str], host: str, is_open: bool) -> None:
    assert TlsSection.model_validate(tls).open_door(host) == is_open
    given = {"certificate": "a", "key": "b", "authority": "c"}
    assert not TlsSection.model_validate(given).open_door(host)


def test_a_controller_that_everybody_could_reach_does_not_start_unless_that_is_allowed(tmp_path: Path) -> None:
    from test_settings import refused

    file = tmp_path / "forepath.toml"
    file.write_text("[controller]\nlisten = '0.0.0.0'\n")
    (line,) = refused(tmp_path)
    assert "controller.listen = '0.0.0.0'" in line and "tls.insecure" in line
    file.write_text("[tls]\ncertificate = 'a.pem'\nkey = 'a.key'\nauthority = 'ca.pem'\n")
    (line,) = refused(tmp_path)
    assert "tls.certificate = 'a.pem'" in line
