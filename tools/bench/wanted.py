"""From a row that says what is wanted to rules in a real switch and back as observed: milliseconds on a stage."""

import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpdb import InstallStatus, LabError, Limit, Node, NodeKind, Pair, Reservation, ReservationReport, Store, open_store
from forepath.demo.layout import ClientSpec, LabLayout
from tools.bench.figures import BenchTarget, Result, median
from tools.bench.staged import found_on_stage, tell
from tools.lab.lab import Lab

LIMIT_S = 0.15
CHANGES, RULES = 21, 1000
LEASE_S = 600.0
_PATIENCE_S = 60.0
_LOOK_S = 0.005
SOURCE, OTHER = "10.77.0.1", "10.77.0.2"
LAYOUT = LabLayout(
    clients=(
        ClientSpec("c1", SOURCE, "02:00:0a:4d:00:01", "leaf1", 11),
        ClientSpec("c2", OTHER, "02:00:0a:4d:00:02", "leaf1", 12),
    )
)


def measure(changes: int = CHANGES, rules: int = RULES) -> Result:
    """Measures on a stage of its own, which needs root and Open vSwitch: LabError says what is missing."""
    return judge(found_on_stage("tools.bench.wanted", [str(changes), str(rules)])["seconds"], rules)


def judge(seconds: list[float], rules: int) -> Result:
    """Figures and the target; the first change, which only adds, does not count."""
    later = sorted(seconds[1:])
    p95 = later[min(len(later) - 1, math.ceil(0.95 * len(later)) - 1)]
    figures = {
        "changed_rules": float(rules),
        "wanted_to_observed_median_s": median(later),
        "wanted_to_observed_p95_s": p95,
        "wanted_to_observed_slowest_s": later[-1],
    }
    return Result(
        figures, [BenchTarget(f"wanted row to observed, {rules} changed rules, p95 s", p95, LIMIT_S, "lower")]
    )


# ---- on the stage


def _on_stage(folder: Path, changes: int, rules: int) -> list[float]:
    url = f"sqlite:///{folder / 'cpdb.db'}"
    store = open_store(url)
    store.inventory.put_nodes(Node(one.name, NodeKind.SWITCH, dpid=one.dpid) for one in LAYOUT.switches)
    store.inventory.put_nodes(Node(one.name, NodeKind.CLIENT, one.address, one.mac) for one in LAYOUT.clients)
    lab = Lab(LAYOUT, run_directory=folder / "run", vms=False)
    try:
        lab.start()
        with _controller(lab, url):
            _introduce(lab)
            seconds = [_change(store, number, rules) for number in range(changes)]
            _check(rules)
        return seconds
    finally:
        lab.stop()
        store.close()


@contextlib.contextmanager
def _controller(lab: Any, url: str) -> Iterator[None]:
    manager = Path(sys.executable).with_name("ryu-manager")
    argv = [str(manager), "ryu_apps.controller", "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"]
    process = lab.popen("controller", argv, {"FOREPATH_DATABASE_URL": url})
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


def _introduce(lab: Any) -> None:
    # A source that has said nothing yet has no place, and no rules anywhere.
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        ping = ["ping", "-c", "1", "-W", "1", OTHER]
        process = lab.fabric.client_popen("c1", ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if process.wait(timeout=10) == 0:
            return
        time.sleep(0.3)
    raise LabError(f"the lab's clients did not reach each other within {_PATIENCE_S:g} s")


def _change(store: Store, number: int, rules: int) -> float:
    """Wants limits for other addresses than before; returns when the switch is known to have them, and no others."""
    # An even step of time would meet the controller's own rhythm always at the same point.
    time.sleep(0.7 + 0.137 * (number % 7))
    now = time.time()
    addresses = [f"10.{88 + number % 2}.{place >> 8}.{place & 255}" for place in range(rules)]
    limits = tuple(Limit(Pair(SOURCE, address), 1e5 + number) for address in addresses)
    wanted = Reservation("bench", Pair(OTHER, addresses[0]), 1e6, limits, "bench", "a measurement", now, now + LEASE_S)
    begin = time.monotonic()
    generation = store.wanted.reserve(wanted)
    while time.monotonic() - begin < _PATIENCE_S:
        told = [
            report
            for report in store.wanted.observed_of(ReservationReport)
            if report.key == "bench" and report.generation >= generation
        ]
        if told:
            if told[0].status is not InstallStatus.INSTALLED:
                raise LabError(f"the switch answered {told[0].status}: {told[0].detail}")
            return time.monotonic() - begin
        time.sleep(_LOOK_S)
    raise LabError(f"{rules} limits were not observed within {_PATIENCE_S:g} s")


def _check(rules: int) -> None:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", "leaf1"]
    held = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    limited = sum("meter:" in line for line in held.splitlines())
    if limited != rules:
        raise LabError(f"the switch holds {limited} rules with a meter where {rules} are wanted")


def _look(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    changes, rules = words
    return {"seconds": _on_stage(folder, int(changes), int(rules))}


if __name__ == "__main__":
    sys.exit(tell("forepath bench plan", sys.argv[1:], _look))
