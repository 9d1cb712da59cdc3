"""Provides an emulator that live-migrates busy guests safely: QEMU 9 or newer."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from cpdb.errors import LabError
from tools.lab import debian
from tools.lab.commands import run

SAFE_MAJOR = 9
UNSAFE = "live migration of a guest that writes memory is unsafe with QEMU < 9"
_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
Say = Callable[[str], None]


def system_major() -> int:
    """Return the major version of the system's QEMU, 0 when there is none."""
    if shutil.which("qemu-system-x86_64") is None:
        return 0
    found = re.search(r"version (\d+)\.", run(["qemu-system-x86_64", "--version"]))
    return int(found.group(1)) if found else 0


def ensure_emulator(directory: Path, say: Say) -> Path | None:
    """Return a private root (with usr/bin/qemu-system-x86_64) to bind over the system's, None for the system's own.

    A QEMU of the release's backports is unpacked below `directory` when the system's is too old; where that
    cannot be had, the system's is used and `say` tells what that means.
    """
    if system_major() >= SAFE_MAJOR:
        return None
    root = directory / "qemu"
    if (root / ".complete").exists():
        return root
    try:
        _unpack_backports(directory, root, say)
    except LabError as error:
        say(f"QEMU of the backports cannot be had ({error}); {UNSAFE}")
        return None
    return root


def _unpack_backports(directory: Path, root: Path, say: Say) -> None:
    private = directory / "apt"
    options = debian.backports_source(private)
    say("reading the backports index")
    run(["apt-get", *options, "-o", "APT::Sandbox::User=root", "-qq", "update"], timeout_s=180)
    version = debian.candidate(_PACKAGES[0], options)
    for name in _PACKAGES:
        wanted = debian.candidate(name, options) if name == "seabios" else version
        say(f"fetching {name} {wanted}")
        debian.unpack(debian.fetch(f"{name}={wanted}", directory / "deb", options), root)
    (root / ".complete").touch()
