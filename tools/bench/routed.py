"""Half a fat-tree of real switches under heavy-tailed traffic, with routing off and on: what is lost, late, and moved.

Two pods of the fat-tree of 4-port switches (Al-Fares et al., SIGCOMM 2008) with its four cores: four ways between pods.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpdb import MBIT, LabError, OutcomeKind, Store, open_store
from forepath.demo.layout import ClientSpec, LabLayout, SwitchSpec
from forepath.demo.scene import as_tables, as_toml, scene
from forepath.settings import Settings, declare, load_settings
from tools.bench import numbered
from tools.bench.figures import BenchTarget, Result, found_on_stage, tell
from tools.bench.numbered import TrafficPlan
from tools.lab.lab import Lab

EDGES, HALF = 4, 2
WARM_UP_S, CALM_S, PATIENCE_S = 20.0, 5.0, 60.0
WAYS = ("off", "on")


@dataclass(frozen=True, slots=True)
class RoutedScale:
    """`minutes` of each, in `blocks` by turns; `load` of what the edge switches can send; links of `link_mbit`."""

    minutes: float = 10.0
    blocks: int = 2
    load: float = 0.55
    link_mbit: float = 5.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class TreeLayout(LabLayout):
    """Switches that are joined as `wires` say."""

    wires: tuple[tuple[str, int, str, int], ...] = ()

    def fabric_ports(self) -> list[tuple[str, int, str, int]]:
        """All links between switches."""
        return list(self.wires)


def tree(link_mbit: float) -> TreeLayout:
    """Four edge switches with a crowd of sources and a server each, two aggregations a pod, four cores."""
    edges = tuple(SwitchSpec(f"e{n}", 0x10 + n) for n in range(1, EDGES + 1))
    above = tuple(SwitchSpec(f"a{n}", 0x20 + n) for n in range(1, EDGES + 1))
    cores = tuple(SwitchSpec(f"k{n}", 0x30 + n) for n in range(1, HALF * HALF + 1))
    wires = []
    for pod in range(EDGES // HALF):
        for up in range(HALF):
            for n in range(HALF):
                wires.append((f"e{pod * HALF + n + 1}", up + 1, f"a{pod * HALF + up + 1}", n + 1))
                wires.append((f"a{pod * HALF + up + 1}", HALF + n + 1, f"k{up * HALF + n + 1}", pod + 1))
    clients = [
        ClientSpec(
            f"{kind}{n}", f"10.77.{200 + place}.{n}", f"02:00:0a:4d:{200 + place:02x}:{n:02x}", f"e{n}", 11 + place
        )
        for place, kind in enumerate("cs")
        for n in range(1, EDGES + 1)
    ]
    return TreeLayout(
        edges, above + cores, tuple(clients), (), (), (), link_mbit * MBIT, prefix_length=16, wires=tuple(wires)
    )


def measure(scale: RoutedScale, say: Callable[[str], None]) -> Result:
    """Measures on a stage of its own, which needs root and Open vSwitch: LabError says what is missing."""
    say(f"about {(2 * scale.minutes * 60 + WARM_UP_S + 60) / 60:.0f} minutes")
    return judge(found_on_stage("tools.bench.routed", [json.dumps(asdict(scale))]))


def judge(told: dict[str, Any]) -> Result:
    """Figures and targets from what was found."""
    found = {f"{way}_{name}": float(value) for way in WAYS for name, value in told[way].items()}
    for way in WAYS:
        found[f"{way}_lost_share"] = 1 - found[f"{way}_received"] / max(found[f"{way}_sent"], 1)
    off, on = (told[way]["congested_s"] for way in WAYS)
    lost = found["on_lost_share"] / max(found["off_lost_share"], 1e-9)
    targets = [
        BenchTarget("seconds with a link that drops, on beside off", on / max(off, 1), 1.0, "lower"),
        BenchTarget("share lost, on beside off", lost, 1.0, "lower"),
        BenchTarget("packets overtaken by a later one of their connection, on", found["on_overtaken"], 0.0, "lower"),
    ]
    return Result(found, targets)


# ---- on the stage


@dataclass(slots=True)
class _RoutedStage:
    """The running lab, its database, and its settings."""

    lab: Lab
    store: Store
    folder: Path
    scale: RoutedScale

    def settings(self, way: str) -> Path:
        """The file with routing as it is by default, or off. Nobody is limited: that would relieve links, too."""
        layout, told = self.lab.layout, self.folder / f"{way}.toml"
        tables = as_tables(scene(layout, self.folder / "cpdb.db", {}, {}))
        servers = [layout.client(f"s{n}") for n in range(1, EDGES + 1)]
        tables["virtual_ip"] = [
            {
                "name": f"v{n}",
                "address": numbered.virtual_ip(n),
                "priority": 10,
                "destination": [{"name": one.name, "address": one.address, "mac": one.mac, "weight": 100}],
            }
            for n, one in enumerate(servers, 1)
        ]
        tables["routing"] = {"enabled": "auto" if way == "on" else False}
        tables["orchestrator"] = {"guard": {"budgets": {"per_minute": {"reserve_bandwidth": 0}}}}
        tables["metrics"] = {"port": 0}
        told.write_text(as_toml(Settings.model_validate(tables)), encoding="utf-8")
        return told

    @contextlib.contextmanager
    def running(self, name: str, argv: Sequence[str], settings: Path) -> Iterator[None]:
        """A process of forepath."""
        process = self.lab.popen(name, [sys.executable, "-m", *argv], {"FOREPATH_SETTINGS": str(settings)})
        try:
            yield
            if process.poll() is not None:
                raise LabError(f"{name} has ended: {self.last_word(name)}")
        finally:
            process.terminate()
            process.wait(timeout=20)

    def last_word(self, name: str) -> str:
        log = (self.lab.run_directory / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return log[-1] if log else "nothing was said"

    @contextlib.contextmanager
    def receivers(self) -> Iterator[None]:
        argv = [sys.executable, "-m", "tools.bench.numbered", "receive"]
        begun = [self.lab.fabric.client_popen(f"s{n}", [*argv, str(self._told(n))]) for n in range(1, EDGES + 1)]
        try:
            yield
        finally:
            for process in begun:
                process.kill()
                process.wait()

    def _told(self, edge: int) -> Path:
        return self.folder / f"received-{edge}.json"

    def received(self, phase: int) -> list[int]:
        """How many came of a phase, and how many of these late."""
        told = [json.loads(path.read_text()) for n in range(1, EDGES + 1) if (path := self._told(n)).exists()]
        return [sum(one.get(str(phase), (0, 0))[place] for one in told) for place in range(2)]

    def talk(self, phase: int, seed: int, seconds: float) -> dict[str, int]:
        """All sources send for so long; what links and packets had of it."""
        rate = self.scale.load * EDGES * HALF * self.lab.layout.fabric_bytes_per_s
        most = 0.9 * self.lab.layout.fabric_bytes_per_s
        plans = [TrafficPlan(n, phase, seconds, seed, rate, most) for n in range(1, EDGES + 1)]
        senders = [self._sender(plan) for plan in plans]
        congested, before, begin, actions = 0, self._drops(), time.time(), self._moves
        while any(one.poll() is None for one in senders):
            time.sleep(1.0)
            now = self._drops()
            congested, before = congested + (now > before), now
            if time.time() - begin > seconds + PATIENCE_S:
                raise LabError("the sources did not end")
        told = [json.loads(one.communicate()[0]) for one in senders]
        time.sleep(CALM_S / 2)
        came, overtaken = self.received(phase)
        return {
            "seconds": round(seconds),
            "sent": sum(one["sent"] for one in told),
            "left_out": sum(one["late"] for one in told),
            "received": came,
            "overtaken": overtaken,
            "congested_s": congested,
            **actions(begin),
        }

    def _sender(self, plan: TrafficPlan) -> "subprocess.Popen[Any]":
        name, argv = f"c{plan.edge}", [sys.executable, "-m", "tools.bench.numbered", "send"]
        words = [*argv, f"{name}-eth0", numbered.arguments(plan)]
        return self.lab.fabric.client_popen(name, words, stdout=subprocess.PIPE, text=True)

    def _drops(self) -> int:
        inner = {one.name for one in self.lab.layout.switches}
        return sum(one.drops for ends, one in self.lab.link_counters().items() if {*ends} <= inner)

    def _moves(self, since: float) -> dict[str, int]:
        rows = [one for one in self.store.journal.actions(since=since, limit=100_000) if one.kind == "set_routes"]
        done = [one for one in rows if one.outcome is OutcomeKind.DONE]
        return {
            "actions": len(rows),
            "actions_done": len(done),
            "splits_changed": sum(len(one.body["changes"]) for one in done),
        }


def _on_stage(folder: Path, scale: RoutedScale) -> dict[str, Any]:
    store = open_store(f"sqlite:///{folder / 'cpdb.db'}")
    bench = _RoutedStage(Lab(tree(scale.link_mbit), run_directory=folder / "run", vms=False), store, folder, scale)
    found: dict[str, dict[str, int]] = {way: {} for way in WAYS}
    try:
        bench.lab.start()
        declare(load_settings(bench.settings("off")), store)
        argv = ["forepath.commands.ryu_manager", "ryu_apps.controller", "--ofp-listen-host", "127.0.0.1"]
        controller = bench.running("controller", [*argv, "--ofp-tcp-listen-port", "6653"], bench.settings("off"))
        with controller, bench.receivers():
            warm = bench.talk(0, scale.seed, WARM_UP_S)
            if warm["received"] < warm["sent"] / 4:
                word = bench.last_word("controller")
                raise LabError(f"of {warm['sent']} packets {warm['received']} arrived; the controller: {word}")
            for number in range(2 * scale.blocks):
                _add(found[WAYS[number % 2]], _block(bench, number))
        return {**found, "warm_up": warm}
    finally:
        bench.lab.stop()
        store.close()


def _block(bench: _RoutedStage, number: int) -> dict[str, int]:
    """One block with routing off or on; both of a turn have the same traffic."""
    way, seconds = WAYS[number % 2], bench.scale.minutes * 60 / bench.scale.blocks
    with bench.running("orchestrator", ["forepath", "orchestrate", "--act"], bench.settings(way)):
        time.sleep(CALM_S)
        found = bench.talk(number + 1, bench.scale.seed + 1 + number // 2, seconds)
    print(f"block {number + 1}, routing {way}: {found}", file=sys.stderr, flush=True)
    bench.store.wanted.clear_splits()
    time.sleep(CALM_S)
    return found


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _look(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    return _on_stage(folder, RoutedScale(**json.loads(words[0])))


if __name__ == "__main__":
    sys.exit(tell("forepath bench routing", sys.argv[1:], _look))
