"""`forepath bench`: what one part costs on this machine, next to a peer or a limit in the same run."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import structlog
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cpdb import LabError
from forepath.output import EXIT_FAILED, JsonOption, console, emit, errors, table
from tools.bench.figures import Result, joined

if TYPE_CHECKING:
    from tools.bench.destinations import DestinationScale

bench = typer.Typer(
    name="bench",
    help="Measure one part of forepath on this machine, next to a peer or a limit in the same run.",
    no_args_is_help=True,
)
Probe = Literal["none", "arp"]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the data that are made up")]


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """A bar on stderr for work whose end is not known."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        bar.add_task(doing, total=None)
        yield


def show(name: str, result: Result, json: str | None, more: dict[str, Any] | None = None) -> None:
    """Prints a result for people, or as one JSON document with `more`; a missed target is told and is no error."""
    targets = [one.to_json() for one in result.targets]
    if emit({"bench": name, "figures": result.figures, "targets": targets} | (more or {}), json):
        return
    figures = [
        (key, f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}") for key, value in result.figures.items()
    ]
    console.print(table(f"{name}: raw figures", ("figure", "value"), figures), "")
    rows = [
        (
            one.name,
            f"{one.value:.3g}",
            f"{'<=' if one.better == 'lower' else '>='} {one.limit:g}",
            "met" if one.met else "MISSED",
        )
        for one in result.targets
    ]
    console.print(table("targets", ("target", "value", "limit", ""), rows))


@bench.command()
def store(
    pairs: Annotated[int, typer.Option("--pairs", min=10, max=1_000_000, help="Pairs that talk each second")] = 10_000,
    seconds: Annotated[int, typer.Option("--seconds", min=5, max=3600, help="Seconds to write")] = 60,
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """Write and read communications on SQLite and PostgreSQL, next to a bare insert and a bare COPY of the same rows.

    Examples:
        forepath bench store
        forepath bench store --pairs 10000 --seconds 60 --json -
    """
    from tools.bench.store import Load, measure

    with errors.status("store") as status:
        result = measure(Load(pairs, seconds, seed), lambda part: status.update(f"store: {part}"))
    show("store", result, json)


@bench.command()
def place(
    hosts: Annotated[int, typer.Option("--hosts", min=2, max=2000, help="Number of hosts")] = 200,
    vms: Annotated[int, typer.Option("--vms", min=1, max=50_000, help="Number of virtual machines")] = 2000,
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """Plan where virtual machines should run: the greedy answer and the optimiser's, and how far from the best.

    Examples:
        forepath bench place
        forepath bench place --hosts 200 --vms 2000 --json -
    """
    from tools.bench.place import measure

    show("place", measure(hosts, vms, seed), json)


@bench.command()
def plan(
    nodes: Annotated[int, typer.Option("--nodes", min=4, max=2000, help="Nodes of the network")] = 100,
    pairs: Annotated[int, typer.Option("--pairs", min=2, max=100_000, help="Pairs that talk")] = 10_000,
    seed: SeedOption = 1,
    switch: Annotated[bool, typer.Option(help="Also change rules in a real switch, where the machine has one")] = True,
    json: JsonOption = None,
) -> None:
    """Decide how traffic is split over paths on a published network: seconds a decision, and how good it is.

    Then, on a real Open vSwitch, how long a wanted change of 1,000 rules takes to be observed; that needs root.

    Examples:
        forepath bench plan
        forepath bench plan --nodes 100 --pairs 500 --no-switch --json -
    """
    from tools.bench import plan as planned
    from tools.lab.stage import why_not

    with errors.status("plan") as status:
        result = planned.measure(planned.NetworkSize(nodes, pairs, seed), lambda part: status.update(f"plan: {part}"))
        reason = why_not(vms=False) if switch else "--no-switch"
        if reason is None:
            status.update("plan: changing rules in a real switch")
            result = joined(result, planned.measure_switch())
    if reason is not None:
        errors.print(f"rules in a real switch: not measured, because {reason}", highlight=False, markup=False)
    show("plan", result, json)


@bench.command()
def routing(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.5, max=240, help="Minutes with routing off, and on")
    ] = 10,
    blocks: Annotated[int, typer.Option("--blocks", min=1, max=50, help="By turns in so many blocks each")] = 2,
    load: Annotated[float, typer.Option("--load", min=0.05, max=2, help="Of what edge switches can send")] = 0.55,
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """Route heavy-tailed traffic over half a fat-tree of real switches, off and on: congestion, losses, order, moves.

    Both have the same traffic. Needs root and Open vSwitch, and takes a little more than twice the minutes.

    Examples:
        forepath bench routing
        forepath bench routing --minutes 20 --json -
    """
    from tools.bench.routed import RoutedScale, measure

    scale = RoutedScale(minutes, blocks, load, seed=seed)
    with errors.status("routing") as status:
        result = measure(scale, lambda part: status.update(f"routing: {part}"))
    show("routing", result, json, {"scale": asdict(scale)})


@bench.command()
def destinations(
    vips: Annotated[int, typer.Option("--vips", min=1, max=10_000, help="Virtual IPs")] = 1000,
    behind: Annotated[int, typer.Option("--destinations", min=2, max=64, help="Destinations behind each")] = 8,
    sources: Annotated[int, typer.Option("--sources", min=2, max=50_000, help="Sources that open connections")] = 1000,
    probe: Annotated[Probe, typer.Option("--probe", help="How the real controller asks destinations")] = "arp",
    switch: Annotated[bool, typer.Option(help="Also fill a real switch, where the machine has one")] = True,
    json: JsonOption = None,
) -> None:
    """Make the rules of virtual IPs whose connections the switch places: how many, how fast, what a change moves.

    Then, on a real Open vSwitch with the controller: seconds until it holds them all, seconds until 100 new sources at
    once are served, and how many packets reach the controller. That needs root and takes a minute or two.
    Exits with 1 when that part was begun and failed.

    Examples:
        forepath bench destinations
        forepath bench destinations --vips 1000 --destinations 8 --sources 1000 --json -
        forepath bench destinations --vips 100 --no-switch
    """
    from tools.bench import destinations as made
    from tools.lab.stage import why_not

    scale = made.DestinationScale(vips, behind, sources, probe)
    with errors.status("destinations: making rules") as status:
        result = made.measure(scale)
        reason = why_not(vms=False) if switch else "--no-switch"
        begun, found = reason is None, None
        if begun:
            status.update("destinations: filling a real switch")
            found, reason = _filled(scale)
    if found is None:
        errors.print(f"a real switch: not measured, because {reason}", highlight=False, markup=False)
    whole = result if found is None else joined(result, found)
    show("destinations", whole, json, {"switch": None if found is None else found.figures, "reason": reason})
    if begun and found is None:
        raise typer.Exit(EXIT_FAILED)


def _filled(scale: "DestinationScale") -> tuple[Result | None, str | None]:
    """What was found in a real switch, or why nothing was: what was measured before must not be lost with it."""
    from tools.bench.placed import measure

    try:
        return measure(scale), None
    except LabError as error:
        return None, str(error)


@bench.command()
def collect(
    flows: Annotated[int, typer.Option("--flows", min=100, max=500_000, help="Flow entries in the switch")] = 50_000,
    polls: Annotated[int, typer.Option("--polls", min=1, max=100, help="Polls, of which the median counts")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=2, help="Length of the sustained part")] = 20.0,
    controllers: Annotated[int, typer.Option("--controllers", min=0, max=64, help="Controllers on one database")] = 0,
    switches: Annotated[int, typer.Option("--switches", min=1, max=2000, help="Replayed switches, for these")] = 200,
    json: JsonOption = None,
) -> None:
    """Poll a real Open vSwitch full of entries: CPU, stall and memory, next to Ryu's own parser; then into SQLite.

    Needs root and Open vSwitch; takes a minute or two. With --controllers neither is needed: replayed switches that
    hold `--flows` entries together are polled by one controller and by so many, into SQLite and PostgreSQL.

    Examples:
        forepath bench collect
        forepath bench collect --flows 50000 --json -
        forepath bench collect --controllers 4 --switches 200
    """
    if controllers:
        from tools.bench.collect_many import ManyScale
        from tools.bench.collect_many import measure as measure_many

        scale = ManyScale(controllers, max(switches, controllers), max(1, flows // switches), seconds)
        with errors.status("collect") as status:
            found = measure_many(scale, lambda part: status.update(f"collect: {part}"))
        show("collect", found, json, {"scale": asdict(scale)})
        return
    from tools.bench.collect import CollectScale, measure

    with progress("polling a real switch"):
        result = measure(CollectScale(flows, polls, seconds))
    show("collect", result, json)


@bench.command()
def forecast(
    pairs: Annotated[int, typer.Option("--pairs", min=50, max=1_500_000, help="Number of pairs")] = 10_000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="From 2 on: by shards, on so many workers")] = 1,
    history: Annotated[int, typer.Option("--history", min=70, help="Seconds of history before the first cycle")] = 180,
    warm_up: Annotated[int, typer.Option("--warm-up", min=1, help="Cycles before those that are measured")] = 45,
    models: Annotated[str, typer.Option("--models", help="Models that compete, with commas; all when empty")] = "",
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Run mlforecast and statsforecast as well")] = True,
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """Refresh all forecasts of many pairs from the store, next to mlforecast and statsforecast on the same series.

    A refresh reads one second, judges, learns, forecasts 3 horizons x 9 quantiles of 6 quantities, and writes.
    Where a peer is not installed, forepath alone is measured, and the command that installs them is named. With
    --workers it is measured without them, beside 10,000 pairs: does one of many cost more?

    Examples:
        forepath bench forecast
        forepath bench forecast --pairs 100000 --json -
        forepath bench forecast --pairs 1000000 --workers 2
        forepath bench forecast --pairs 1000 --no-peers
    """
    from tools.bench.forecast import ForecastLoad, measure
    from tools.bench.forecast_peers import missing
    from tools.bench.forecast_shards import measure_shards

    asked = ForecastLoad(pairs, history, warm_up, seed=seed, peers=peers and workers == 1, workers=workers)
    if models:
        asked = replace(asked, models=tuple(models.split(",")))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        work = measure if workers == 1 else measure_shards
        result = work(asked, lambda doing: bar.update(task, description=doing))
    show("forecast", result, json)
    if asked.peers and (lacking := missing()):
        errors.print(f"beside peers: not measured, because of {lacking}", highlight=False, markup=False)


@bench.command()
def scenarios(
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Seeds of each family, from 1 on")] = 5,
    families: Annotated[str, typer.Option("--families", help="Which, comma-separated; all when empty")] = "",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Replays at a time [default: cores]")] = None,
    json: JsonOption = None,
) -> None:
    """Replay the scenarios of `forepath whatif --list` under all policies: is foresight ever worse than reacting?

    A family's row: mean costs of each policy and the bound, the worst predictive / reactive of its runs, the gain share
    of all its runs together ("-": nothing to gain), actions a run, and runs that oscillate. A replay takes about 40 s
    of one core.

    Examples:
        forepath bench scenarios --seeds 5 --json -
        forepath bench scenarios --seeds 1 --families recurring_surge,calm
    """
    from backtest.whatif import FAMILIES
    from tools.bench.scenarios import COLUMNS, family_rows, judge_runs, run_all

    names = [name.strip() for name in families.split(",") if name.strip()] or list(FAMILIES)
    if unknown := ", ".join(sorted(set(names) - set(FAMILIES))):
        raise typer.BadParameter(f"{unknown}: no such family; see forepath whatif --list", param_hint="--families")
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def say(name: str, done: int, of: int) -> None:
            bar.update(task, description=name, completed=done, total=of)

        runs = run_all(names, seeds, jobs or os.cpu_count() or 1, say)
    rows = family_rows(runs)
    if json is None:
        console.print(table(f"mean cost over {seeds} seeds", COLUMNS, rows), "")
    show("scenarios", judge_runs(runs), json, {"runs": [run.to_json() for run in runs]})


@bench.command()
def orchestrate(
    pairs: Annotated[int, typer.Option("--pairs", min=10, max=200_000, help="Pairs that talk")] = 10_000,
    vms: Annotated[int, typer.Option("--vms", min=2, max=50_000, help="Number of virtual machines")] = 2000,
    hosts: Annotated[int, typer.Option("--hosts", min=2, max=2000, help="Number of hosts")] = 200,
    history: Annotated[int, typer.Option("--history", min=30, help="Seconds recorded before the first cycle")] = 300,
    regions: Annotated[bool, typer.Option("--regions", help="Also plan 100 hosts by regions and as a whole")] = False,
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """Run the orchestrator's whole cycle, from the database to the plan: usual ones, and with hosts running short.

    A database of some minutes is built first, which takes longer than the cycles. Among the cycles are some that learn.

    Examples:
        forepath bench orchestrate
        forepath bench orchestrate --pairs 10000 --vms 2000 --hosts 200 --json -
        forepath bench orchestrate --pairs 50000 --vms 20000 --hosts 1000 --regions
    """
    from tools.bench.orchestrate import OrchestrateScale, measure

    scale = OrchestrateScale(pairs, vms, hosts, history, seed)
    with errors.status("orchestrate") as status:
        result = measure(scale, lambda part: status.update(f"orchestrate: {part}"))
        if regions:
            from tools.bench.regions import measure as measure_regions

            result = joined(result, measure_regions(seed, lambda part: status.update(f"orchestrate: {part}")))
    show("orchestrate", result, json)


@bench.command()
def web(
    pairs: Annotated[int, typer.Option("--pairs", min=10, max=200_000, help="Pairs that talk")] = 10_000,
    seconds: Annotated[float, typer.Option("--seconds", min=5, help="How long is looked")] = 60.0,
    json: JsonOption = None,
) -> None:
    """CPU of the page's process while three browsers look at a network of 100 switches that is measured each second.

    Examples:
        forepath bench web
        forepath bench web --pairs 1000 --seconds 30 --json -
    """
    from tools.bench.web import measure

    with errors.status("web") as status:
        result = measure(pairs, seconds, lambda part: status.update(f"web: {part}"))
    show("web", result, json)


@bench.command()
def replay(
    pairs: Annotated[int, typer.Option("--pairs", min=10, max=20_000, help="Pairs that talk")] = 1000,
    vms: Annotated[int, typer.Option("--vms", min=2, max=10_000, help="Number of virtual machines")] = 200,
    hosts: Annotated[int, typer.Option("--hosts", min=2, max=2000, help="Number of hosts")] = 50,
    seconds: Annotated[int, typer.Option("--seconds", min=2, max=86_400, help="Seconds that are replayed")] = 60,
    policy: Annotated[str, typer.Option("--policy", help="static, reactive, predictive or oracle")] = "reactive",
    seed: SeedOption = 1,
    json: JsonOption = None,
) -> None:
    """What an hour of `forepath whatif` costs at size under one policy, and in which rooms: CPU of this process.

    It is replayed twice, the second time under a profiler, for the shares by room.

    Examples:
        forepath bench replay
        forepath bench replay --policy predictive --pairs 12 --vms 8 --hosts 3 --seconds 300 --json -
    """
    from backtest.whatif import ReplayPolicy
    from tools.bench.replay import ReplayScale, measure

    if policy not in list(ReplayPolicy):
        raise typer.BadParameter(f"{policy}: write one of {', '.join(ReplayPolicy)}", param_hint="--policy")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with errors.status("replay"):
        result = measure(ReplayScale(pairs, hosts, vms, seconds, ReplayPolicy(policy), seed))
    show("replay", result, json)
