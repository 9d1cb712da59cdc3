"""`forepath whatif` as an outsider checks it: recordings of his own, figures recomputed from the timeline's rows."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from lab_on_paper import Forepath
from whatif_checker import Checker

Table = dict[str, Any]
Columns = dict[str, list[float | None]]


def client(name: str) -> Table:
    return {"name": name, "kind": "client"}


def link(a: str, b: str, mbit: float) -> Table:
    return {"a": a, "b": b, "capacity_mbit_per_s": mbit}


def machine(name: str, base: float, most: float, **more: Any) -> Table:
    return {"name": name, "cpu_cores_base": base, "cpu_cores_max": most, **more}


def service(name: str, number: int, priority: int, *behind: str, **more: Any) -> Table:
    mac = f"52:54:00:00:{number:02x}"
    destinations = [
        {"name": vm, "address": f"10.0.{number}.{at}", "mac": f"{mac}:{at:02x}"} for at, vm in enumerate(behind, 1)
    ]
    return {"name": name, "address": f"10.9.0.{number}", "priority": priority, "destination": destinations, **more}


def network(hosts: Iterable[str], **tables: Any) -> Table:
    """Two clients at 80 Mbit/s and hosts of two cores at 8, all at one switch; light models."""
    ends = [*(("c1", 80.0), ("c2", 80.0)), *((name, 8.0) for name in hosts)]
    return {
        "predictor": {"models": ["naive", "ewma"], "slow": {"horizons_s": []}, "long": {"horizons_s": []}},
        "node": [{"name": "sw", "kind": "switch", "dpid": 1}, client("c1"), client("c2")],
        "link": [link("sw", name, mbit) for name, mbit in ends],
        "host": [{"name": name, "uri": "test:///default", "cpu_cores": 2.0, "memory_mib": 4096} for name in hosts],
        **tables,
    }  # fmt: skip


def wave(seconds: int, low: float, high: float, every: int = 12, long: int = 5) -> list[float | None]:
    return [high if t % every >= every - long else low for t in range(seconds)]


@dataclass
class Case:
    """One outsider's recording: rows by column, the times of its rows, and words for the command."""

    settings: Table
    columns: Columns
    times: list[int]
    words: tuple[str, ...] = ()
    policies: tuple[str, ...] = ("static", "reactive", "predictive", "oracle")
    warm_up: float = 0.5
    left_out: int = 0
    cells: dict[tuple[str, int], str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / "site.toml").write_text(tomli_w.dumps(self.settings), encoding="utf-8")
        lines = [",".join(["t", *self.columns])]
        for place, t in enumerate(self.times):
            row = [self.cells.get((name, place), f"{values[place]:.10g}") for name, values in self.columns.items()]
            lines.append(",".join([str(t), *row]))
        (folder / "load.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def three_services() -> Case:
    """Three ranks on two hosts; links and CPU run short in waves; requests cost by connection and by megabyte."""
    settings = network(
        ("hA", "hB"),
        virtual_ip=[service("shop", 1, 10, "shop1"), service("api", 2, 5, "api1"), service("bulk", 3, 0, "bulk1")],
        vm=[
            machine(
                "shop1", 0.3, 1.5, host="hA", priority=10, vcpus_max=2, cpu_ms_per_connection=10.0, cpu_ms_per_mb=200
            ),
            machine("api1", 0.3, 1.0, host="hB", priority=5, cpu_ms_per_connection=20.0),
            machine("bulk1", 0.3, 0.5, host="hA"),
            machine("batch", 0.5, 0.5, movable=True),
        ],
    )
    seconds = 48
    columns: Columns = {
        "c1>shop": wave(seconds, 1e5, 9e5),
        "c1>shop:connections": wave(seconds, 5, 60),
        "c2>api:connections": wave(seconds, 8, 40, 16),
        "c2>api": wave(seconds, 1e4, 5e4, 16),
        "c2>bulk": wave(seconds, 2e5, 6e5, 24),
        "vm:batch:cores": [0.6] * seconds,
        "vm:bulk1:cores": wave(seconds, 0.1, 0.4, 10),
    }
    return Case(settings, columns, list(range(100, 148)))


def several_destinations() -> Case:
    """One service placed by connection over weights, one by source with a stand-by; rows out of order, blank cells."""
    placed = service("web", 1, 3, "web1", "web2", affinity="connection")
    placed["destination"][1]["weight"] = 50
    kept = service("files", 2, 3, "files1", "files2")
    kept["destination"][1]["weight"] = 0
    settings = network(
        ("hA", "hB", "hC"),
        virtual_ip=[placed, kept],
        vm=[
            machine("web1", 0.3, 1.0, cpu_ms_per_connection=10.0),
            machine("web2", 0.3, 1.0, cpu_ms_per_connection=10.0),
            machine("files1", 0.2, 1.0, cpu_ms_per_mb=500.0),
            machine("files2", 0.2, 1.0, cpu_ms_per_mb=500.0),
        ],
    )
    seconds = 36
    columns: Columns = {
        "c1>web": wave(seconds, 1e5, 8e5),
        "c1>web:connections": wave(seconds, 10, 80),
        "c2>10.9.0.2": wave(seconds, 2e5, 1.2e6, 18, 6),
    }
    times = list(range(seconds))
    times[30], times[31] = 31, 30
    for values in columns.values():
        values[30], values[31] = values[31], values[30]
    blank = {("c1>web", 25): "", ("c2>10.9.0.2", 20): "nan"}
    return Case(settings, columns, times, ("--seed", "3"), left_out=2, cells=blank)


def a_pool() -> Case:
    """A service whose machine cannot carry a surge, and a paused one that may help."""
    member = {"name": "web2", "address": "10.0.1.9", "mac": "52:54:00:00:01:09", "host": "hB"}
    settings = network(
        ("hA", "hB"),
        virtual_ip=[service("web", 1, 5, "web1"), service("bulk", 2, 0, "bulk1")],
        vm=[machine("web1", 0.4, 0.8, host="hA", cpu_ms_per_connection=10.0), machine("bulk1", 0.2, 0.2, host="hB")],
        pool=[
            {"virtual_ip": "web", "machine": {"cpu_cores_base": 0.4, "cpu_cores_max": 0.8}, "member": [member]},
        ],
    )
    seconds = 60
    columns: Columns = {
        "c1>web": wave(seconds, 5e4, 2e5, 60, 45),
        "c1>web:connections": wave(seconds, 10, 70, 60, 45),
        "c2>web:connections": wave(seconds, 10, 60, 60, 45),
        "c2>bulk": [3e5] * seconds,
    }
    return Case(settings, columns, list(range(seconds)), policies=("static", "reactive", "oracle"), warm_up=10)


def two_ways() -> Case:
    """Two ways between the switches, split where routing is on; one client fills one of them."""
    settings = network(
        ("hA",),
        virtual_ip=[service("shop", 1, 10, "shop1"), service("bulk", 2, 0, "bulk1")],
        vm=[machine("shop1", 0.2, 1.0), machine("bulk1", 0.2, 0.3)],
        routing={"enabled": True},
    )
    settings["node"] += [{"name": one, "kind": "switch", "dpid": at} for at, one in enumerate(("m1", "m2", "core"), 2)]
    settings["link"][-1] = link("core", "hA", 40.0)
    settings["link"] += [link(*ends, 8.0) for ends in (("sw", "m1"), ("m1", "core"), ("sw", "m2"), ("m2", "core"))]
    seconds = 40
    columns: Columns = {"c1>shop": wave(seconds, 4e5, 9e5), "c2>bulk": [6e5] * seconds}
    return Case(settings, columns, list(range(seconds)), policies=("static", "reactive", "oracle"))


def gaps_and_moves() -> Case:
    """Ten seconds a row with rows missing; a full host that a machine may leave over links that carry others."""
    settings = network(
        ("hA", "hB"),
        virtual_ip=[service("shop", 1, 10, "shop1")],
        vm=[
            machine("shop1", 0.8, 1.6, host="hA", priority=10, vcpus_max=2, cpu_ms_per_connection=20.0),
            machine("batch", 1.0, 1.0, host="hA", movable=True, memory_mib_min=64),
        ],
        orchestrator={"moves": {"over_links": True, "mbit_per_s": 6.0}},
    )
    kept = [at for at in range(15) if at not in (6, 11)]
    high = [at in (4, 5, 8, 9, 10, 13) for at in kept]
    columns: Columns = {
        "c1>shop": [3e5 if one else 1e5 for one in high],
        "c1>shop:connections": [70.0 if one else 10.0 for one in high],
        "vm:batch:cores": [0.9] * len(kept),
    }
    return Case(settings, columns, [10 * at for at in kept], ("--policies", "static,reactive,oracle"),
                ("static", "reactive", "oracle"), warm_up=30, left_out=2)  # fmt: skip


def loads(case: Case) -> tuple[dict[int, bool], dict[str, dict[int, tuple[float, float]]], dict[str, dict[int, float]]]:
    """What each second of the recording asks for, by the issue's rules alone."""
    services = {one["address"]: one["name"] for one in case.settings["virtual_ip"]}
    order = sorted(range(len(case.times)), key=lambda place: case.times[place])
    step = min(case.times[after] - case.times[before] for before, after in pairwise(order))
    known: dict[int, bool] = {}
    offered: dict[str, dict[int, tuple[float, float]]] = {}
    cores: dict[str, dict[int, float]] = {}
    kept: dict[str, float] = {}
    for place in order:
        for name, values in case.columns.items():
            if case.cells.get((name, place)) is None:
                kept[name] = values[place] or 0.0
            for t in range(case.times[place], case.times[place] + step):
                t -= case.times[order[0]]
                known[t] = True
                if name.startswith("vm:"):
                    cores.setdefault(name.split(":")[1], {})[t] = kept[name]
                    continue
                bare = name.removesuffix(":connections")
                source, end = bare.split(">")
                pair = offered.setdefault(f"{source}>{services.get(end, end)}", {})
                size, connections = pair.get(t, (0.0, 0.0))
                pair[t] = (kept[name], connections) if bare == name else (size, kept[name])
    return known, offered, cores


@pytest.mark.parametrize("made", [three_services, several_destinations, a_pool, two_ways, gaps_and_moves])
def test_figures_follow_from_the_rows(forepath: Forepath, tmp_path: Path, made: Any) -> None:
    case: Case = made()
    case.write(tmp_path)
    out = ("--settings", "site.toml", "--json", "o.json", "--timeline", "t.csv.gz", "--warm-up", f"{case.warm_up:g}")
    said = forepath("whatif", "load.csv", *out, "--policies", ",".join(case.policies), *case.words)
    assert said.code == 0, said
    document = json.loads(Path("o.json").read_text(encoding="utf-8"))
    known, offered, cores = loads(case)
    length = max(known) + 1
    first = int(case.warm_up * length if case.warm_up < 1 else case.warm_up)
    assert document["warm_up_s"] == first and list(document["policies"]) == list(case.policies)
    assert len(document["left_out"]) == case.left_out, document["left_out"]
    checker = Checker(case.settings, document, offered, cores, [t for t in sorted(known) if t >= first])
    checker.read_timeline(Path("t.csv.gz"))
    checker.check()
    homes = {one["name"]: one["host"] for one in case.settings["vm"] if "host" in one}
    start = checker.rows["static"][first]["vm"]
    assert {name: start[name][3] for name in homes} == homes
    assert any(one["short_core_s"] > 0 or one["short_bytes"] > 0 for one in document["policies"].values()), "too easy"


ROWS = [f"{t},1e4,2,0.1" for t in range(20)]
HEAD = "t,c1>shop,c1>shop:connections,vm:shop1:cores"


def one_service() -> Table:
    return network(("hA",), virtual_ip=[service("shop", 1, 1, "shop1")], vm=[machine("shop1", 0.5, 1.0)])


def recording(*rows: str, head: str = HEAD) -> str:
    return "\n".join([head, *rows]) + "\n"


def without(table: str, **changes: Any) -> Table:
    """The settings without a table, or with another one in its place."""
    return {name: rows for name, rows in one_service().items() if name != table} | changes


def renamed(old: str, new: str) -> str:
    return recording(*ROWS, head=HEAD.replace(old, new))


LONE_LINK = {"a": "sw", "b": "hA"}
BAD: dict[str, tuple[str | Table, int, tuple[str, ...]]] = {
    "no such node": (renamed("c1>shop,", "c7>shop,"), 1, ("load.csv:1", "'c7'", "add [[node]]")),
    "no such service": (renamed("c1>shop,", "c1>spa,"), 1, ("load.csv:1", "'spa'", "there are shop")),
    "no such machine": (renamed("vm:shop1", "vm:x"), 1, ("load.csv:1", "'x'", "there are shop1")),
    "unknown column": (renamed("vm:shop1:cores", "weather"), 1, ("'weather'", "columns are")),
    "negative": (recording(*ROWS[:9], "9,-3,2,0.1"), 1, ("t = 9", "c1>shop", "below 0", "leave blank")),
    "infinite": (recording(*ROWS[:9], "9,inf,2,0.1"), 1, ("load.csv:11", "c1>shop", "inf", "leave")),
    "text": (recording(*ROWS[:9], "9,lots,2,0.1"), 1, ("load.csv:11", "'lots'", "leave")),
    "a time twice": (recording(*ROWS, ROWS[4]), 1, ("t = 4 stands in two rows", "leave one of them")),
    "two steps": (recording(*ROWS, *(f"{t},1,2,0.1" for t in range(30, 130, 10))), 1, ("two steps", "bring all")),
    "half seconds": (recording(*(f"{t / 2},1,2,0.1" for t in range(20))), 1, ("0.5 s apart", "give one row")),
    "t not first": (recording(*(f"1e4,{t}" for t in range(20)), head="c1>shop,t"), 1, ("load.csv:1", "t")),
    "no rows": (recording(), 1, ("load.csv", "has no rows", "write")),
    "too short": (recording(ROWS[0]), 1, ("has 1 s", "--warm-up 1 ", "nothing is left", "give a smaller")),
    "no machines": (without("vm"), 3, ("vm: nothing is declared", "add [[vm]]")),
    "no hosts": (without("host"), 3, ("host: nothing is declared", "add [[host]]")),
    "no link to a host": (without("link", link=[link("sw", "c1", 8), link("sw", "c2", 8)]), 3, ("hA", "add [[link]]")),
    "no capacity": (
        without("link", link=[link("sw", "c1", 8), LONE_LINK]), 3, ("site.toml", "link", "capacity_mbit_per_s")
    ),
}  # fmt: skip
MENDED = {
    "gaps": (recording(*ROWS[:12], *ROWS[15:]), 7, "3 s without rows in 1 gaps"),
    "nan": (recording(*ROWS[:12], "12,nan,2,0.1", *ROWS[13:]), 10, "1 blank cells in 1 columns (the first: c1>shop"),
    "blank": (recording(*ROWS[:12], "12,,,", *ROWS[13:]), 9, "1 rows without any value (the first at t = 12)"),
    "unsorted": (recording(*ROWS[10:], *ROWS[:10]), 10, "rows out of order in 1 places (the first at t = 0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_stops_with_one_line(forepath: Forepath, tmp_path: Path, name: str) -> None:
    wrong, code, says = BAD[name]
    text, made = (wrong, one_service()) if isinstance(wrong, str) else (recording(*ROWS), wrong)
    (tmp_path / "load.csv").write_text(text, encoding="utf-8")
    (tmp_path / "site.toml").write_text(tomli_w.dumps(made), encoding="utf-8")
    warm_up = "1" if name == "too short" else "0.5"
    said = forepath("whatif", "load.csv", "--settings", "site.toml", "--policies", "static", "--warm-up", warm_up)
    assert said.code == code and said.out == "", said
    assert said.err.startswith("forepath: ") and said.err.count("\n") == 1, said.err
    assert [word for word in says if word not in said.err] == [], said.err


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended_is_named(forepath: Forepath, tmp_path: Path, name: str) -> None:
    text, seconds, says = MENDED[name]
    (tmp_path / "load.csv").write_text(text, encoding="utf-8")
    (tmp_path / "site.toml").write_text(tomli_w.dumps(one_service()), encoding="utf-8")
    words = ("--settings", "site.toml", "--policies", "static", "--json", "-")
    found = forepath("whatif", "load.csv", *words).json()
    assert found["seconds"] == seconds and len(found["left_out"]) == 1
    assert says in found["left_out"][0]
