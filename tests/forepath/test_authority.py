"""The small authority: what it issues, renews and revokes, what it refuses, and what `forepath tls check` sees."""

import datetime
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_on_paper import Forepath

from cpdb import SettingsError
from forepath import authority
from forepath.listening import open_doors, page_files, page_url
from forepath.processes import predictor_config
from forepath.settings import Settings, load_settings
from ryu_apps import make_context, revoked_serials

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
ROOT = Path(__file__).parent.parent.parent


def test_a_certificate_from_its_issue_to_its_end(tmp_path: Path, forepath: Forepath) -> None:
    assert forepath("tls", "init", "--folder", "pki").code == 0
    assert forepath("tls", "init", "--folder", "pki").code == 3
    assert forepath("tls", "issue", "leaf1", "--folder", "pki").code == 0
    assert "is there already" in forepath("tls", "issue", "leaf1", "--folder", "pki").err
    server = forepath("tls", "issue", "controller", "--address", "127.0.0.1", "--folder", "pki", "--json", "-").json()
    assert server["addresses"] == ["controller", "127.0.0.1"] or server["addresses"] == ["127.0.0.1", "controller"]
    for key in (tmp_path / "pki").glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    before = authority.read_issued(Path("pki"), "controller")
    (renewed,) = forepath("tls", "renew", "controller", "--folder", "pki", "--json", "-").json()["renewed"]
    assert renewed["serial"] != f"{before.serial:x}" and sorted(renewed["addresses"]) == sorted(before.addresses)
    assert forepath("tls", "renew", "--folder", "pki", "--json", "-").json()["renewed"] == []
    assert forepath("tls", "revoke", "leaf1", "--folder", "pki", "--json", "-").json()["revoked"] is True
    assert revoked_serials("pki/revoked.pem") == {authority.read_issued(Path("pki"), "leaf1").serial}
    browser = forepath("tls", "issue", "anna", "--folder", "pki", "--browser", "--json", "-").json()
    assert Path(browser["p12"]).stat().st_mode & 0o777 == 0o600 and len(browser["password"]) > 12
    states = {
        one["name"]: one["revoked"]
        for one in forepath("tls", "check", "--folder", "pki", "--json", "-").json()["issued"]
    }
    assert states == {"anna": False, "controller": False, "leaf1": True}


def test_check_sees_what_ends_what_does_not_fit_and_who_could_never_connect(tmp_path: Path, forepath: Forepath) -> None:
    forepath("tls", "init", "--folder", "pki")
    forepath("tls", "init", "--folder", "other")
    forepath("tls", "issue", "controller", "--folder", "pki", "--days", "3")
    text = "[tls]\ncertificate = 'pki/controller.pem'\nkey = 'pki/controller.key'\n"
    text += "authority = '{0}/ca.pem'\nrevoked = '{0}/revoked.pem'\n"
    node = "[[node]]\nname = 'leaf1'\nkind = 'switch'\ndpid = 1\n"
    Path("forepath.toml").write_text(text.format("pki") + node)
    found = forepath("tls", "check", "--json", "-")
    assert found.code == 1 and all("ends in 3 days" in line for line in found.json()["problems"])
    assert forepath("tls", "check", "--within", "2", "--json", "-").json()["problems"] == []
    Path("forepath.toml").write_text(text.format("pki"))
    assert any("no switch may connect" in line for line in forepath("tls", "check", "--json", "-").json()["problems"])
    assert any("no switch may connect" in line for line in forepath("check", "--json", "-").json()["problems"])
    Path("forepath.toml").write_text(text.format("other") + node)
    assert any("is not of the authority" in line for line in forepath("tls", "check", "--json", "-").json()["problems"])
    Path("pki/controller.key").chmod(0o644)
    assert any("chmod 600" in line for line in forepath("tls", "check", "--json", "-").json()["problems"])


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "ca", "revoked", "x" * 65, "a\nb", "a\x1b[2J"])
def test_names_that_would_be_another_file_or_lie_on_a_terminal_are_refused(tmp_path: Path, name: str) -> None:
    authority.init_authority(tmp_path / "pki", "test", 5, NOW)
    with pytest.raises(SettingsError):
        authority.issue(tmp_path / "pki", name, [], 1, NOW)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"ca.pem", "ca.key", "revoked.pem"}


@settings(max_examples=15, deadline=None)
@given(days=st.floats(0.01, 5000), later=st.integers(0, 4), name=st.text("abcXYZ019-._ é", min_size=1, max_size=40))
def test_nothing_outlives_its_authority_and_is_called_as_it_was_asked(
    tmp_path_factory: pytest.TempPathFactory, days: float, later: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("pki")
    authority.init_authority(folder, "test", 5, NOW)
    if name.startswith(".") or name in ("ca", "revoked"):
        return
    now = NOW + datetime.timedelta(days=later)
    made = authority.issue(folder, name, [], days, now)
    certificate, top = (authority.read_certificate(folder / one) for one in (f"{name}.pem", "ca.pem"))
    certificate.verify_directly_issued_by(top)
    assert certificate.not_valid_after_utc <= top.not_valid_after_utc and made.until >= now
    assert name in authority.names_of(certificate)


def told(**tables: object) -> Settings:
    return Settings.model_validate(tables)


def test_doors_that_stand_open_are_told_allowed_or_not(forepath: Forepath) -> None:
    assert list(open_doors(told())) == []
    wide = {"controller": {"listen": "0.0.0.0"}, "web": {"listen": "0.0.0.0:1"}}
    assert len(list(open_doors(told(**wide)))) == 2 == len(list(open_doors(told(**wide, tls={"insecure": True}))))
    given_files = {"certificate": "a", "key": "b", "authority": "c"}
    assert list(open_doors(told(**wide, tls=given_files))) == []
    assert len(list(open_doors(told(**wide, tls={**given_files, "page": "server"})))) == 1
    with pytest.raises(SettingsError, match="insecure"):
        page_files(told(), "0.0.0.0:1")
    cluster = {"predictor": {"shards": {"scheduler": "tcp://10.0.0.5:8786"}}}
    assert len(list(open_doors(told(**cluster)))) == 1
    for tables, scheduler in ((cluster, None), ({}, "ws://db.example:8786")):
        with pytest.raises(SettingsError, match="tls://"):
            predictor_config(told(**tables), scheduler=scheduler)
    for scheduler, insecure in (("tls://10.0.0.5:1", False), ("tcp://127.0.0.1:1", False), ("tcp://10.0.0.5:1", True)):
        found = predictor_config(told(tls={"insecure": insecure}), scheduler=scheduler)
        assert found.shards.scheduler == scheduler
    assert page_files(told(tls={"insecure": True}), "0.0.0.0:1") is None
    assert page_files(told(tls=given_files), "127.0.0.1:1") is None
    server = page_files(told(tls={**given_files, "page": "server"}), "0.0.0.0:1")
    assert server is not None and server.authority is None
    assert page_url("0.0.0.0:1", secure=True) == "https://localhost:1/"
    Path("forepath.toml").write_text("controller.listen = '0.0.0.0'\n")
    assert forepath("run").code == 3 and forepath("web", "--listen", "0.0.0.0:1").code == 3
    Path("forepath.toml").write_text("controller.listen = '0.0.0.0'\ntls.insecure = true\n")
    answer = forepath("check", "--json", "-").json()
    assert any("controller.listen = '0.0.0.0'" in line for line in answer["notes"])
    assert not any("0.0.0.0" in line for line in answer["problems"])


def test_the_page_lets_in_who_has_a_certificate_and_takes_a_new_one_of_its_own(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    folder = tmp_path / "pki"
    authority.init_authority(folder, "test", 5, now)
    authority.issue(folder, "page", ["127.0.0.1"], 4, now)
    authority.issue(folder, "anna", [], 4, now)
    files = {"certificate": "page.pem", "key": "page.key", "authority": "ca.pem", "revoked": "revoked.pem"}
    text = "\n".join(["[tls]", *(f"{name} = '{folder / file}'" for name, file in files.items())])
    Path("forepath.toml").write_text(text)
    assert load_settings(None).tls.files() is not None
    make_context(load_settings(None).tls.files())  # type: ignore[arg-type]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "forepath", "web", "--listen", f"0.0.0.0:{port}"]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        mine = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        nobodys = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        mine.load_cert_chain(folder / "anna.pem", folder / "anna.key")
        until(lambda: asked(port, mine) == 200)
        assert asked(port, nobodys) is None
        before = shown(port, mine)
        authority.renew(folder, "page", 4, now)
        assert shown(port, mine) != before
        authority.revoke(folder, "anna", now)
        assert asked(port, mine) is None
    finally:
        process.terminate()
        assert process.wait(60) == 0


def until(check: object, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.2)


def asked(port: int, context: ssl.SSLContext) -> int | None:
    try:
        with urllib.request.urlopen(
            f"https://127.0.0.1:{port}/api/v1/openapi.json", timeout=20, context=context
        ) as answer:
            return int(answer.status)
    except OSError:
        return None


def shown(port: int, context: ssl.SSLContext) -> bytes | None:
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
        return peer.getpeercert(binary_form=True)
