"""What the page costs at size: CPU of its process while three browsers look at a network measured each second."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from cpdb import LabError, open_store
from tools.bench.figures import BenchTarget, Result
from tools.bench.orchestrate import START_S, Neighbourhood, OrchestrateScale
from tools.bench.sustained import cpu_s, memory_bytes

# 96 leaves with eight hosts each, and four spines
SWITCH_HOSTS = 768
MACHINES = 400
HISTORY_S, WARM_S, PATIENCE_S, FORESEE_EVERY_S = 30, 20.0, 120.0, 5
LIMIT_CORES = 0.3
ROOT = Path(__file__).parents[2]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
Tell = Callable[[str], None]


def measure(pairs: int, seconds: float, tell: Tell) -> Result:
    """Builds the database, feeds it each second, and looks at topology twice and at a pair, in one browser each.

    Raises LabError without Chromium, or where the page does not come up.
    """
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/web.db"
        with contextlib.closing(open_store(url)) as store:
            world = Neighbourhood(OrchestrateScale(pairs, MACHINES, SWITCH_HOSTS, HISTORY_S), store)
            tell("building a database")
            world.declare()
            first = _second() - HISTORY_S
            for second in range(first, first + HISTORY_S):
                world.pass_second(second)
            with _feeding(world), _page(Path(folder), url) as (process, base):
                talk = world.talks[0]
                pair = f"/pair?source={talk.source}&virtual_ip={talk.virtual_ip}"
                with _viewers([f"{base}{path}" for path in ("/?ahead=15", "/?ahead=30", pair)]):
                    tell(f"looking for {seconds:.0f} s")
                    time.sleep(WARM_S)
                    began, cpu = time.monotonic(), cpu_s(process.pid)
                    time.sleep(seconds)
                    cores = (cpu_s(process.pid) - cpu) / (time.monotonic() - began)
                    return _judge(cores, float(memory_bytes(process.pid)))


def _judge(cores: float, size_bytes: float) -> Result:
    target = BenchTarget("cores used by the page with three viewers", cores, LIMIT_CORES, "lower")
    return Result({"cores_used": cores, "memory_bytes": size_bytes}, [target])


def _second() -> int:
    return int(time.time() - START_S)


@contextlib.contextmanager
def _feeding(world: Neighbourhood) -> Iterator[None]:
    """Writes what is measured each second, and forecasts now and then, until the block ends."""
    stop = threading.Event()

    def feed() -> None:
        last = _second() - HISTORY_S
        while not stop.wait(0.05):
            if (second := _second()) > last:
                world.pass_second(second - 1)
                if second - last > FORESEE_EVERY_S or second % FORESEE_EVERY_S == 0:
                    world.foresee(second - 1)
                    world.foresee((second - 1) // 10 * 10)
                last = second

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _page(folder: Path, url: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "forepath.toml").write_text(f'[database]\nurl = "{url}"\n', encoding="utf-8")
    argv = [sys.executable, "-m", "forepath", "web", "--listen", listen]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
    try:
        _wait_for(f"http://{listen}/health", folder / "log")
        yield process, f"http://{listen}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, log: Path) -> None:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S):
            return
        time.sleep(0.2)
    raise LabError(f"the page did not come up: {log.read_text(encoding='utf-8')}")


@contextlib.contextmanager
def _viewers(urls: list[str]) -> Iterator[None]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise LabError("viewers need chromium and chromium-driver; make setup installs them")
    options = Options()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    with contextlib.ExitStack() as stack:
        for url in urls:
            one = webdriver.Chrome(options=options, service=Service(driver))
            stack.callback(one.quit)
            one.get(url)
        yield
