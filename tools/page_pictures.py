"""`python -m tools.page_pictures FOLDER MOMENT`: pictures of each view of a demo's recording, for the documents."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from forepath.web.views import VIEWS

PICTURES = Path(__file__).parent.parent / "docs" / "web"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
DRAWN_S, STARTING_S = 5.0, 60.0


class WindowSize(NamedTuple):
    """Pixels of a browser's window."""

    width: int
    height: int


WIDE, NARROW = WindowSize(1100, 1160), WindowSize(500, 1160)
# What a view is about, where it must be said
ABOUT = {
    "/pair": {"source": "c1", "virtual_ip": "search"},
    "/link": {"from": "leaf2", "to": "hA"},
    "/machine": {"name": "search1"},
    "/service": {"name": "search"},
    "/action": {"number": "33"},
    "/journal": {"limit": "12"},
}


def picture_of(path: str) -> str:
    """The picture's name of a view."""
    return path.strip("/") or "topology"


@contextmanager
def served(settings: Path) -> Iterator[str]:
    """The page of a recording, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    words = [sys.executable, "-m", "forepath", "web", "--settings", str(settings), "--listen", listen]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + STARTING_S
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://{listen}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://{listen}"
    finally:
        process.terminate()
        process.wait()


def browser() -> webdriver.Chrome:
    """The system's Chromium."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def take_picture(driver: webdriver.Chrome, url: str, name: str, size: WindowSize) -> None:
    """One picture; of a wide page no more than its text is high."""
    driver.set_window_size(*size)
    driver.get(url)
    time.sleep(DRAWN_S)
    high = int(driver.execute_script("return document.body.scrollHeight"))
    # Drawn anew: what is drawn again in another size is still moving.
    driver.set_window_size(size.width, max(500, min(size.height, high)))
    driver.get(url)
    time.sleep(DRAWN_S)
    driver.save_screenshot(str(PICTURES / f"{name}.png"))
    print(f"docs/web/{name}.png")


def main(folder: str, moment: str) -> int:
    """Takes them all: each view, and the topology dark and on a narrow screen."""
    with served(Path(folder) / "forepath.toml") as base:
        driver = browser()
        try:
            for view in VIEWS:
                words = urlencode({**ABOUT.get(view.path, {}), "at": moment, "theme": "light"})
                take_picture(driver, f"{base}{view.path}?{words}", picture_of(view.path), WIDE)
            for name, theme, size in (("dark", "dark", WIDE), ("narrow", "light", NARROW)):
                words = urlencode({"ahead": 15, "at": moment, "theme": theme})
                take_picture(driver, f"{base}/?{words}", name, size)
        finally:
            driver.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
