"""Everything the lab needs that no system package provides: fetched and built once, kept in one directory."""

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cpdb.errors import LabError
from tools.lab.stage import run

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
    options = backports_source(private)
    say("reading the backports index")
    run(["apt-get", *options, "-o", "APT::Sandbox::User=root", "-qq", "update"], timeout_s=180)
    version = candidate(_PACKAGES[0], options)
    for name in _PACKAGES:
        wanted = candidate(name, options) if name == "seabios" else version
        say(f"fetching {name} {wanted}")
        unpack(fetch(f"{name}={wanted}", directory / "deb", options), root)
    (root / ".complete").touch()


GUEST = Path(__file__).parent / "guest"
# virtio_ring has to be loaded before virtio.
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover",
    "net_failover", "virtio_net", "virtio_balloon", "virtio_mem", "virtio_console",
)  # fmt: skip
SCRIPTS = ("init", "hot")
COMPILE = ("gcc", "-O2", "-static", "-pthread")
_UNPACKERS = {".ko": None, ".ko.xz": ["xz", "-dc"], ".ko.zst": ["zstd", "-dcq"], ".ko.gz": ["gzip", "-dc"]}
_LZ4_MAGIC = b"\x02\x21\x4c\x18"


def ensure_kernel(directory: Path, say: Say) -> Path:
    """Return a bootable kernel below `directory`, with its modules in `directory/kernel-root`; fetched once."""
    kernel = directory / "kernel"
    if kernel.exists() and (directory / "kernel-root").is_dir():
        return kernel
    package = real_kernel_package()
    say(f"fetching {package}")
    root = directory / "kernel-root"
    shutil.rmtree(root, ignore_errors=True)
    unpack(fetch(package, directory / "deb", []), root)
    images = sorted((root / "boot").glob("vmlinuz-*"))
    if not images:
        raise LabError(f"{package} holds no boot/vmlinuz-*")
    partial = directory / "kernel.part"
    partial.write_bytes(_uncompressed(images[-1]) or images[-1].read_bytes())
    return partial.rename(kernel)


def _uncompressed(image: Path) -> bytes | None:
    """Cut the ELF kernel out of an lz4-compressed bzImage: it boots 0.3 s sooner. None when it is packed otherwise."""
    data = image.read_bytes()
    start = data.find(_LZ4_MAGIC)
    if start < 0 or shutil.which("lz4") is None:
        return None
    # The trailer after the stream makes lz4 complain, so only the result counts.
    done = subprocess.run(["lz4", "-dc"], input=data[start:], capture_output=True, timeout=60, check=False)
    return done.stdout if done.stdout[:4] == b"\x7fELF" else None


def _module(root: Path, name: str) -> bytes | None:
    spellings = (name, name.replace("_", "-"))
    for suffix, unpacker in _UNPACKERS.items():
        for spelling in spellings:
            for found in root.glob(f"**/lib/modules/*/kernel/**/{spelling}{suffix}"):
                if unpacker is None:
                    return found.read_bytes()
                return subprocess.run([*unpacker, str(found)], capture_output=True, check=True).stdout
    return None


def _write_modules(kernel_root: Path, into: Path) -> None:
    into.mkdir(parents=True)
    for name in MODULES:
        data = _module(kernel_root, name)
        if data is None:
            continue  # built into this kernel
        target = into / f"{name}.ko"
        target.write_bytes(data)
        run(["strip", "--strip-debug", target])
    if not (into / "virtio_net.ko").exists():
        raise LabError("the guest kernel's package holds no virtio_net module")
    (into / "order").write_text("\n".join(MODULES) + "\n")


def _fingerprint(kernel: Path) -> str:
    digest = hashlib.sha256(f"{kernel.stat().st_size} {' '.join((*MODULES, *COMPILE))}".encode())
    for source in (*_code(".c"), *_code(".h"), *(GUEST / name for name in SCRIPTS)):
        data = source.read_bytes()
        # With name and size, so that a line which moves from one file to the next counts as well.
        digest.update(f"{source.name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _code(suffix: str) -> list[Path]:
    return sorted(GUEST.glob(f"*{suffix}"))


def ensure_initramfs(directory: Path, kernel: Path, say: Say) -> Path:
    """Return the initramfs below `directory`; rebuilt when the guest's sources or the kernel changed."""
    image, mark = directory / "initramfs.gz", directory / "initramfs.mark"
    fingerprint = _fingerprint(kernel)
    if image.exists() and mark.exists() and mark.read_text() == fingerprint:
        return image
    say("building the guest's initramfs")
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox is not installed; run deploy/system-packages.sh")
    # Built apart and put in place whole: two first starts at once must not write into one another's files.
    with tempfile.TemporaryDirectory(dir=directory, prefix="initramfs-") as folder:
        made = _build_initramfs(Path(folder), Path(busybox), directory / "kernel-root")
        made.replace(image)
    mark.write_text(fingerprint)
    return image


def _build_initramfs(folder: Path, busybox: Path, kernel_root: Path) -> Path:
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in SCRIPTS:
        shutil.copy(GUEST / name, root / name)
        (root / name).chmod(0o755)
    run([*COMPILE, "-o", root / "agent", *_code(".c")])
    _write_modules(kernel_root, root / "m")
    image = folder / "initramfs.gz"
    _pack(root, image)
    return image


def _pack(root: Path, image: Path) -> None:
    names = "\n".join(["."] + [f"./{path.relative_to(root)}" for path in sorted(root.rglob("*"))]) + "\n"
    done = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc"],
        input=names.encode(), cwd=root, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"busybox cpio failed: {done.stderr.decode(errors='replace')[-200:]}")
    image.write_bytes(gzip.compress(done.stdout, compresslevel=1))


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
