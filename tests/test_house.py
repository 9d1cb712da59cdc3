"""The house stays small and clean: size budgets, and words that must not appear."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("cpdb", "ryu_apps", "predictor", "orchestrator", "mininet_topos", "backtest", "forepath", "tools")
LONGEST_FILE = 400
OTHER_CODE = {".c", ".h", ".sh"}
LONGEST_FUNCTION = 40
MOST_PARAMETERS = 5
FORBIDDEN = re.compile(r"/work/|/root/|\.pyenv|deb\.debian\.org|pypi\.org", re.IGNORECASE)


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def code() -> list[Path]:
    others = (path for place in (*ROOMS, "deploy") for path in (ROOT / place).rglob("*") if path.suffix in OTHER_CODE)
    return sources() + sorted(others)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def is_migration(path: Path) -> bool:
    return "versions" in path.parts


def is_command(path: Path) -> bool:
    # A command's parameters are its options: the command line is their bundle.
    return "commands" in (*path.parts, path.stem)


def test_files_stay_short() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in code() if (lines := _lines(path)) > LONGEST_FILE}
    assert long == {}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_functions_stay_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": size
        for path in sources()
        if not is_migration(path)
        for function in functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


def test_functions_take_few_parameters() -> None:
    many = {
        f"{path.relative_to(ROOT)}:{function.name}"
        for path in sources()
        if not is_command(path)
        for function in functions(path)
        if len([arg for arg in function.args.args + function.args.kwonlyargs if arg.arg not in ("self", "cls")])
        > MOST_PARAMETERS
    }
    assert many == set()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_machine_paths_or_registries_in_what_ships() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    found = [
        name
        for name in listed
        if name and Path(name).name != "test_house.py" and (ROOT / name).is_file() and _forbidden(ROOT / name)
    ]
    assert found == []


def _forbidden(path: Path) -> bool:
    return bool(FORBIDDEN.search(path.read_text(encoding="utf-8", errors="ignore")))
