"""One Chromium for all tests of the page, and servers on a filled and on an empty database."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab_on_paper import fill, paper_settings
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from cpdb import open_store
from forepath.demo.scene import as_toml
from forepath.settings import declare

LONGEST_S = 90.0
ROOT = Path(__file__).parents[3]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1000")


@dataclass(frozen=True)
class Site:
    """A server of the page: where it answers, its database, and the moment at which that was filled."""

    base: str
    database: Path
    filled_at: float

    def address(self, path: str) -> str:
        """The address of a view, at the moment of the facts."""
        moment = datetime.fromtimestamp(self.filled_at, UTC).isoformat().replace("+00:00", "Z")
        return f"{self.base}{path}{'&' if '?' in path else '?'}at={moment}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(true: Callable[[], bool], what: str) -> None:
    """Waits for something that others bring about."""
    ends = time.monotonic() + LONGEST_S
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def serve(folder: Path, filled: bool, *more: str) -> Iterator[Site]:
    made = paper_settings(folder / "forepath.db")
    (folder / "forepath.toml").write_text(as_toml(made) + "".join(more), encoding="utf-8")
    store = open_store(made.database.url)
    declare(made, store)
    began_at = float(int(time.time()) - 1)
    filled_at = fill(store, began_at) if filled else began_at
    store.close()
    listen = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "forepath", "web", "--settings", "forepath.toml", "--listen", listen]
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
    try:
        site = Site(f"http://{listen}", folder / "forepath.db", filled_at)
        until(lambda: answers(site.base + "/health"), (folder / "web.log").read_text())
        yield site
    finally:
        process.terminate()
        assert process.wait(LONGEST_S) == 0
        assert "Traceback" not in (folder / "web.log").read_text()


@pytest.fixture(scope="package")
def filled_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from serve(tmp_path_factory.mktemp("filled"), True)


@pytest.fixture(scope="package")
def empty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from serve(tmp_path_factory.mktemp("empty"), False)


class Viewer:
    """A person with a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look_at(self, url: str, text: str) -> str:
        """Opens a page, waits until it says `text`, and returns all that it says."""
        self.driver.get(url)
        self.wait_for(text)
        return self.text

    @property
    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def wait_for(self, text: str) -> None:
        WebDriverWait(self.driver, LONGEST_S, 0.2).until(lambda _: text in self.text, f"{text!r} in {self.text!r}")

    def wait_for_not(self, text: str) -> None:
        WebDriverWait(self.driver, LONGEST_S, 0.2).until(lambda _: text not in self.text, self.text)

    def forget(self) -> None:
        """Leaves whatever was open and what it asked for."""
        self.driver.get("about:blank")
        self.asked()
        self.complaints()

    def asked(self) -> list[str]:
        """Every address that the browser has asked since the last call."""
        messages = (json.loads(row["message"])["message"] for row in self.driver.get_log("performance"))
        return [row["params"]["request"]["url"] for row in messages if row["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the browser has complained about since the last call."""
        return [row["message"] for row in self.driver.get_log("browser") if row["level"] == "SEVERE"]


@pytest.fixture(scope="package")
def viewer() -> Iterator[Viewer]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver, "make setup installs chromium and chromium-driver"
    options = Options()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield Viewer(started)
    started.quit()
