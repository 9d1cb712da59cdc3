"""Takes a measurement to a stage of its own and brings home what it found there, or why it found nothing."""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cpdb import LabError
from tools.lab.stage import on_stage, run_on_stage

Found = dict[str, Any]


def found_on_stage(module: str, words: Sequence[str]) -> Found:
    """What `python -m module FILE words...` found; needs root and Open vSwitch: LabError says what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        code = run_on_stage([sys.executable, "-m", module, str(file), *words])
        if not file.exists():
            raise LabError(f"the measurement on the stage ended with exit code {code} and found nothing")
        found: Found = json.loads(file.read_text(encoding="utf-8"))
    if "error" in found:
        raise LabError(found["error"])
    return found


def tell(command: str, words: Sequence[str], look: Callable[[Path, Sequence[str]], Found]) -> int:
    """The other end: `look` measures, with a folder that is gone afterwards and the words after the file's name.

    Returns the exit code; `command` is what people should have typed who are on no stage.
    """
    if not on_stage():
        print(f"run it as `{command}`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = look(Path(folder), words[1:])
        except LabError as error:
            found = {"error": str(error)}
    Path(words[0]).write_text(json.dumps(found), encoding="utf-8")
    return 0
