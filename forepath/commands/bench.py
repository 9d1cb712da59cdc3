"""`forepath bench`: what one part costs on this machine, next to a peer or a limit in the same run."""

from typing import Annotated

import typer

from bench.figures import Result
from forepath.output import JsonOption, console, emit, table

bench = typer.Typer(
    name="bench",
    help="Measure one part of forepath on this machine, next to a peer or a limit in the same run.",
    no_args_is_help=True,
)
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the data that are made up")]


def show(name: str, result: Result, json: str | None) -> None:
    """Prints a result for people, or as one JSON document; a missed target is told and is no error."""
    targets = [one.to_json() for one in result.targets]
    if emit({"bench": name, "figures": result.figures, "targets": targets}, json):
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
    from bench.place import measure

    show("place", measure(hosts, vms, seed), json)
