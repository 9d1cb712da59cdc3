"""Tells a machine that stopped while it booted from one that is slow, and what its console said last."""

import re
from collections.abc import Mapping
from pathlib import Path

import libvirt

# What is shut off for one of these reasons did not fail: it was never started, or it lives on elsewhere.
_NO_END = {
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT,
}
_TELLING = re.compile(r"kernel panic|oops|bug:|out of memory", re.IGNORECASE)
_KERNEL_TIME = re.compile(r"^\[ *\d+\.\d+\] *")
_READ_BYTES = 64 * 1024
_LONGEST_LINE = 200


def stopped_on(seen: Mapping[str, tuple[int, int] | None]) -> str | None:
    """Return the host on which a machine came to its end; None while it runs, moves, or nobody can know.

    `seen` maps each host that knows the machine to libvirt's (state, reason), or to None when it could not be asked.
    """
    states = [found and found[0] for found in seen.values()]
    if any(state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED) for state in states):
        return None
    return next((host for host, found in seen.items() if found and _is_end(*found)), None)


def _is_end(state: int, reason: int) -> bool:
    return state == libvirt.VIR_DOMAIN_CRASHED or reason not in _NO_END


def last_words(console: Path) -> str:
    """Return the last line of a console that names a failure, else its last line, without the kernel's time stamp.

    "" when the console is empty or cannot be read.
    """
    try:
        with console.open("rb") as file:
            file.seek(max(0, console.stat().st_size - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in map(_plain, re.split(r"[\r\n]+", text)) if line]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or [""])[-1][:_LONGEST_LINE]


def _plain(line: str) -> str:
    return _KERNEL_TIME.sub("", "".join(char for char in line if char.isprintable()).strip())
