"""The stage: namespaces of its own for a whole lab, so that several can run and nothing outlives one.

Network, mounts, processes and host name are private. Every bridge, daemon, VM and socket made on the stage vanishes
when its first process ends - also after `kill -9` of any part. Use: `python -m tools.lab.stage -- COMMAND ...`.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from cpdb.errors import LabError
from tools.lab import cgroups


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


MARK = "FOREPATH_STAGE"
_PRIVATE = (
    "/run", "/etc/openvswitch", "/var/lib/openvswitch", "/var/log/openvswitch",
    "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt",
)  # fmt: skip
_NEEDED = {
    "unshare": "util-linux", "setpriv": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "tc": "iproute2",
    "mnexec": "mininet", "ovs-vswitchd": "openvswitch-switch", "ovsdb-server": "openvswitch-switch",
    "ethtool": "ethtool",
}  # fmt: skip
_NEEDED_FOR_VMS = {"qemu-system-x86_64": "qemu-system-x86", "libvirtd": "libvirt-daemon", "busybox": "busybox-static"}
_SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_stage() -> bool:
    """Whether this process already runs on a stage."""
    return bool(os.environ.get(MARK))


def prefix() -> str:
    """Return the stage's prefix for names that the whole machine sees. LabError off stage."""
    if not on_stage():
        raise LabError("the lab needs a stage; start it with `python -m tools.lab.stage -- COMMAND`")
    return os.environ[MARK]


def why_not(vms: bool = True) -> str | None:
    """Say in one line why the real lab cannot be had here, or None when it can."""
    if sys.platform != "linux":
        return "the lab needs Linux"
    if os.geteuid() != 0:
        return "the lab needs root (namespaces, bridges, control groups)"
    needed = _NEEDED | (_NEEDED_FOR_VMS if vms else {})
    missing = [f"{tool} ({package})" for tool, package in needed.items() if not shutil.which(tool, path=_SEARCH)]
    if missing:
        return f"missing: {', '.join(missing)}; run deploy/system-packages.sh"
    modules = [name for name in ("mininet", *(["libvirt"] if vms else [])) if importlib.util.find_spec(name) is None]
    if modules:
        return f"missing Python modules: {', '.join(modules)}; install the extra `lab`"
    if not Path("/dev/net/tun").exists():
        return "the lab needs /dev/net/tun"
    try:
        cgroups.trees()
        run(["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--mount-proc", "true"], timeout_s=10)
    except LabError as error:
        return str(error)
    return None


def run_on_stage(argv: Sequence[str]) -> int:
    """Run `argv` on a fresh stage (or here, when already on one), forward signals, return its exit code.

    128 + n stands for death by signal n. LabError when no stage can be had.
    """
    if on_stage():
        return subprocess.run(list(argv), check=False).returncode
    problem = why_not(vms=False)
    if problem:
        raise LabError(problem)
    if MARK not in os.environ:  # a stage on a stage cannot see whose groups the others are
        cgroups.sweep()
    name = f"forepath-{os.getpid()}-{secrets.token_hex(2)}"
    inside = [sys.executable, "-m", "tools.lab.stage", "--inside", name, "--", *argv]
    keep = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child"]
    env = os.environ | {"PYTHONPATH": _python_path(), "PATH": _SEARCH}
    # A session of its own: Ctrl-C reaches only this process, which passes it on exactly once.
    outer = subprocess.Popen([*keep, "--mount-proc", *inside], env=env, start_new_session=True)
    try:
        with _forwarding(outer.pid):
            return _exit_code(outer.wait())
    finally:
        outer.kill()
        outer.wait()
        cgroups.remove(f"{name}-")


def _python_path() -> str:
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)


def _exit_code(status: int) -> int:
    return status if status >= 0 else 128 - status


def _first_process(unshare_pid: int) -> int | None:
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{unshare_pid}/task/{unshare_pid}/children").read_text().split()
            if children:
                return int(children[0])
        time.sleep(0.01)
    return None


@contextlib.contextmanager
def _forwarding(unshare_pid: int) -> Iterator[None]:
    """Pass the forwarded signals on to the stage's first process while the block runs."""

    def forward(number: int, _frame: FrameType | None) -> None:
        target = _first_process(unshare_pid)
        if target is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- what the first process of the stage does ---------------------------------------------------------------


def _furnish() -> None:
    """Give the stage its own /run, daemon directories and /sys, keep the control groups reachable, bring `lo` up."""
    for place in _PRIVATE:
        Path(place).mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "stage", place])
    kept = Path("/run/cgroup")
    kept.mkdir()
    run(["mount", "--rbind", "/sys/fs/cgroup", kept])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    run(["mount", "--rbind", kept, "/sys/fs/cgroup"])
    run(["umount", "--recursive", "--lazy", kept])
    for place in ("openvswitch", "libvirt", "netns", "lock"):
        Path("/run", place).mkdir()
    run(["ip", "link", "set", "lo", "up"])
    run(["hostname", "forepath-stage"])


def _reap_until(child: int) -> int:
    """Wait for every process that ends on the stage, until `child` does; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return _exit_code(os.waitstatus_to_exitcode(status))


def _listen_again(mask: Iterable[int]) -> None:
    """Let the command hear what is forwarded to it, also when this stage was started in the background of a script."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _inside(name: str, argv: Sequence[str]) -> int:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    _furnish()
    os.environ[MARK] = name
    try:
        command = subprocess.Popen(list(argv), preexec_fn=lambda: _listen_again(blocked))
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127
    for number in _FORWARDED:
        signal.signal(number, lambda n, _f: command.send_signal(n))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return _reap_until(command.pid)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of `python -m tools.lab.stage -- COMMAND ARGS...`.

    `--why-not` in place of a command: 0 when the real lab can be had here, otherwise 1 and the reason in one line.
    """
    words = list(sys.argv[1:] if words is None else words)
    cut = words.index("--") if "--" in words else len(words)
    options, argv = words[:cut], words[cut + 1 :]
    if options == ["--why-not"]:
        reason = why_not()
        print(reason or "", end="\n" if reason else "")
        return 1 if reason else 0
    if not argv:
        print("usage: python -m tools.lab.stage -- COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    try:
        if options[:1] == ["--inside"]:
            return _inside(options[1], argv)
        return run_on_stage(argv)
    except LabError as error:
        print(f"stage: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
