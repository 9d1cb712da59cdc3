"""Runs system commands for the lab, so that every failure becomes one clear line."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cpdb.errors import LabError


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
) -> str:
    """Run `argv`, return its standard output; LabError names the command and its last line of complaint."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed; run deploy/system-packages.sh") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(words)[:200]}` did not finish within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"`{' '.join(words)[:200]}` failed ({done.returncode}): {complaint[:300]}")
    return done.stdout


def run_batch(tool: Sequence[str], lines: Sequence[str]) -> None:
    """Feed `lines` to a tool that reads a batch from standard input (`ip -batch -`, `tc -batch -`)."""
    if not lines:
        return
    try:
        done = subprocess.run(
            list(tool), input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise LabError(f"`{' '.join(tool)}` could not run: {error}") from error
    if done.returncode != 0:
        raise LabError(f"`{' '.join(tool)}` failed: {' / '.join(done.stderr.split(chr(10))[:2])[:300]}")
