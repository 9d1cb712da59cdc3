"""`python -m tools.whatif_page PAGE [DATA [SEEDS]]`: writes what replays of scenarios and of public recordings gave."""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest import read
from backtest.whatif import (
    FAMILIES,
    OfferedLoad,
    ReplayPolicy,
    ReplayScene,
    ReplayTask,
    RequestCost,
    WayFinder,
    compare_runs,
    replay,
)
from cpdb import MBIT, MIB, Destination, ForepathError, Link, Node, NodeKind, Pair, VirtualIp
from orchestrator import HostSpec, OrchestratorConfig, VmSpec
from predictor import PredictorConfig
from tools.bench.figures import Result
from tools.bench.scenarios import COLUMNS, ScenarioRun, be_quiet, family_rows, judge_runs, run_all

Values = NDArray[np.float64]
# Both bound how long it takes: about 15 minutes of one core for the scenarios, 5 for the recordings.
SEEDS, ROWS = 1, 480
# Of GEANT's pairs so many of the largest, each of its rows for so many seconds.
LARGEST, SHOWN_S = 24, 5
HEAD = """# What if: scenarios and public recordings

Written by `make bench-whatif DATA=DIR`. Definitions: [What if](../whatif.md). Costs are in core-seconds and weighted
link-seconds, being short at nine times idling. Nothing of forepath was chosen on these runs.

## Scenarios

Mean costs over seeds 1 to {seeds} of each policy and the bound; p/r: the dearest predictive / reactive of the family's
runs; gain: (reactive - predictive) / (reactive - oracle) of its runs together, `-` where the oracle gains next to
nothing; acts: actions a run of predictive; turns: runs in which something oscillates.
"""
CAUSES = """What predictive paid more than reactive (+) or less (-), by part of the cost, mean of a family's runs; in
brackets the same of the oracle: what that pays more no forecast can mend, only the planner.
"""
RECORDED = """## Public recordings

Mapped onto topologies, the middle {rows} seconds of each, of which the second half is judged.

* *meta_pod_db*: traffic between four nodes of a database cluster as pairs, 100 bytes/s a unit, to one service each of
  four ranks, behind 100 Mbit/s.
* *azure_llm2023*: requests of two services as connections of 50 ms of a core each, four bytes a token of context, on
  one host of 4 cores beside a batch machine; another host is free.
* *geant*: the {largest} largest of 462 pairs between 22 nodes on their own links, each row of 15 minutes replayed as
  {shown_s} s, so half a day is judged; scaled so that the busiest link would have to carry 1.2 times what it can at the
  peak; services of rising rank.
* *azure_v1_vmcpu*: CPU of 50 machines (peaks within 5 minutes, each row replayed as 10 s) of half a core each and one
  at most, on ten hosts of 3 cores.
"""


def main(words: list[str]) -> int:
    """Writes the page; 1 when a recording cannot be had."""
    if not 1 <= len(words) <= 3:
        print("usage: python -m tools.whatif_page PAGE [DATA [SEEDS]]", file=sys.stderr)
        return 2
    seeds = int(words[2]) if len(words) == 3 else SEEDS
    try:
        recorded = list(_recorded(Path(words[1]))) if len(words) > 1 else []
    except ForepathError as error:
        print(f"forepath: {error}", file=sys.stderr)
        return 1
    runs = run_all(tuple(FAMILIES), seeds, os.cpu_count() or 1, lambda name, done, of: print(f"{done}/{of} {name}"))
    write_page(Path(words[0]), runs, seeds, recorded)
    return 0


def write_page(page: Path, runs: Sequence[ScenarioRun], seeds: int, recorded: Sequence[tuple[str, ...]]) -> None:
    """The page of these runs."""
    parts = [
        HEAD.format(seeds=seeds),
        *_table(COLUMNS, family_rows(runs)),
        *_targets(judge_runs(runs)),
        CAUSES,
        *_causes(runs),
    ]
    if recorded:
        columns = ("recording", *(policy.value for policy in ReplayPolicy), "bound", "gain", "verdict")
        parts += [RECORDED.format(rows=ROWS, largest=LARGEST, shown_s=SHOWN_S), *_table(columns, recorded)]
    page.write_text("\n".join(parts), encoding="utf-8")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(row)} |" for row in lines), ""]


def _causes(runs: Sequence[ScenarioRun]) -> list[str]:
    rows = []
    for family in dict.fromkeys(run.family for run in runs):
        own = [run for run in runs if run.family == family]
        more = {
            part: [float(np.mean([run.parts[who][part] - run.parts["reactive"][part] for run in own])) for who in WHO]
            for part in own[0].parts["reactive"]
        }
        rows.append((family, *(f"{predictive:+.3g} ({oracle:+.3g})" for predictive, oracle in more.values())))
    return _table(("family", *runs[0].parts["reactive"]), rows)


WHO = ("predictive", "oracle")


def _targets(result: Result) -> list[str]:
    rows = [
        (one.name, f"{one.value:.3g}", f"{'<=' if one.better == 'lower' else '>='} {one.limit:.4g}",
         "met" if one.met else "**missed**")
        for one in result.targets
    ]  # fmt: skip
    return [f"{name}: {value:.0f}  " for name, value in result.figures.items()] + [
        "",
        *_table(("target", "value", "limit", ""), rows),
    ]


@dataclass(frozen=True, slots=True)
class Star:
    """A scene around one switch: services by name with the machine of each, of rising priority; machines by host."""

    sources: Sequence[str]
    services: Mapping[str, str]
    vms: Sequence[VmSpec]
    host_of: Mapping[str, str]
    host_cores: float
    cpu_ms_per_connection: float = 0.0
    core: Sequence[Link] = (Link("core", 1, "core2", 1, 100 * MBIT, declared=True),)
    at: Mapping[str, str] = field(default_factory=dict)

    def scene(self) -> ReplayScene:
        """As a replay is told; all are joined to the switch they are `at`, at the rate of the widest link of `core`."""
        hosts = tuple(
            HostSpec(name, "", "", self.host_cores, 65_536 * MIB) for name in dict.fromkeys(self.host_of.values())
        )
        joined = [*self.sources, *(host.name for host in hosts)]
        declared = {"hosts": hosts, "vms": tuple(self.vms)}
        switches = dict.fromkeys(end for link in self.core for end in (link.a, link.b))
        access = max(link.capacity_bytes_per_s or 0.0 for link in self.core)
        return ReplayScene(
            nodes=(
                *(Node(name, NodeKind.SWITCH, dpid=number) for number, name in enumerate(switches, 1)),
                *(Node(name, NodeKind.CLIENT) for name in self.sources),
                *(Node(host.name, NodeKind.HYPERVISOR) for host in hosts),
                *(Node(vm.name, NodeKind.VM) for vm in self.vms),
            ),
            links=(
                *self.core,
                *(
                    Link(self.at.get(name, "core"), 100 + number, name, 0, access, declared=True)
                    for number, name in enumerate(joined)
                ),
            ),
            virtual_ips=tuple(
                VirtualIp(name, name, rank, (Destination(vm, f"10.0.1.{rank + 1}", f"02:00:00:00:01:{rank:02x}"),))
                for rank, (name, vm) in enumerate(self.services.items())
            ),
            hosts=hosts,
            vms=tuple(self.vms),
            host_of=self.host_of,
            costs={vm.name: RequestCost(self.cpu_ms_per_connection) for vm in self.vms},
            orchestrator=OrchestratorConfig.model_validate({"act": True, "declared": declared}),
            predictor=PredictorConfig(),
        )


def _meta(data: Path) -> ReplayTask:
    found = read(data / "meta_pod_db_1s.csv.gz", 1.0, ("oracle_mlu",))
    star = Star(
        [f"n{at}" for at in range(4)],
        {f"pod{at}": f"db{at}" for at in range(4)},
        [VmSpec(f"db{at}", at, 1.0, 1.0) for at in range(4)],
        {f"db{at}": f"h{at}" for at in range(4)},
        2.0,
    )
    pairs = [Pair(f"n{source}", f"pod{to}") for source, _, to in (name.partition(">") for name in found.names)]
    rates = 100.0 * _middle(found.values)
    return mapped_task("meta_pod_db", star, Offered(pairs, rates, np.zeros(rates.shape), {}))


def _geant(data: Path) -> ReplayTask:
    found = read(data / "geant_15min_7d.csv.gz", 900.0, ("oracle_mlu",))
    start = found.values.shape[1] // 2 - ROWS // SHOWN_S // 2
    rows = found.values[:, start : start + ROWS // SHOWN_S]
    largest = np.sort(np.argsort(-rows.mean(axis=1))[:LARGEST])
    ends = [found.names[at].split(">") for at in largest]
    edges = json.loads((data / "geant_15min_7d.topo.json").read_text(encoding="utf-8"))["edges"]
    core = [
        Link(f"s{a}", 1 + number, f"s{b}", 1 + number, rate / 8, declared=True)
        for number, (a, b, rate) in enumerate(edges)
        if a < b
    ]
    to = sorted({end for _, end in ends}, key=int)
    star = Star(
        [f"n{source}" for source in dict.fromkeys(source for source, _ in ends)],
        {f"to{end}": f"m{end}" for end in to},
        [VmSpec(f"m{end}", number % 3, 1.0, 1.0) for number, end in enumerate(to)],
        {f"m{end}": f"h{end}" for end in to},
        2.0,
        core=core,
        at={f"{kind}{node}": f"s{node}" for pair in ends for node in pair for kind in "nh"},
    )
    pairs = [Pair(f"n{source}", f"to{end}") for source, end in ends]
    rates = rows[largest].T.repeat(SHOWN_S, axis=0) / 8
    rates *= 1.2 / _busiest(star.scene(), pairs, rates)
    return mapped_task("geant", star, Offered(pairs, rates, np.zeros(rates.shape), {}))


def _busiest(scene: ReplayScene, pairs: Sequence[Pair], rates: Values) -> float:
    """What the busiest link would have to carry at most, of what it can, if all took their shortest ways."""
    ways, loads = WayFinder(scene), defaultdict[Any, Values](lambda: np.zeros(len(rates)))
    for pair, rate in zip(pairs, rates.T, strict=True):
        for hop in ways.hops(pair.source, f"h{pair.virtual_ip.removeprefix('to')}"):
            loads[hop] = loads[hop] + rate
    return max(float(load.max()) / ways.capacity(hop) for hop, load in loads.items())


def _llm(data: Path) -> ReplayTask:
    found = read(data / "azure_llm2023_1s.csv.gz", 1.0)
    rows = dict(zip(found.names, _middle(found.values).T, strict=True))
    vms = [
        VmSpec("conv1", 0, 0.5, 2.0, 2),
        VmSpec("code1", 10, 0.5, 3.0, 4),
        VmSpec("batch1", 0, 0.8, 0.8, movable=True),
    ]
    host_of = {"conv1": "hA", "code1": "hA", "batch1": "hA", "cron1": "hB"}
    vms.append(VmSpec("cron1", 0, 0.3, 0.3, movable=True))
    star = Star(["users"], {"conv": "conv1", "code": "code1"}, vms, host_of, 4.0, 50.0)
    names = ("conv", "code")
    sizes = np.stack([4.0 * rows[f"{name}_ctx"] for name in names], axis=1)
    requests = np.stack([rows[f"{name}_req"] for name in names], axis=1)
    cores = {"batch1": np.full(ROWS, 0.75), "cron1": np.full(ROWS, 0.2)}
    return mapped_task("azure_llm2023", star, Offered([Pair("users", name) for name in names], sizes, requests, cores))


def _machines(data: Path) -> ReplayTask:
    found = read(data / "azure_v1_vmcpu_5min_a.csv.gz", 300.0)
    peaks = {name.partition("_")[0]: row for name, row in zip(found.names, found.values, strict=True) if "_max" in name}
    middle = len(next(iter(peaks.values()))) // 2
    cores = {name: row[middle : middle + ROWS // 10].repeat(10) / 100.0 for name, row in peaks.items()}
    vms = [VmSpec(name, at % 3, 0.5, 1.0, movable=at % 3 == 0) for at, name in enumerate(cores)]
    star = Star(["users"], {"web": vms[0].name}, vms, {vm.name: f"h{at % 10}" for at, vm in enumerate(vms)}, 3.0)
    nothing = np.zeros((ROWS, 1))
    return mapped_task("azure_v1_vmcpu", star, Offered([Pair("users", "web")], nothing, nothing, cores))


def _middle(values: Values) -> Values:
    """The middle rows, rows x series."""
    start = values.shape[1] // 2 - ROWS // 2
    return np.asarray(np.nan_to_num(values[:, start : start + ROWS]).T, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Offered:
    """Bytes/s and connections/s (seconds, pairs), and cores by machine."""

    pairs: Sequence[Pair]
    loads: Values
    connections: Values
    cores: Mapping[str, Values]


def mapped_task(name: str, star: Star, offered: Offered) -> ReplayTask:
    """A recording on its scene, the second half of it judged."""
    vms = tuple(vm.name for vm in star.vms)
    own = np.stack([offered.cores.get(vm, np.zeros(ROWS)) for vm in vms], axis=1)
    known = np.ones(ROWS, dtype=np.bool_)
    load = OfferedLoad(tuple(offered.pairs), offered.loads, offered.connections, vms, own, known)
    return ReplayTask(name, "mapped", star.scene(), load, ROWS // 2)


MAPPED: tuple[Callable[[Path], ReplayTask], ...] = (_meta, _geant, _llm, _machines)


def _recorded(data: Path) -> Iterator[tuple[str, ...]]:
    for mapped in MAPPED:
        task = mapped(data)
        be_quiet()
        found = compare_runs(task, [replay(task.scene, task.load, policy, task.seed) for policy in ReplayPolicy])
        gain = "-" if found.gain_share is None else f"{found.gain_share:.2f}"
        costs = (f"{cost:.4g}" for cost in (*(found.cost(policy) for policy in ReplayPolicy), found.bound.sum()))
        yield task.recording, *costs, gain, found.verdict()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
