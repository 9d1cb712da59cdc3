"""The audit finds another version, a need that is not met, and a file that is not as it was packed."""

import base64
import hashlib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tools.audit import HEAD, LOCK, OURS, changed_files, closure, need_problems, pinned, version_problems


def packed(folder: Path, name: str, version: str, needs: str = "", content: bytes = b"x = 1\n") -> PathDistribution:
    (folder / f"{name}.py").write_bytes(content)
    said = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    need = f"Requires-Dist: {needs}\n" if needs else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{need}")
    (info / "RECORD").write_text(f"{name}.py,sha256={said},{len(content)}\n{info.name}/RECORD,,\n")
    return PathDistribution(info)


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    package = packed(tmp_path, "one", "1.0")
    assert list(changed_files(package)) == []
    (tmp_path / "one.py").write_bytes(b"x = 2\n")
    assert list(changed_files(package)) == ["one.py: is not as it was packed"]
    (tmp_path / "one.py").unlink()
    assert list(changed_files(package)) == ["one.py: is gone"]


def test_versions_are_those_that_are_locked(tmp_path: Path) -> None:
    pins = pinned(f"{HEAD}\nOne_x==1.0 --hash=sha256:aa\ntwo==2.0 --hash=sha256:bb\n")
    assert pins == {"one-x": "1.0", "two": "2.0"}
    assert list(version_problems(pins, {"one-x": "1.0", "two": "2.0"})) == []
    other, unknown = version_problems(pins, {"one-x": "1.1", "zed": "1"})
    assert "1.1 is installed, 1.0 is locked" in other and "not in requirements.lock" in unknown
    one, two = packed(tmp_path, "one", "1.0", "two>=3"), packed(tmp_path, "two", "2.0")
    (line,) = need_problems({"one": one, "two": two})
    assert line.startswith("one: needs two >=3")


@pytest.mark.skipif(not LOCK.is_file(), reason="only in a checkout")
def test_everything_that_forepath_stands_on_is_locked_by_hash() -> None:
    lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all("==" in line and " --hash=sha256:" in line for line in lines)
    assert closure(OURS).keys() - {OURS} <= pinned("\n".join(lines)).keys()
