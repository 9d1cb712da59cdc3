"""Each test gets a folder of its own as the current one, and a command line to call."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_on_paper import Forepath, call, fill, paper_settings

from cpdb import Store, open_store
from forepath.demo.scene import as_toml
from forepath.output import WIDTH_WITHOUT_TERMINAL, console
from forepath.settings import Settings, declare
from predictor.service.workers import use_one_thread


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    use_one_thread()


@pytest.fixture(scope="session", autouse=True)
def _wide_lines() -> None:
    # Whatever terminal or variable the tests run under: they read whole lines.
    console.width = WIDTH_WITHOUT_TERMINAL


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    # Commands that run for long take over the signals that end them; a test run must stay interruptible.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOREPATH_SETTINGS", raising=False)


@pytest.fixture
def forepath(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Forepath:
    """`forepath("status", "--json", "-")` as a person would type it; anything but an exit is a failure."""
    return lambda *words: call([str(word) for word in words], capsys, monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The lab's settings, also written to forepath.toml, where commands find them."""
    made = paper_settings(tmp_path / "forepath.db")
    (tmp_path / "forepath.toml").write_text(as_toml(made), encoding="utf-8")
    return made


@pytest.fixture
def empty(settings: Settings) -> Iterator[Store]:
    """The lab's inventory, and nothing measured yet."""
    store = open_store(settings.database.url)
    declare(settings, store)
    yield store
    store.close()


@pytest.fixture
def filled(empty: Store) -> Store:
    """The lab with a few seconds of traffic up to the present, forecasts, loads, a reservation and actions."""
    fill(empty)
    return empty
