"""Control groups of the lab's hosts: what one host may use together, and the truth about what each VM used.

Every group's name begins with the stage's prefix (`forepath-<pid>-<token>`), so that left-overs can be recognised.
Version 1 (one tree for each controller) and version 2 (one tree) are both served; version 2 is best effort.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpdb.errors import LabError

PERIOD_US = 100_000
_WANTED = ("cpu", "cpuacct", "memory")
_NAME = re.compile(r"^forepath-(\d+)-")


@dataclass(frozen=True, slots=True)
class Tree:
    """One mounted cgroup tree. `options` are its mount options (`cpu,cpuacct`), empty for version 2."""

    mount: Path
    options: str

    @property
    def unified(self) -> bool:
        """Whether this is the single tree of version 2."""
        return not self.options


def trees(mountinfo: str | None = None) -> list[Tree]:
    """Return the trees that hold the cpu, cpuacct and memory controllers; LabError when there are none."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found: dict[str, Tree] = {}
    unified: Tree | None = None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        mount = Path(before.split()[4])
        if kind == "cgroup2" and unified is None:
            unified = Tree(mount, "")
        if kind == "cgroup":
            known = [c for c in options.split(",") if c in _WANTED]
            for controller in known:
                found[controller] = Tree(mount, ",".join(known))
    if "cpu" in found:
        return list(dict.fromkeys(found.values()))
    if unified is None:
        raise LabError("no cgroup tree with the cpu controller is mounted below /sys/fs/cgroup")
    return [unified]


def make(name: str) -> None:
    """Create the group `name` in every tree."""
    for tree in trees():
        if tree.unified:
            with contextlib.suppress(OSError):
                (tree.mount / "cgroup.subtree_control").write_text("+cpu +memory")
        try:
            (tree.mount / name).mkdir(exist_ok=True)
        except OSError as error:
            raise LabError(f"cannot create the control group {tree.mount / name}: {error.strerror}") from error
        _put_first(tree, name)


def _put_first(tree: Tree, name: str) -> None:
    """Let the group go before other work of this machine: it stands for a machine of its own."""
    file, weight = ("cpu.weight", "10000") if tree.unified else ("cpu.shares", "65536")
    if tree.unified or "cpu" in tree.options.split(","):
        with contextlib.suppress(OSError):
            (tree.mount / name / file).write_text(weight)


def limit_cpu(name: str, cores: float | None) -> None:
    """Cap the CPU of the whole group `name` at `cores`; None lifts the cap."""
    for tree in trees():
        group = tree.mount / name
        if tree.unified:
            quota = "max" if cores is None else str(int(cores * PERIOD_US))
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        elif "cpu" in tree.options.split(","):
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text("-1" if cores is None else str(int(cores * PERIOD_US)))


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds used since the group exists, seconds spent waiting for its own limit, and that limit (inf: none)."""

    cpu_seconds: float
    throttled_seconds: float
    limit_cores: float


def _numbers(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2}


def cpu_use(relative: str) -> CpuUse:
    """Read the group at `relative` (below each tree's root). OSError when it is gone."""
    by_option = {option: tree for tree in trees() for option in (tree.options.split(",") or [""])}
    if "cpu" not in by_option:
        return _cpu_use_unified(by_option[""].mount / relative)
    group = by_option["cpu"].mount / relative
    usage = int((by_option["cpuacct"].mount / relative / "cpuacct.usage").read_text()) / 1e9
    quota = int((group / "cpu.cfs_quota_us").read_text())
    period = int((group / "cpu.cfs_period_us").read_text())
    throttled = _numbers(group / "cpu.stat").get("throttled_time", 0) / 1e9
    return CpuUse(usage, throttled, quota / period if quota > 0 else float("inf"))


def _cpu_use_unified(group: Path) -> CpuUse:
    stat = _numbers(group / "cpu.stat")
    quota, period = (group / "cpu.max").read_text().split()
    limit = float("inf") if quota == "max" else int(quota) / int(period)
    return CpuUse(stat["usage_usec"] / 1e6, stat.get("throttled_usec", 0) / 1e6, limit)


def subgroups(relative: str) -> list[str]:
    """Return the names of the groups directly below `relative`."""
    try:
        return sorted(p.name for p in (trees()[0].mount / relative).iterdir() if p.is_dir())
    except FileNotFoundError:
        return []


def remove(prefix: str, patience_s: float = 3.0) -> None:
    """Remove every group whose name begins with `prefix`, deepest first; waits a little for dying processes."""
    deadline = time.monotonic() + patience_s
    for tree in trees():
        for group in sorted(tree.mount.glob(f"{prefix}*")):
            while not _remove_tree(group) and time.monotonic() < deadline:
                time.sleep(0.02)


def _remove_tree(group: Path) -> bool:
    for directory in _deepest_first(group):
        with contextlib.suppress(OSError):
            directory.rmdir()
    return not group.exists()


def _deepest_first(group: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)


def sweep() -> None:
    """Remove groups left by stages whose process no longer exists (a group with processes in it cannot go)."""
    with contextlib.suppress(LabError):
        for tree in trees():
            for group in tree.mount.glob("forepath-*-*"):
                owner = _NAME.match(group.name)
                if owner and not Path(f"/proc/{owner.group(1)}").exists():
                    _remove_tree(group)
