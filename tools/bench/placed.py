"""Virtual IPs in a real switch: seconds until it holds them, and how much of many sources reaches the controller."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpdb import LabError, Node, NodeKind, Store, open_store
from forepath.demo.layout import ClientSpec, LabLayout, SwitchSpec
from ryu_apps.rules import KIND_SHIFT, OWNER, OWNER_MASK, OWNER_SHIFT, Kind
from tools.bench.crowd import FIRST_PORT, ConnectionPlan, arguments
from tools.bench.destinations import DESTINATIONS_AT, DestinationScale, DestinationWorld, virtual_ips
from tools.bench.figures import BenchTarget, Result, found_on_stage, tell
from tools.bench.packet_ins_app import FILE
from tools.bench.sustained import cpu_s
from tools.lab.lab import Lab

BURST, EACH, PER_S = 100, 10, 1000.0
PHASES = ("burst", "new_sources", "known_sources")
# Packets to the controller a connection, once it knows the sources
KNOWN_LIMIT = 0.01
_PATIENCE_S = 120.0
_LOOK_S = 0.1
_TRIES = 20
# So long nothing more is heard of connections before the next ones
_CALM_S = 1.0
_SWITCH = "leaf1"
LAYOUT = LabLayout(
    leaves=(SwitchSpec(_SWITCH, 0x11),),
    spines=(),
    clients=(
        ClientSpec("sources", "10.250.0.1", "02:00:0a:fa:00:01", _SWITCH, 11),
        ClientSpec("servers", "10.250.0.2", "02:00:0a:fa:00:02", _SWITCH, 12),
    ),
    hypervisors=(),
    vms=(),
    services=(),
    controller="tcp:127.0.0.1:6653",
)


def measure(scale: DestinationScale) -> Result:
    """Measures on a stage of its own, which needs root and Open vSwitch: LabError says what is missing."""
    return judge(found_on_stage("tools.bench.placed", [json.dumps(asdict(scale))]))


def judge(told: dict[str, Any]) -> Result:
    """Figures and targets from what was found."""
    found = {name: float(value) for name, value in told["held"].items()}
    for phase in PHASES:
        one = told[phase]
        found |= {f"{phase}_{name}": float(value) for name, value in one.items()}
        found[f"{phase}_to_controller"] = float(one["met"] + one["asked"])
    unserved = sum(told[phase]["opened"] - told[phase]["served"] for phase in PHASES)
    strangers = sum(told[phase]["from_strangers"] for phase in PHASES)
    known = found["known_sources_to_controller"] / found["known_sources_opened"]
    new = found["new_sources_to_controller"] / found["new_sources_opened"]
    targets = [
        BenchTarget(
            "rules in the switch beside those that were made", abs(found["held"] - found["expected"]), 0.0, "lower"
        ),
        BenchTarget("placing rules that sources add in the switch", found["placing_rules_added"], 0.0, "lower"),
        BenchTarget("connections not served", float(unserved), 0.0, "lower"),
        BenchTarget("answers in another name than the virtual IP's", float(strangers), 0.0, "lower"),
        BenchTarget("packets to the controller a connection of known sources", known, KNOWN_LIMIT, "lower"),
        BenchTarget("packets to the controller a connection of new sources", new, 1.0, "lower"),
    ]
    return Result(found, targets)


# ---- on the stage


@dataclass(slots=True)
class _Bench:
    """The running lab, its database, and what the controller's companion has counted."""

    lab: Lab
    store: Store
    counted: Path
    # Of the controller
    pid: int = 0

    @contextlib.contextmanager
    def client(self, name: str, *words: str) -> Iterator["subprocess.Popen[Any]"]:
        """Many hosts in one namespace; they end with the block."""
        argv = [sys.executable, "-m", "tools.bench.crowd", words[0], f"{name}-eth0", *words[1:]]
        process = self.lab.fabric.client_popen(name, argv, stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def packet_ins(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.counted.read_text(encoding="utf-8"))
        return found


def _on_stage(folder: Path, scale: DestinationScale) -> dict[str, Any]:
    url = f"sqlite:///{folder / 'cpdb.db'}"
    store = open_store(url)
    store.inventory.put_nodes(Node(one.name, NodeKind.SWITCH, dpid=one.dpid) for one in LAYOUT.switches)
    bench = _Bench(Lab(LAYOUT, run_directory=folder / "run", vms=False), store, folder / "packet-ins.json")
    try:
        bench.lab.start()
        with _controller(bench, url), _servers(bench, scale):
            held = _declare(bench, scale)
            return {"held": held, **_phases(bench, scale, held)}
    finally:
        bench.lab.stop()
        store.close()


@contextlib.contextmanager
def _controller(bench: _Bench, url: str) -> Iterator[None]:
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.controller", "tools.bench.packet_ins_app"]
    argv += ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"]
    process = bench.lab.popen("controller", argv, {"FOREPATH_DATABASE_URL": url, FILE: str(bench.counted)})
    bench.pid = process.pid
    try:
        _until("the controller reaches the switch", lambda: _rules() > 0)
        # Ports have to show first that no switch is behind them.
        time.sleep(3.0)
        yield
    except LabError as error:
        log = (bench.lab.run_directory / "controller.log").read_text(encoding="utf-8", errors="replace").splitlines()
        raise LabError(f"{error}; the controller's last word: {log[-1] if log else 'none'}") from error
    finally:
        process.kill()
        process.wait(timeout=10)


@contextlib.contextmanager
def _servers(bench: _Bench, scale: DestinationScale) -> Iterator[None]:
    count = scale.vips * scale.destinations
    with bench.client("servers", "serve", str(count)) as serving:
        with bench.client("servers", "announce", str(count)):
            _until(f"the controller knows {count} destinations", lambda: _rules(Kind.HOST) >= count)
        assert serving.poll() is None
        yield


def _declare(bench: _Bench, scale: DestinationScale) -> dict[str, float]:
    """Declares all virtual IPs; returns when the switch holds their rules."""
    declared = virtual_ips(scale)
    before, expected = _rules(), _made(scale)
    begin = time.monotonic()
    bench.store.inventory.declare_virtual_ips(list(declared.values()))
    written = time.monotonic()
    _until(f"the switch holds {expected} rules more", lambda: _rules() - before >= expected)
    return {
        "writing_them_down_s": written - begin,
        "declared_to_held_s": time.monotonic() - written,
        "expected": float(expected),
        "held": float(_rules() - before),
    }


def _made(scale: DestinationScale) -> int:
    """How many rules these virtual IPs take in a switch with hosts, beside those for hosts."""
    world = DestinationWorld(virtual_ips(scale))
    before = len(world.rules(DESTINATIONS_AT.dpid).rules)
    world.declare(world.virtual_ips)
    return len(world.rules(DESTINATIONS_AT.dpid).rules) - before


def _phases(bench: _Bench, scale: DestinationScale, held: dict[str, float]) -> dict[str, Any]:
    """A burst of sources, then all others for the first time, then those once more with other connections."""
    placing, burst = _placing(), min(BURST, scale.sources)
    plans = {
        "burst": ConnectionPlan(scale.vips, burst, first=scale.sources),
        "new_sources": ConnectionPlan(scale.vips, scale.sources, EACH, PER_S),
        "known_sources": ConnectionPlan(scale.vips, scale.sources, EACH, PER_S, FIRST_PORT + EACH),
    }
    found: dict[str, Any] = {name: _open(bench, plan) for name, plan in plans.items()}
    held["placing_rules_added"] = float(_placing() - placing)
    held["counting_rules"] = float(_rules(Kind.PAIR) + _rules(Kind.PAIR_SYN))
    return found


def _open(bench: _Bench, plan: ConnectionPlan) -> dict[str, float]:
    """Opens connections; returns what became of them and what the controller heard of them."""
    before = _calm(bench)
    cpu, begin = cpu_s(bench.pid), time.monotonic()
    with bench.client("sources", "open", arguments(plan)) as process:
        try:
            told, _ = process.communicate(timeout=plan.patience_s + _PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise LabError(f"{plan.count} sources did not end") from None
        if process.returncode:
            raise LabError(f"the sources ended with exit code {process.returncode}")
    after = _calm(bench)
    found: dict[str, float] = json.loads(told)
    found["controller_cores"] = (cpu_s(bench.pid) - cpu) / (time.monotonic() - begin)
    return found | {name: float(after[name] - before[name]) for name in ("met", "asked")}


def _calm(bench: _Bench) -> dict[str, int]:
    """What the controller has heard, once it hears nothing more of connections."""
    found, end = bench.packet_ins(), time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        time.sleep(_CALM_S)
        before, found = found, bench.packet_ins()
        if all(before[name] == found[name] for name in ("met", "asked")):
            break
    return found


def _rules(kind: Kind | None = None) -> int:
    """How many rules of ours the switch holds, of this kind or in all."""
    value, mask = OWNER << OWNER_SHIFT, OWNER_MASK
    if kind is not None:
        value, mask = value | kind << KIND_SHIFT, mask | 0xF << KIND_SHIFT
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", _SWITCH, f"cookie={value:#x}/{mask:#x}"]
    for _ in range(_TRIES):
        said = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        count = re.search(r"flow_count=(\d+)", said.stdout)
        if count is not None:
            return int(count[1])
        # A switch that is busy refuses to talk now and then.
        time.sleep(_LOOK_S)
    raise LabError(f"the switch does not say what it holds: {said.stderr.strip()}")


def _placing() -> int:
    """Rules in the switch that place connections, and its few basic ones: all but those for hosts and for counting."""
    return _rules() - _rules(Kind.HOST) - _rules(Kind.PAIR) - _rules(Kind.PAIR_SYN)


def _until(what: str, check: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not check():
        if time.monotonic() > end:
            raise LabError(f"not within {_PATIENCE_S:g} s: {what}; it holds {_rules()} rules of ours")
        time.sleep(_LOOK_S)


def _look(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    return _on_stage(folder, DestinationScale(**json.loads(words[0])))


if __name__ == "__main__":
    sys.exit(tell("forepath bench destinations", sys.argv[1:], _look))
