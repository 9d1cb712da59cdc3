"""`python -m tools.audit`: are the installed packages those that are locked, whole, and as they were packed? Offline.

With `--lock` it writes requirements.lock instead, which needs the package index.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ryu_apps import FRAMEWORKS, framework_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
# Development's own packages and those of the lab are installed by hash, too.
EXTRAS = ("", "dev", "lab", *FRAMEWORKS)
# What differs where it was installed: whom this machine trusts, and the command that stands in the place of Ryu's.
NOTED, REPLACED = "certifi/cacert.pem", "bin/ryu-manager"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.MULTILINE)
OURS = "forepath"
HEAD = """# What make setup installs, by hash: Python 3.11 on Linux x86_64. python -m tools.audit --lock writes it."""


def pinned(text: str) -> dict[str, str]:
    """Name -> version of each line NAME==VERSION."""
    return {canonicalize_name(name): version for name, version in PIN.findall(text)}


def needs_of(name: str, package: Distribution) -> list[Requirement]:
    """What a package needs; what forepath does is read from its own file, which may be newer than what is installed."""
    if name != OURS:
        return [Requirement(text) for text in package.requires or ()]
    file = ConfigParser(interpolation=None)
    file.read(ROOT / "setup.cfg", encoding="utf-8")
    told = [(text, "") for text in file["options"]["install_requires"].split("\n")]
    for extra, texts in file["options.extras_require"].items():
        told += [(text, f'; extra == "{extra}"') for text in texts.split("\n")]
    return [
        Requirement(f"{text}{marker}") for text, marker in told if text.strip() and not text.lstrip().startswith("#")
    ]


def applies(need: Requirement, extra: str = "") -> bool:
    """Whether a need counts on this machine, with this extra."""
    return need.marker is None or need.marker.evaluate({"extra": extra})


def closure(of: str, extras: Sequence[str] = ("",)) -> dict[str, Distribution]:
    """A package and all that it needs here, by name. Raises PackageNotFoundError where one is not installed."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(of, extra) for extra in extras]
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found[name] = distribution(name)
        for need in needs_of(name, found[name]):
            if applies(need, extra):
                waiting += [(need.name, asked) for asked in ("", *need.extras)]
    return found


def version_problems(pins: Mapping[str, str], installed: Mapping[str, str]) -> Iterator[str]:
    """A line for each installed package that is not locked, or not in this version."""
    for name, version in sorted(installed.items()):
        if name not in pins:
            yield f"{name}: is not in requirements.lock; python -m tools.audit --lock writes it anew"
        elif pins[name] != version:
            yield f"{name}: {version} is installed, {pins[name]} is locked; make setup installs it"


def need_problems(packages: Mapping[str, Distribution]) -> Iterator[str]:
    """A line for each need of a package that another one does not meet."""
    for name, package in sorted(packages.items()):
        for need in needs_of(name, package):
            other = packages.get(canonicalize_name(need.name))
            if applies(need) and other is not None and other.version not in need.specifier:
                yield f"{name}: needs {need.name} {need.specifier}, and {other.version} is installed"


def changed_files(package: Distribution) -> Iterator[str]:
    """Files of a package that are not as its own list says; what was compiled here is not on it."""
    for file in package.files or ():
        if file.hash is None or str(file).endswith(REPLACED):
            continue
        try:
            content = Path(str(file.locate())).read_bytes()
        except OSError:
            yield f"{file}: is gone"
            continue
        found = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).rstrip(b"=").decode()
        if found != file.hash.value:
            yield f"{file}: is not as it was packed"


def problems() -> list[str]:
    """Everything that is wrong, a line each."""
    packages = closure(OURS, ("", framework_name()))
    packages.pop(OURS)
    pins = pinned(LOCK.read_text(encoding="utf-8")) if LOCK.is_file() else {}
    lines = [*version_problems(pins, {name: one.version for name, one in packages.items()}), *need_problems(packages)]
    for name, package in sorted(packages.items()):
        lines += [f"{name}: {line}" for line in changed_files(package)]
    return lines


def write_lock() -> None:
    """Asks pip for the hash of what is installed, as the index has it for this Python and this kind of machine."""
    frozen = [f"{name}=={one.version}" for name, one in closure(OURS, EXTRAS).items() if name != OURS]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", f"--report={report}"]
        subprocess.run([sys.executable, "-m", "pip", *asked, *sorted(frozen)], check=True, stderr=subprocess.DEVNULL)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = [
        f"{one['metadata']['name']}=={one['metadata']['version']} "
        f"--hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}"
        for one in found
    ]
    LOCK.write_text("\n".join([HEAD, *sorted(lines, key=str.lower), ""]), encoding="utf-8")


def main(words: Sequence[str]) -> int:
    """Prints what is wrong; exit code 1 when anything is."""
    if list(words) == ["--lock"]:
        write_lock()
        return 0
    try:
        found = problems()
        count = len(closure(OURS, ("", framework_name()))) - 1
    except PackageNotFoundError as error:
        found, count = [f"{error.name}: is not installed; run make setup"], 0
    notes = [line for line in found if NOTED in line]
    wrong = [line for line in found if NOTED not in line]
    for line in (*(f"note: {one}; whoever runs this machine chose whom it trusts" for one in notes), *wrong):
        print(line)
    print(f"packages: {len(wrong)} problems" if wrong else f"packages: {count}, each as locked and as it was packed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
