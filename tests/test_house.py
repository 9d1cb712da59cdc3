"""The house stays small and clean: size budgets, and words that must not appear."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tools.house import ROOMS, ROOT, CodeFile, Figure, measure, sources, tour

FORBIDDEN = re.compile(r"/work/|/root/|\.pyenv|deb\.debian\.org|pypi\.org", re.IGNORECASE)
PAGES = ("README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")))
# A path of the repository as pages write it: `room/...` or `docs/...`, with a slash and no placeholder in it.
NAMED = re.compile(rf"[`(]((?:{'|'.join((*ROOMS, 'tests', 'docs', 'deploy'))})/[\w./-]+)")


@pytest.fixture(scope="module")
def files() -> list[CodeFile]:
    return sources()


@pytest.mark.parametrize("figure", measure(sources()), ids=lambda figure: figure.name.replace(" ", "-"))
def test_the_house_keeps_its_budgets(figure: Figure) -> None:
    assert figure.value <= figure.limit, f"{figure.name}: {figure.value:g} > {figure.limit:g}: {figure.offenders}"


def test_the_files_of_the_tours_exist() -> None:
    for title in ("The tour of a sample", "The tour of a forecast"):
        assert len(tour(title)) >= 8
        assert [path for path in tour(title) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path.rstrip("./")).exists()] == []


def test_every_module_says_why_it_exists(files: list[CodeFile]) -> None:
    assert [str(file.path) for file in files if file.path.suffix == ".py" and not ast.get_docstring(file.tree)] == []


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
