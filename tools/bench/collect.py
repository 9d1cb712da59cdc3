"""`forepath bench collect`: a real Open vSwitch full of entries is polled, by forepath and by Ryu's own parser."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpdb import LabError
from tools.bench.collect_app import POLLS, READER
from tools.bench.figures import BenchTarget, Result, found_on_stage, median, tell
from tools.bench.sustained import sustained
from tools.lab.stage import run
from tools.lab.switches import start_daemons

LEAST_TIMES_LESS_CPU = 50.0
LONGEST_STALL_S = 0.1
LEAST_ENTRIES_PER_CPU_S = 50_000.0
BRIDGE = "bench0"
PORT = 6653
_PATIENCE_S = 240.0
_READERS = ("forepath", "ryu")
# Ryu takes seconds for one
_MOST_SLOW_POLLS = 3


@dataclass(frozen=True, slots=True)
class CollectScale:
    """How much is measured: entries in the switch, polls by each reader, seconds of the sustained part."""

    flows: int = 50_000
    polls: int = 5
    sustained_s: float = 20.0


def measure(scale: CollectScale) -> Result:
    """Measures on a stage of its own, which needs root and Open vSwitch: LabError says what is missing."""
    return judge(found_on_stage("tools.bench.collect", [str(scale.flows), str(scale.polls), str(scale.sustained_s)]))


def judge(found: dict[str, Any]) -> Result:
    """Figures and targets from what was found: the median poll of each reader counts."""
    figures: dict[str, float] = {"flows": float(found["flows"])}
    for reader in _READERS:
        polls = found[reader]
        for name in ("wall_s", "cpu_s", "stall_s", "stall_cpu_s", "peak_memory_bytes"):
            figures[f"{reader}_{name}"] = median(poll[name] for poll in polls)
        figures[f"{reader}_longest_stall_of_all_s"] = max(poll["stall_s"] for poll in polls)
    figures["times_less_cpu"] = figures["ryu_cpu_s"] / figures["forepath_cpu_s"]
    figures |= {f"sustained_{name}": value for name, value in found["sustained"].items()}
    return Result(
        figures,
        [
            BenchTarget("times less CPU than Ryu's parser", figures["times_less_cpu"], LEAST_TIMES_LESS_CPU, "higher"),
            BenchTarget("longest stall of the event loop, s", figures["forepath_stall_s"], LONGEST_STALL_S, "lower"),
            BenchTarget(
                "entries a CPU second, accounting and SQLite included",
                figures["sustained_entries_per_cpu_s"],
                LEAST_ENTRIES_PER_CPU_S,
                "higher",
            ),
        ],
    )


# ---- on the stage


def _fill_switch(flows: int) -> None:
    # A controller is set first: a bridge that gets its first controller forgets its flows.
    start_daemons()
    bridge = ["--", "set", "bridge", BRIDGE, "datapath_type=netdev", "protocols=OpenFlow13", "fail_mode=secure"]
    run(["ovs-vsctl", "--may-exist", "add-br", BRIDGE, *bridge])
    run(["ovs-vsctl", "set-controller", BRIDGE, f"tcp:127.0.0.1:{PORT}"])
    run(["ovs-vsctl", "set", "controller", BRIDGE, "max_backoff=1000", "inactivity_probe=60000"])
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
        for number in range(flows):
            source, to = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "10.99.0.1"
            file.write(f"cookie={number + 1},priority=5,ip,nw_src={source},nw_dst={to},actions=output:1\n")
        file.flush()
        run(["ovs-ofctl", "-O", "OpenFlow13", "add-flows", BRIDGE, file.name], timeout_s=_PATIENCE_S)


def _poll_with(reader: str, polls: int) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "tools.bench.collect_app"]
    argv += ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(PORT)]
    env = os.environ | {READER: reader, POLLS: str(polls)}
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no answer to {polls} polls within {_PATIENCE_S:g} s ({reader})") from error
    if done.returncode:
        raise LabError(f"the reader {reader} ended with exit code {done.returncode}: {done.stderr[-400:]}")
    polled: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return polled


def _on_stage(flows: int, polls: int, seconds: float) -> dict[str, Any]:
    _fill_switch(flows)
    found: dict[str, Any] = {"flows": flows}
    for reader in _READERS:
        found[reader] = _poll_with(reader, polls if reader == "forepath" else min(polls, _MOST_SLOW_POLLS))
        got = {poll["entries"] for poll in found[reader]}
        if got != {flows}:
            raise LabError(f"{reader} read {sorted(got)} entries where the switch holds {flows}")
    found["sustained"] = sustained(flows, seconds)
    return found


def _look(_folder: Path, words: Sequence[str]) -> dict[str, Any]:
    flows, polls, seconds = words
    return _on_stage(int(flows), int(polls), float(seconds))


if __name__ == "__main__":
    sys.exit(tell("forepath bench collect", sys.argv[1:], _look))
