"""What anyone can check of `forepath whatif` with its settings file, recording, document and timeline alone."""

import csv
import gzip
import io
import json
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose, isfinite
from pathlib import Path
from typing import Any

MBIT = 125_000.0
PATIENCE_S = 4
R = 9.0
NEAR = 1e-6
Row = tuple[float, float, float, str]  # need, allowed, used, where


def near(found: float, expected: float, room: float = 0.0) -> bool:
    return isclose(found, expected, rel_tol=NEAR, abs_tol=max(NEAR, room))


@dataclass
class Checker:
    """Everything by the text alone; `offered` is pair -> second -> (bytes/s, connections/s), `cores` vm -> second."""

    settings: dict[str, Any]
    document: dict[str, Any]
    offered: Mapping[str, Mapping[int, tuple[float, float]]]
    cores: Mapping[str, Mapping[int, float]]
    judged: list[int]
    rows: dict[str, dict[int, dict[str, dict[str, Row]]]] = field(default_factory=dict)

    def read_timeline(self, path: Path) -> None:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            table = csv.reader(io.StringIO(file.read()))
        assert next(table) == ["policy", "t", "kind", "name", "need", "allowed", "used", "where"]
        for policy, t, kind, name, need, allowed, used, where in table:
            row = self.rows.setdefault(policy, {}).setdefault(int(t), defaultdict(dict))[kind]
            assert name not in row, (policy, t, kind, name)
            row[name] = float(need), float(allowed), float(used), where
            assert all(isfinite(value) and value >= 0 for value in row[name][:3]), (policy, t, kind, row[name])

    # -- what the settings file says -----------------------------------------------------------------------------

    @property
    def links(self) -> dict[str, float]:
        both = (
            (f"{x}>{y}", one) for one in self.settings["link"] for x, y in ((one["a"], one["b"]), (one["b"], one["a"]))
        )
        return {name: one["capacity_mbit_per_s"] * MBIT for name, one in both}

    def way(self, source: str, end: str) -> list[str]:
        """Names of the links of a shortest way."""
        before: dict[str, str] = {source: ""}
        line = deque([source])
        while line:
            here = line.popleft()
            for name in self.links:
                a, b = name.split(">")
                if a == here and b not in before:
                    before[b] = a
                    line.append(b)
        found, here = [], end
        while before[here]:
            found.append(f"{before[here]}>{here}")
            here = before[here]
        return found[::-1]

    @property
    def weights(self) -> dict[str, float]:
        ranks = sorted({vip.get("priority", 0) for vip in self.settings["virtual_ip"]})
        rank = {vip["name"]: ranks.index(vip.get("priority", 0)) + 1 for vip in self.settings["virtual_ip"]}
        return {name: one / len(ranks) for name, one in rank.items()}

    @property
    def base(self) -> dict[str, float]:
        """Machines of pools rest at first: whatever they are given is more than their base."""
        return {vm["name"]: vm["cpu_cores_base"] for vm in self.settings["vm"]}

    @property
    def machines(self) -> set[str]:
        return {*self.base, *(one["name"] for pool in self.settings.get("pool", ()) for one in pool["member"])}

    # -- checks --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        document, policies = self.document, self.document["policies"]
        assert document["seconds"] == len(self.judged)
        assert set(self.rows) == set(policies)
        for policy, seconds in self.rows.items():
            assert sorted(seconds) == self.judged, policy
            for t, kinds in seconds.items():
                self.check_second(policy, t, kinds)
            self.check_sums(policy, policies[policy])
            assert document["bound"]["cost"] <= policies[policy]["cost"] * (1 + NEAR) + NEAR
        self.check_gain()
        json.dumps(document, allow_nan=False)

    def check_second(self, policy: str, t: int, kinds: Mapping[str, Mapping[str, Row]]) -> None:
        where = policy, t
        hosts = {host["name"]: host["cpu_cores"] for host in self.settings["host"]}
        assert set(kinds["pair"]) == set(self.offered), where
        assert set(kinds["vm"]) == self.machines and set(kinds["host"]) == set(hosts), where
        assert set(kinds["link"]) == set(self.links), where
        for name, capacity in hosts.items():
            need, allowed, used, _ = kinds["host"][name]
            there = [row for row in kinds["vm"].values() if row[3] == name]
            assert allowed == capacity and used <= capacity * (1 + NEAR), where
            assert near(need, sum(row[0] for row in there)) and near(used, sum(row[2] for row in there)), where
        for name, row in kinds["vm"].items():
            assert row[3] in hosts and row[1] <= hosts[row[3]] * (1 + NEAR) and row[2] <= row[1] * (1 + NEAR), where
            # Weights that a policy may have changed say how the connections of a service are spread.
            spread = policy != "static" and any(name in self.destinations(one) for one in self.split_services)
            assert spread or near(row[0], self.need(name, t, kinds["pair"])), (where, name, row)
        wanted = sum(self.need(name, t, kinds["pair"]) for name in kinds["vm"])
        assert near(sum(row[0] for row in kinds["vm"].values()), wanted, 1e-5), where
        carried: dict[str, float] = defaultdict(float)
        for name, (need, allowed, used, end) in kinds["pair"].items():
            assert near(need, self.offered[name][t][0]) and used <= allowed * (1 + NEAR) + NEAR, (where, name)
            assert end in self.destinations(name.split(">")[1]), (where, name, end)
            carried[self.way(name.split(">")[0], kinds["vm"][end][3])[0]] += used
        moving = self.settings.get("orchestrator", {}).get("moves", {}).get("over_links", False)
        for name, (_, allowed, used, _) in kinds["link"].items():
            assert allowed == self.links[name] and used <= allowed * (1 + NEAR), (where, name)
            if name in carried and not moving:
                assert near(used, carried[name], 1e-3), (where, name)
        self.check_ways(where, kinds)

    def check_ways(self, where: tuple[str, int], kinds: Mapping[str, Mapping[str, Row]]) -> None:
        """Where nothing is split and nobody moves, every link carries its pairs, and its need is theirs."""
        if self.settings.get("routing", {}).get("enabled") or self.split_services or where[0] != "static":
            return
        need: dict[str, float] = defaultdict(float)
        used: dict[str, float] = defaultdict(float)
        for name, row in kinds["pair"].items():
            for hop in self.way(name.split(">")[0], kinds["vm"][row[3]][3]):
                need[hop] += row[0]
                used[hop] += row[2]
        for name, row in kinds["link"].items():
            assert near(row[0], need[name], 1e-3) and near(row[2], used[name], 1e-3), (where, name, row)

    @property
    def split_services(self) -> set[str]:
        return {vip["name"] for vip in self.settings["virtual_ip"] if vip.get("affinity") == "connection"}

    def destinations(self, service: str) -> set[str]:
        vip = next(vip for vip in self.settings["virtual_ip"] if vip["name"] == service)
        members = [
            one["name"]
            for pool in self.settings.get("pool", ())
            if pool["virtual_ip"] == service
            for one in pool["member"]
        ]
        return {*(one["name"] for one in vip["destination"]), *members}

    def need(self, vm: str, t: int, pairs: Mapping[str, Row]) -> float:
        """CPU that a machine wants: its own, and what the requests that are offered to it cost."""
        own = self.cores.get(vm, {}).get(t, 0.0)
        for name, row in pairs.items():
            size, connections = self.offered[name][t]
            service = name.split(">")[1]
            share = float(row[3] == vm)
            if service in self.split_services:
                vip = next(vip for vip in self.settings["virtual_ip"] if vip["name"] == service)
                parts = {one["name"]: one.get("weight", 100) for one in vip["destination"]}
                share = parts.get(vm, 0) / sum(parts.values())
            first = next(vip for vip in self.settings["virtual_ip"] if vip["name"] == service)["destination"][0]["name"]
            priced = vm if vm in self.base else first
            price = next(one for one in self.settings["vm"] if one["name"] == priced)
            ms = price.get("cpu_ms_per_connection", 0.0) * connections + price.get("cpu_ms_per_mb", 0.0) * size / 1e6
            own += share * ms / 1e3
        return own

    def check_sums(self, policy: str, figures: Mapping[str, Any]) -> None:
        seconds = [self.rows[policy][t] for t in self.judged]
        lacking = [max(0.0, row[0] - row[1]) for kinds in seconds for row in kinds["vm"].values()]
        idle = sum(
            max(0.0, row[1] - max(row[0], self.base.get(name, 0.0)))
            for kinds in seconds
            for name, row in kinds["vm"].items()
        )
        assert near(figures["short_core_s"], sum(lacking), 1e-5) and near(figures["idle_core_s"], idle, 1e-5), policy
        short_s = sum(any(row[0] > row[1] + NEAR for row in kinds["vm"].values()) for kinds in seconds)
        assert figures["short_cpu_s"] == short_s, policy
        short = {name: self.short_bytes(policy, name) for name in self.offered}
        link_s = {name: self.short_link_s(policy, name, amounts) for name, amounts in short.items()}
        assert near(figures["short_bytes"], sum(sum(one.values()) for one in short.values()), 1.0), policy
        assert near(figures["short_link_s"], sum(link_s.values()), 1e-4), policy
        assert figures["short_bandwidth_s"] == sum(any(one[t] > 0.5 for one in short.values()) for t in self.judged)
        weighted = sum(self.weights[name.split(">")[1]] * amount for name, amount in link_s.items())
        machines = R * figures["short_core_s"] + idle
        actions = figures["cost"] - machines - R * weighted
        moved = figures["actions"].get("migrate_vm", {}).get("done", 0)
        assert actions >= -1e-3 and (moved or actions <= 1e-3), (policy, actions)
        self.check_delivery(policy, figures, seconds)

    def short_bytes(self, policy: str, pair: str) -> dict[int, float]:
        """What waits or is given up at the end of each second, the oldest carried first."""
        found, ages, last = {}, [0.0] * PATIENCE_S, None
        for t in self.judged:
            if last is not None and t > last + 1:
                ages = [0.0] * PATIENCE_S
            need, _, used, _ = self.rows[policy][t]["pair"][pair]
            ages[0] += need
            for age in reversed(range(PATIENCE_S)):
                taken = min(used, ages[age])
                ages[age] -= taken
                used -= taken
            found[t] = sum(ages)
            ages, last = [0.0, *ages[:-1]], t
        return found

    def short_link_s(self, policy: str, pair: str, short: Mapping[int, float]) -> float:
        source = pair.split(">", maxsplit=1)[0]
        total = 0.0
        for t, amount in short.items():
            kinds = self.rows[policy][t]
            way = self.way(source, kinds["vm"][kinds["pair"][pair][3]][3])
            total += amount / min(self.links[name] for name in way)
        return total

    def check_delivery(self, policy: str, figures: Mapping[str, Any], seconds: list[dict[str, dict[str, Row]]]) -> None:
        offered = sum(row[0] for kinds in seconds for row in kinds["pair"].values())
        assert near(figures["offered_bytes"], offered, 1.0)
        assert 0 <= figures["delivered_bytes"] <= offered * (1 + NEAR), policy
        assert isinstance(figures["p95_latency_s"], float | int) and 0 <= figures["p95_latency_s"] < 60
        assert 0 <= figures["competitors_delivered_share"] <= 1
        counts = [count for kind in figures["actions"].values() for count in kind.items()]
        assert all(word in ("done", "refused", "unneeded") and isinstance(value, int) for word, value in counts)
        if policy == "static":
            assert not counts
            allowed = [(name, row) for kinds in seconds for name, row in kinds["vm"].items()]
            assert all(row[1] <= self.base.get(name, 0.0) + NEAR for name, row in allowed)

    def check_gain(self) -> None:
        document, costs = self.document, {name: one["cost"] for name, one in self.document["policies"].items()}
        if not {"reactive", "predictive", "oracle"} <= set(costs):
            assert document["gain_share"] is None and document["interval"] is None
            return
        possible = costs["reactive"] - costs["oracle"]
        if possible < 0.01 * costs["reactive"] or possible <= 0:
            assert document["gain_share"] is None and document["interval"] is None
            return
        share = (costs["reactive"] - costs["predictive"]) / possible
        low, high = document["interval"]
        assert near(document["gain_share"], share) and low <= share <= high
