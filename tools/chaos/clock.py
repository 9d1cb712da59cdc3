"""A clock that can be set: the time of day of all that runs here (`clock.c`), while the machine's own stays."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from cpdb import LabError

_FILE = "FOREPATH_CLOCK"
_SOURCE = Path(__file__).with_name("clock.c")


def run_by_own_clock(words: Sequence[str]) -> Path:
    """The file of this process's clock; one that has none begins anew as `python WORDS`, with one. Raises LabError."""
    if _FILE not in os.environ:
        folder = Path(mkdtemp(prefix="forepath-clock-"))
        # The server of a database reads it as another user.
        folder.chmod(0o755)
        file, library = folder / "ahead", folder / "clock.so"
        set_clock(file, 0)
        try:
            subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise LabError(f"no clock of its own, {error}; deploy/system-packages.sh installs gcc") from error
        own = {_FILE: str(file), "LD_PRELOAD": str(library)}
        os.execve(sys.executable, [sys.executable, *words], os.environ | own)
    return Path(os.environ[_FILE])


def set_clock(file: Path, ahead_s: int) -> None:
    """By how much all clocks are ahead."""
    # In place: whoever runs has it in memory.
    with file.open("r+b" if file.exists() else "w+b") as clock:
        clock.write(ahead_s.to_bytes(8, sys.byteorder, signed=True))


def read_clock(file: Path) -> int:
    """By how much they are ahead."""
    return int.from_bytes(file.read_bytes(), sys.byteorder, signed=True)
