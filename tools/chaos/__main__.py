"""`make chaos SEED=n MINUTES=m`: breaks what runs on real switches, one thing after the other, and says what gives way.

    python -m tools.lab.stage -- python -m tools.chaos --seed 7 --minutes 20 [--database postgresql] [--json out.json]

Exit code 1 when anything did not hold: the line names seed and step, and the same seed breaks the same things again.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cpdb import LabError
from tools.chaos.clock import run_by_own_clock
from tools.chaos.faults import NEED_HOSTS, WAYS, Fault, draw_faults
from tools.chaos.invariants import broken, look_before
from tools.chaos.scene import Scene
from tools.lab import stage

WARM_UP_S = 120.0


@dataclass(frozen=True, slots=True)
class ChaosStep:
    """One fault and what did not hold after it; `recovered_s` is until all was checked."""

    number: int
    fault: Fault
    recovered_s: float
    failures: tuple[str, ...]


def play(scene: Scene, seed: int, minutes: float, names: Sequence[str]) -> list[ChaosStep]:
    """Breaks one thing after the other until the time is over."""
    steps: list[ChaosStep] = []
    end = time.monotonic() + 60 * minutes
    for number, fault in enumerate(draw_faults(seed, names), 1):
        if time.monotonic() >= end:
            break
        before = look_before(scene)
        time.sleep(2.0)
        with WAYS[fault.name](scene):
            time.sleep(fault.lasts_s)
        mended = time.monotonic()
        failures = tuple(broken(scene, fault, before))
        steps.append(ChaosStep(number, fault, round(time.monotonic() - mended, 1), failures))
        print(
            f"step {number}: {fault.name} for {fault.lasts_s:g} s; checked within {steps[-1].recovered_s:g} s",
            flush=True,
        )
        for failure in failures:
            print(f"chaos: seed {seed}, step {number} ({fault.name}): {failure}", file=sys.stderr, flush=True)
    return steps


def _warm_up(scene: Scene) -> None:
    """Until everything works once."""
    fault, end = Fault("nothing", 0.0, rules_lost=True), time.monotonic() + WARM_UP_S
    while scene.echo()[1] == 0:
        if time.monotonic() > end:
            raise LabError(f"nothing works even before anything is broken; see {scene.folder}")
        time.sleep(0.5)
    while failures := tuple(broken(scene, fault, look_before(scene))):
        if time.monotonic() > end:
            raise LabError(f"before anything is broken: {'; '.join(failures)}; see {scene.folder}")


def main(words: Sequence[str] | None = None) -> int:
    """Runs for the given minutes; 0 when everything held, 1 when not, 2 without a lab."""
    parser = argparse.ArgumentParser(description="Breaks a running lab in a seeded order and checks what must hold.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--only", choices=sorted(WAYS), action="append", help="break these alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    try:
        stage.prefix()
        clock = run_by_own_clock(["-m", "tools.chaos", *(sys.argv[1:] if words is None else words)])
    except LabError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    scene = Scene(Path(tempfile.mkdtemp(prefix="forepath-chaos-")), clock, options.database == "postgresql")
    try:
        scene.start()
        _warm_up(scene)
        names = [name for name in sorted(WAYS) if scene.lab.vms or name not in NEED_HOSTS]
        steps = play(scene, options.seed, options.minutes, options.only or names)
    except LabError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    finally:
        scene.stop()
    failed = [step.number for step in steps if step.failures]
    if options.json is not None:
        options.json.write_text(json.dumps({"seed": options.seed, "steps": [asdict(step) for step in steps]}, indent=2))
    print(f"seed {options.seed}: {len(steps)} faults, {len(failed)} after which something did not hold {failed or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
