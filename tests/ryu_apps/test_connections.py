"""Connections of a real controller process: hostile, silent and too many peers go, the healthy switch never notices."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import openflow_corpus as corpus
import pytest

from ryu_apps.openflow import Phase
from ryu_apps.settings import ConnectionsSection
from ryu_apps.switch.connections import overdue
from ryu_apps.switch.errors import ConnectionRefusals
from tools.bench.replayed_switch import ReplayedSwitch

ROOT = Path(__file__).parent.parent.parent
HEALTHY = 0x51
SETTINGS = """[controller.connections]
handshake_s = 2
silent_s = 4
max_connections = 12
max_reply_bytes = 200000
"""


@dataclass
class Controlled:
    """A controller process with `watched_app`."""

    port: int
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def waits_for(self, line: str, count: int = 1, within_s: float = 40.0) -> bool:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.lines.count(line) >= count:
                return True
            time.sleep(0.05)
        return False

    def goes_on(self) -> bool:
        """Whether the healthy switch is read again from now on."""
        line = f"read {HEALTHY} 10"
        return self.waits_for(line, self.lines.count(line) + 3)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=40)

    def greet(self, dpid: int) -> socket.socket:
        """A connection after its handshake."""
        features = next(one for one in corpus.singles() if one[1] == 6)
        before = self.lines.count(f"up {dpid}")
        with contextlib.ExitStack() as closing:
            peer = closing.enter_context(self.connect())
            peer.sendall(corpus.message(0) + features[:8] + dpid.to_bytes(8) + features[16:])
            peer.sendall(corpus.multipart(13, b""))
            assert self.waits_for(f"up {dpid}", before + 1), self.lines
            closing.pop_all()
        return peer


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def controller(folder: Path, *options: str, tables: str = "") -> Iterator[Controlled]:
    (folder / "some.toml").write_text(SETTINGS + tables, encoding="utf-8")
    port = free_port()
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", str(Path(__file__).with_name("watched_app.py"))]
    argv += ["--ofp-listen-host", "127.0.0.1"]
    argv += ["--ofp-tcp-listen-port", str(port), "--ofp-ssl-listen-port", str(port), *options]
    log = (folder / "log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FOREPATH_SETTINGS": str(folder / "some.toml")},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    made = Controlled(port, process)
    reader = Thread(target=made.read)
    reader.start()
    try:
        listens(port, process)
        yield made
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
        log.close()


def listens(port: int, process: subprocess.Popen[str], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError("the controller does not listen")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    with controller(tmp_path_factory.mktemp("guarded")) as made:
        switch = ReplayedSwitch(made.port, HEALTHY, 10)
        answering = Thread(target=switch.serve)
        answering.start()
        assert made.waits_for(f"up {HEALTHY}")
        yield made
        made.process.kill()
        answering.join()
        switch.close()


def hung_up(peer: socket.socket, within_s: float = 40.0) -> bool:
    """Whether the other side ends the connection; what it still sends is thrown away."""
    peer.settimeout(within_s)
    try:
        while peer.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def is_greeted(peer: socket.socket) -> bool:
    """Whether the controller took the connection: then its hello comes first, whatever follows."""
    try:
        return peer.recv(2) == b"\4\0"
    except ConnectionError:
        return False


def makes_room(running: Controlled, within_s: float = 40.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError), running.connect() as peer:
            peer.sendall(corpus.message(0))
            if peer.recv(8)[:2] == b"\4\0":
                return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("name", sorted(corpus.hostile()))
def test_a_hostile_peer_goes_and_the_healthy_one_stays(running: Controlled, name: str) -> None:
    message = corpus.hostile()[name]
    peer = running.connect() if message[1] == 0 else running.greet(0x666)
    with peer:
        peer.sendall(message)
        assert hung_up(peer)
    assert running.goes_on()
    assert f"down {HEALTHY}" not in running.lines


def test_a_message_before_the_handshake_is_refused(running: Controlled) -> None:
    with running.connect() as peer:
        peer.sendall(corpus.multipart(1, bytes(56)))
        assert hung_up(peer)
    assert running.goes_on()


def test_a_reply_without_end_is_refused(running: Controlled) -> None:
    with running.greet(0x667) as peer:
        part = corpus.multipart(1, corpus.flow_entry(corpus.matches()[0], b"") * 900, flags=1)
        with contextlib.suppress(ConnectionError):
            for _ in range(8):
                peer.sendall(part)
        assert hung_up(peer)
    assert running.goes_on()


def test_a_peer_that_says_nothing_goes(running: Controlled) -> None:
    with running.connect() as mute, running.connect() as greeter:
        greeter.sendall(corpus.message(0))
        assert hung_up(mute)
        assert hung_up(greeter)
    assert running.goes_on()


def test_a_switch_that_falls_silent_is_asked_and_goes(running: Controlled) -> None:
    with running.greet(0x668) as peer:
        peer.settimeout(40)
        heard = b""
        with contextlib.suppress(ConnectionError):
            while data := peer.recv(65536):
                heard += data
    assert corpus.message(2, xid=0)[:4] in heard
    assert running.waits_for(f"down {0x668}")
    assert f"down {HEALTHY}" not in running.lines


def test_one_address_has_so_many_connections(running: Controlled) -> None:
    with contextlib.ExitStack() as open_ones:
        peers = [open_ones.enter_context(running.connect()) for _ in range(14)]
        greeted = sum(is_greeted(peer) for peer in peers)
    # The healthy switch has one of the twelve, and peers of other tests may not be forgotten yet.
    assert 0 < greeted < 12
    # Those that are gone make room, as soon as the controller has noticed.
    assert makes_room(running)
    assert running.goes_on()


def test_unreadable_values_are_left_out_and_the_connection_stays(running: Controlled) -> None:
    with running.greet(0x670) as peer:
        # A bundle's properties have sound lengths, but the framework cannot read any.
        bundle = next(one for one in corpus.singles() if one[1] == 4 and one[8:12] == b"ONF\0")
        entry = corpus.flow_entry(corpus.matches()[0], b"")
        peer.sendall(bundle)
        peer.sendall(corpus.multipart(1, entry * 2, xid=99))
        assert running.waits_for(f"read {0x670} 2")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make certificates")
def test_every_switch_gets_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with controller(tmp_path, "--ctl-privkey", str(key), "--ctl-cert", str(certificate)) as made:
        for _ in range(3):
            with context.wrap_socket(made.connect()) as peer:
                peer.sendall(corpus.message(0))
                assert peer.recv(8)[:2] == b"\4\0"
        with made.connect() as plain:
            plain.sendall(corpus.message(0))
            assert hung_up(plain)


@pytest.mark.parametrize(
    ("phase", "connected_s", "silent_s", "late"),
    [
        (Phase.HELLO, 9.0, 9.0, False),
        (Phase.HELLO, 11.0, 0.0, True),
        (Phase.FEATURES, 11.0, 0.0, True),
        (Phase.OPEN, 1e6, 14.0, False),
        (Phase.OPEN, 1e6, 16.0, True),
    ],
)
def test_when_a_connection_is_overdue(phase: Phase, connected_s: float, silent_s: float, late: bool) -> None:
    assert (overdue(phase, ConnectionsSection(), connected_s, silent_s) is not None) == late


def test_refusals_are_all_counted_and_seldom_logged() -> None:
    refusals = ConnectionRefusals()
    told = [refusals.add("length", now=number / 1000) for number in range(1000)]
    assert told[:6] == [0, 0, 0, 0, 0, None]
    assert set(told[5:]) == {None}
    assert refusals.counts["length"] == 1000
    # The next line, later, says how many were kept back.
    assert refusals.add("value", now=100.0) == 995
