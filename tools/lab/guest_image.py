"""Builds what a lab guest boots: a kernel, and an initramfs with busybox, the agent and a handful of drivers."""

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from cpdb.errors import LabError
from tools.lab import debian
from tools.lab.commands import run

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
Say = Callable[[str], None]


def ensure_kernel(directory: Path, say: Say) -> Path:
    """Return a bootable kernel below `directory`, with its modules in `directory/kernel-root`; fetched once."""
    kernel = directory / "kernel"
    if kernel.exists() and (directory / "kernel-root").is_dir():
        return kernel
    package = debian.real_kernel_package()
    say(f"fetching {package}")
    root = directory / "kernel-root"
    shutil.rmtree(root, ignore_errors=True)
    debian.unpack(debian.fetch(package, directory / "deb", []), root)
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
    root = directory / "initramfs"
    shutil.rmtree(root, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox is not installed; run deploy/system-packages.sh")
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in SCRIPTS:
        shutil.copy(GUEST / name, root / name)
        (root / name).chmod(0o755)
    run([*COMPILE, "-o", root / "agent", *_code(".c")])
    _write_modules(directory / "kernel-root", root / "m")
    _pack(root, image)
    mark.write_text(fingerprint)
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
