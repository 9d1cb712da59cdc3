"""`forepath demo`: the closed loop on a lab of this machine, or simulated where no lab can be had."""

import importlib
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated

import structlog
import typer

from cpdb import open_store
from forepath.demo.report import TrialResult, document, tables, whatif_lines
from forepath.demo.schedule import SCENARIOS, Phases
from forepath.demo.screen import Screen
from forepath.output import EXIT_INTERRUPTED, JsonOption, console, emit, errors
from predictor import PredictorConfig

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType | None:
    """The module `tools.NAME` of the checkout that this package lies in; None where forepath is installed alone."""
    if not (TOOLS / "__init__.py").is_file():
        return None
    root = str(TOOLS.parent)
    if root not in sys.path:
        # Behind everything else: nothing that is installed may be hidden by a folder of the checkout.
        sys.path.append(root)
    return importlib.import_module(f"tools.{name}")


SeedOption = Annotated[int, typer.Option("--seed", help="Moves phases, sizes and which pair surges")]
ScenarioOption = Annotated[
    str, typer.Option("--scenario", help="surge; crowd: more than one machine can serve; calm: nothing must be done")
]
SimulateOption = Annotated[bool, typer.Option("--simulate", help="Use simulated switches and machines")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Few rounds, and simulated the quick models alone")]
RUN_DIRECTORY = Path(".run/demo")
QUICK_CYCLES = {"warmup_cycles": 2, "cycles": 1}
QUICK_MODELS = ("naive", "ewma", "train_mean", "seasonal_naive")


def demo(
    seed: SeedOption = 1,
    scenario: ScenarioOption = "surge",
    simulate: SimulateOption = False,
    quick: QuickOption = False,
    json: JsonOption = None,
) -> None:
    """Show the closed loop: same traffic under the policies static, reactive and predictive, measured.

    Examples:
        forepath demo
        forepath demo --seed 7 --json out.json
        forepath demo --scenario calm
        forepath demo --simulate --quick
    """
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"write {', '.join(SCENARIOS)}", param_hint="--scenario")
    stage = tool("lab.stage")
    try:
        if simulate or stage is None:
            reason = "asked to" if simulate else "the lab of real ones is part of the repository, not of the package"
        else:
            reason = stage.why_not()
        if stage is None or reason is not None:
            console.print(f"simulated switches and machines, because: {reason}", markup=False)
            _show(_simulated(seed, scenario, quick), json)
        elif stage.on_stage():
            _show(_real(seed, scenario, quick), json)
        else:
            raise typer.Exit(_on_a_stage(stage, sys.argv[1:]))
    except KeyboardInterrupt:
        errors.print("forepath: interrupted; everything that was started has ended")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _on_a_stage(stage: ModuleType, words: list[str]) -> int:
    # Fetched before the stage is entered: there is no network on it.
    assets = tool("lab.assets")
    assert assets is not None
    with Screen(console) as screen:
        assets.ensure_assets(say=screen.step)
    code: int = stage.run_on_stage([sys.executable, "-m", "forepath", *words])
    return code


def _fresh_directory() -> Path:
    shutil.rmtree(RUN_DIRECTORY, ignore_errors=True)
    RUN_DIRECTORY.mkdir(parents=True)
    return RUN_DIRECTORY


def _real(seed: int, scenario: str, quick: bool) -> TrialResult:
    real = tool("lab.demo")
    assert real is not None
    with Screen(console) as screen:
        phases = {"phases": Phases(policies=real.ORDER, **QUICK_CYCLES)} if quick else {}
        trial = real.RealTrial(seed, scenario, _fresh_directory(), screen, **phases)
        result: TrialResult = trial.run()
        # What is replayed says in the log what it does, second by second.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        return replace(result, replayed=trial.replay(result.price))


def _simulated(seed: int, scenario: str, quick: bool) -> TrialResult:
    from forepath.demo.simulated import ORDER, Rehearsal, SimulatedTrial

    # Everything runs in this process: its log lines would run through the live display.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with Screen(console) as screen:
        short = Rehearsal(Phases(policies=tuple(ORDER), **QUICK_CYCLES), PredictorConfig(models=QUICK_MODELS))
        return SimulatedTrial(seed, scenario, _fresh_directory(), screen, short if quick else Rehearsal()).run()


def _show(result: TrialResult, json: str | None) -> None:
    emit(document(result), json)
    if json == "-":
        return
    console.print(tables(result, console.width))
    _explain_last()
    for part in whatif_lines(result, console.width):
        console.print(part, markup=False, highlight=False)
    console.print(f"\nits recording: forepath web --settings {RUN_DIRECTORY}/forepath.toml", markup=False)


def _explain_last() -> None:
    from forepath.commands.decisions import in_short, last_action
    from orchestrator import explain

    store = open_store(f"sqlite:///{RUN_DIRECTORY.resolve()}/cpdb.db", create=False)
    record = last_action(store, policy="predictive")
    if record is not None:
        console.print(f"\n$ forepath explain --last --policy predictive --settings {RUN_DIRECTORY}/forepath.toml")
        console.print("\n".join(in_short(explain(record))), markup=False, highlight=False)
    store.close()
