"""What each process tells Prometheus: a running forepath, scraped by a real one, and the sums behind it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab_on_paper import Forepath, actions, fill, paper_settings
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cpdb import (
    Durations,
    Figures,
    MetricsSection,
    OutcomeKind,
    Pause,
    Store,
    open_store,
    serve_metrics,
    serving_metrics,
)
from cpdb.exposition import FiguresCollector
from forepath.demo.scene import as_toml
from forepath.metrics.loops import ACTIONS, CYCLE, LEAD, OrchestratorTally
from forepath.metrics.stored import LINK_AHEAD, PAIR, PAUSED, STORED_METRICS, UP, StoredFigures
from forepath.settings import declare
from orchestrator import CycleReport, KindStanding
from tools.monitoring import CATALOGUE, NAME, ROOT, expressions

RATE = 'rate(forepath_cycle_duration_seconds_count{process="predictor"}[1m]) > 0'
ALIVE = (
    'forepath_orchestrator_mode{mode="advise"} == 1',
    "forepath_pair_bytes_per_second",
    "forepath_link_predicted_ratio",
    "forepath_program_up == 1",
    "forepath_settings_loaded == 1",
)
PROCESSES = ("controller", "predictor", "orchestrator", "metrics")


def scraped(figures: Figures) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and values of labels, those in the order of their names, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(FiguresCollector(lambda: figures))
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_durations_are_counted_up_to_each_bound() -> None:
    found = Durations()
    for seconds in (0.001, 0.05, 0.3, 5000.0):
        found.add(seconds)
    told = scraped({CYCLE: {("predictor",): found}})
    name = "forepath_cycle_duration_seconds"
    assert told[f"{name}_bucket", ("0.05", "predictor")] == 2 and told[f"{name}_bucket", ("0.5", "predictor")] == 3
    assert told[f"{name}_bucket", ("+Inf", "predictor")] == told[f"{name}_count", ("predictor",)] == 4
    assert told[f"{name}_sum", ("predictor",)] == pytest.approx(5000.351)


def test_an_orchestrators_cycles_add_up() -> None:
    now, tally = 1000.0, OrchestratorTally("earned")
    advised, done, failed = actions(now)
    report = CycleReport(now, 0.0, 2, issued=(done,), renewed=3, advised=(advised,), finished=(done, failed))
    tally.add(report, {"set_cpu_limit": KindStanding("set_cpu_limit", margin=1.5, earned=True)}, now + 0.2)
    tally.add(None, {}, now + 1)
    tally.add(replace(report, finished=()), {}, now + 2)
    told = scraped(tally.figures())
    assert told["forepath_actions_total", ("set_cpu_limit", "issued")] == 2
    assert told["forepath_actions_total", ("migrate_vm", OutcomeKind.FAILED.value)] == 1
    assert (
        told["forepath_leases_renewed_total", ()] == 6 and told["forepath_cycles_failed_total", ("orchestrator",)] == 1
    )
    assert told["forepath_action_lead_seconds_count", ("set_cpu_limit",)] == 1
    assert told["forepath_orchestrator_mode", ("earned",)] == 1 and told["forepath_orchestrator_mode", ("act",)] == 0
    assert {ACTIONS, LEAD} <= tally.figures().keys()


def test_what_the_database_knows_is_bounded_and_read_no_more_often_than_needed(filled: Store) -> None:
    times = [time.time()]
    stored = StoredFigures(filled, 1, clock=lambda: times[0])
    first = stored.figures()
    assert first.keys() <= set(STORED_METRICS) and first[UP] == {(): 1.0}
    assert len(first[PAIR]) == 1 and len(first[LINK_AHEAD]) == 1 and first[PAUSED] == {(): False}
    filled.pauses.pause(Pause(times[0], "somebody"))
    assert stored.figures() is first
    times[0] += 6
    assert stored.figures()[PAUSED] == {(): True}


def test_a_database_that_is_away_is_told_alone(empty: Store, tmp_path: Path) -> None:
    stored = StoredFigures(empty, 20)
    empty.close()
    (tmp_path / "forepath.db").write_bytes(b"no database at all" * 100)
    assert stored.figures() == {UP: {(): 0.0}}


def test_a_taken_port_does_not_end_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section = MetricsSection(port=taken.getsockname()[1])
        assert serve_metrics(section, "controller", dict) is None
    assert serve_metrics(MetricsSection(port=0), "controller", dict) is None


def test_a_port_is_free_again_when_its_process_has_ended() -> None:
    section = MetricsSection(port=free_ports(4))
    for _ in range(2):
        with serving_metrics(section, "controller", dict) as served:
            assert served and b"process_cpu_seconds_total" in asked(f"http://127.0.0.1:{section.port}/metrics")


def test_metrics_off_is_told_to_who_asks_for_nothing_else(forepath: Forepath, empty: Store, tmp_path: Path) -> None:
    with (tmp_path / "forepath.toml").open("a") as file:
        file.write("\n[metrics]\nport = 0\n")
    said = forepath("metrics")
    assert said.code == 3 and "[metrics] port" in said.err


class Watched(NamedTuple):
    """A running forepath, the Prometheus that scrapes it, and the socket where it tells systemd how it is."""

    port: int
    prometheus: int
    notified: socket.socket
    url: str


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has."""
    for first in range(21_000, 30_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no ports")


def asked(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def told(port: int, process: str) -> str:
    return asked(f"http://127.0.0.1:{MetricsSection(port=port).port_of(process)}/metrics").decode()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    port = free_ports(6)
    settings = paper_settings(folder / "forepath.db")
    changed = {"metrics": MetricsSection(port=port), "controller": settings.controller.tuned(port=port + 4)}
    changed |= {"web": settings.web.tuned(enabled=False)}
    settings = settings.model_copy(update=changed)
    (folder / "forepath.toml").write_text(as_toml(settings), encoding="utf-8")
    store = open_store(settings.database.url)
    declare(settings, store)
    fill(store)
    store.close()
    scrape = (ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")
    for number in range(4):
        scrape = scrape.replace(f":{9571 + number}", f":{port + number}")
    scrape = scrape.replace("scrape_interval: 5s", "scrape_interval: 1s").replace(
        "rules.yaml", str(ROOT / "deploy/prometheus/rules.yaml")
    )
    (folder / "prometheus.yaml").write_text(scrape, encoding="utf-8")
    server = (
        "prometheus",
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port + 5}",
    )
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(folder / "notify"))
    notified.settimeout(20)
    started = [
        subprocess.Popen(
            argv,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(folder / "notify")},
        )
        for argv in ((sys.executable, "-m", "forepath", "run"), server)
    ]
    try:
        until = time.monotonic() + 120
        while not _all_up(port + 5):
            assert time.monotonic() < until, [file.read_text()[-2000:] for file in (folder / ".run").glob("*.log")]
            time.sleep(0.5)
        yield Watched(port, port + 5, notified, settings.database.url)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(30)
        notified.close()


def query(port: int, expression: str) -> list[Any]:
    words = urllib.parse.urlencode({"query": expression})
    answer = json.loads(asked(f"http://127.0.0.1:{port}/api/v1/query?{words}"))
    assert answer["status"] == "success", (expression, answer)
    result: list[Any] = answer["data"]["result"]
    return result


def _all_up(prometheus: int) -> bool:
    try:
        return len(query(prometheus, 'up{job="forepath"} == 1')) == 4 and bool(query(prometheus, RATE))
    except OSError:
        return False


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_tells_what_the_page_says_and_promtool_finds_nothing_wrong(watched: Watched, process: str) -> None:
    text = told(watched.port, process)
    known = {one.full_name for name, metrics in CATALOGUE.items() if name.startswith(process) for one in metrics}
    families = set(NAME.findall("\n".join(line for line in text.splitlines() if line.startswith("# TYPE"))))
    assert families == known
    lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")


def test_prometheus_answers_what_the_dashboard_asks(watched: Watched) -> None:
    known = json.loads(asked(f"http://127.0.0.1:{watched.prometheus}/api/v1/metadata"))["data"].keys()
    for expression in expressions():
        query(watched.prometheus, expression)
        missing = {name for name in NAME.findall(expression) if re.sub("_(bucket|total)$", "", name) not in known}
        assert missing == set(), expression
    store = open_store(watched.url)
    fill(store)
    store.close()
    until, silent = time.monotonic() + 60, [*ALIVE, RATE]
    while silent and time.monotonic() < until:
        silent = [one for one in silent if not query(watched.prometheus, one)]
        time.sleep(0.5)
    assert silent == []
    assert query(watched.prometheus, "forepath_switches_connected")[0]["value"][1] == "0"
    # The page is switched off in these settings.
    running = {one["metric"]["program"] for one in query(watched.prometheus, "forepath_program_up == 1")}
    assert running >= {"controller", "predictor", "orchestrator"} and "web" not in running
    assert query(watched.prometheus, "count(count by (source) (forepath_pair_bytes_per_second))")


def test_each_process_tells_systemd_that_it_is_ready_and_lives(watched: Watched) -> None:
    words = []
    while words.count(b"READY=1") < 3 or words.count(b"WATCHDOG=1") < 3:
        words.append(watched.notified.recv(64))
        assert len(words) < 10_000
    assert set(words) == {b"READY=1", b"WATCHDOG=1"}
