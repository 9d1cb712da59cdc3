"""Fetches single Debian packages and unpacks them privately, so that the system's own packages stay as they are."""

from pathlib import Path

from cpdb.errors import LabError
from tools.lab.commands import run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_INDEX_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ARCHITECTURE)"


def main_mirror(indextargets: str) -> tuple[str, str, str]:
    """Return (URI, release, architecture) of the main archive among apt's index targets, one a line.

    The main entry is the one whose release is a plain code name with component `main`. LabError when none is.
    """
    for line in indextargets.splitlines():
        words = line.split()
        if len(words) == 4 and words[2] == "main" and "-" not in words[1] and "/" not in words[1]:
            return words[0], words[1], words[3]
    raise LabError("apt knows no main archive; check `apt-get indextargets`")


def backports_source(directory: Path) -> list[str]:
    """Write a private list file for `<release>-backports` of the machine's own mirror; return apt's options for it."""
    uri, release, _ = main_mirror(run(["apt-get", "indextargets", "--format", _INDEX_FORMAT, "Created-By: Packages"]))
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    source = directory / "backports.list"
    source.write_text(f"deb {signed}{uri} {release}-backports main\n")
    return [
        "-o", f"Dir::Etc::SourceList={source}", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={directory / 'lists'}", "-o", f"Dir::Cache={directory / 'cache'}",
    ]  # fmt: skip


def candidate(package: str, options: list[str]) -> str:
    """Return the newest version of `package` that apt would offer under `options`."""
    rows = run(["apt-cache", *options, "madison", package]).splitlines()
    if not rows:
        raise LabError(f"apt offers no package {package} there")
    return rows[0].split("|")[1].strip()


def fetch(package: str, into: Path, options: list[str]) -> Path:
    """Download `package` (or `package=version`) into the directory `into`; return the file."""
    into.mkdir(parents=True, exist_ok=True)
    stem = package.partition("=")[0]
    for old in into.glob(f"{stem}_*.deb"):
        old.unlink()
    unsandboxed = ["-o", "APT::Sandbox::User=root"]
    run(["apt-get", *options, *unsandboxed, "download", package], cwd=into, timeout_s=240)
    found = sorted(into.glob(f"{stem}_*.deb"))
    if not found:
        raise LabError(f"apt downloaded nothing for {package}")
    return found[0]


def unpack(package_file: Path, root: Path) -> None:
    """Unpack a package's files below `root`, running none of its scripts."""
    root.mkdir(parents=True, exist_ok=True)
    run(["dpkg", "-x", package_file, root])


def real_kernel_package() -> str:
    """Return the package that `linux-image-cloud-<arch>` stands for."""
    arch = run(["dpkg", "--print-architecture"]).strip()
    name = f"linux-image-cloud-{arch}"
    for line in run(["apt-cache", "depends", name]).splitlines():
        word = line.strip().removeprefix("Depends:").strip()
        if line.strip().startswith("Depends:") and word.startswith("linux-image-"):
            return word
    raise LabError(f"apt knows no {name}; run `apt-get update`")
