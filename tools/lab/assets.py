"""Everything the lab needs that no system package provides: fetched and built once, kept in one directory."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cpdb.errors import LabError
from tools.lab.emulator import UNSAFE, ensure_emulator, system_major
from tools.lab.guest_image import ensure_initramfs, ensure_kernel

Say = Callable[[str], None]
_COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Assets:
    """Files of the lab. `emulator_root` is bound over the system's QEMU inside the hosts; None leaves the system's."""

    directory: Path
    kernel: Path
    initramfs: Path
    emulator_root: Path | None

    @property
    def warning(self) -> str | None:
        """One line when this emulator cannot migrate busy guests safely."""
        return UNSAFE if self.emulator_root is None and system_major() < 9 else None


def default_directory() -> Path:
    """Return `.lab/` below the current project's root (the nearest directory upwards with a setup.cfg)."""
    here = Path.cwd().resolve()
    for directory in (here, *here.parents):
        if (directory / "setup.cfg").exists():
            return directory / ".lab"
    return here / ".lab"


def ensure_assets(directory: Path | None = None, say: Say = lambda _step: None) -> Assets:
    """Fetch and build what is missing in `directory`; call `say` with each step. Needs apt's mirror the first time.

    Raises LabError with one line when something cannot be had.
    """
    directory = (directory or default_directory()).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    emulator_root = ensure_emulator(directory, say)
    kernel = ensure_kernel(directory, say)
    assets = Assets(directory, kernel, ensure_initramfs(directory, kernel, say), emulator_root)
    (directory / _COMPLETE).write_text(str(emulator_root or ""))
    return assets


def load_assets(directory: Path | None = None) -> Assets:
    """Return what `ensure_assets` made earlier, without any network; LabError when it has not run yet."""
    directory = (directory or default_directory()).resolve()
    mark, kernel = directory / _COMPLETE, directory / "kernel"
    if not mark.exists() or not kernel.exists():
        raise LabError(f"the lab's files are missing in {directory}; run `python -m tools.lab.assets` first")
    emulator = mark.read_text()
    initramfs = ensure_initramfs(directory, kernel, lambda _step: None)
    return Assets(directory, kernel, initramfs, Path(emulator) if emulator else None)


def main() -> int:
    """Fetch and build everything; print each step."""
    try:
        assets = ensure_assets(None, lambda step: print(f"lab: {step}", flush=True))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 3
    print(f"lab: ready in {assets.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
