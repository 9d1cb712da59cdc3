"""`python -m tools.mutants --seed N --count M`: do tests notice when one operator of the code is another one?

Each mutant is one operator, comparison, constant or returned value changed in a copy of the checkout; the tests of the
room it lies in are run there, those that import the changed file first. A mutant that no test notices either changes
nothing that can be observed or shows what is not tested: its line is printed, and a person decides which.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.house import ROOT, CodeFile, sources

MUTATED_ROOMS = ("orchestrator", "predictor", "ryu_apps", "cpdb")
MARKS = "not lab and not vm and not long"
# A mutant may loop for ever; then the tests have noticed it.
TEST_TIMEOUT_S = 60
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the line it is in, before and after, and the whole changed file."""

    path: str
    line: int
    before: str
    after: str
    text: str


def mutants_of(file: CodeFile) -> Iterator[Mutant]:
    """Every one-operator mutant of a file, in the order of its code; docstrings, names and annotations stay."""
    for node in ast.walk(file.tree):
        for replacement in _replacements(node):
            yield _mutant(file, node, replacement)


def _replacements(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPPED:
        yield _unparsed(node, op=SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield _unparsed(node, ops=[SWAPPED[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"


def _unparsed(node: ast.expr, **changed: object) -> str:
    fields = dict(ast.iter_fields(node)) | changed
    return f"({ast.unparse(type(node)(**fields))})"


def _mutant(file: CodeFile, node: ast.AST, replacement: str) -> Mutant:
    assert isinstance(node, ast.expr)
    lines = file.text.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
    whole = file.text.encode()
    before = whole[begin:end].decode()
    text = (whole[:begin] + replacement.encode() + whole[end:]).decode()
    return Mutant(str(file.path), node.lineno, " ".join(before.split()), replacement, text)


def sample(seed: int, count: int, rooms: Sequence[str] = MUTATED_ROOMS) -> list[Mutant]:
    """`count` mutants, as many from each room as its share of all; the same seed and code give the same ones."""
    files = [file for file in sources() if file.path.parts[0] in rooms and not file.is_data]
    every = [mutant for file in files for mutant in mutants_of(file)]
    return random.Random(seed).sample(every, min(count, len(every)))


def is_noticed(mutant: Mutant, checkout: Path) -> bool:
    """Whether a test of the mutant's room fails on it. `checkout` is a copy that may be changed; it is put back."""
    place = checkout / mutant.path
    kept = place.read_text(encoding="utf-8")
    place.write_text(mutant.text, encoding="utf-8")
    try:
        return any(not _passes(checkout, tests) for tests in _tests(mutant, checkout))
    finally:
        place.write_text(kept, encoding="utf-8")


def _tests(mutant: Mutant, checkout: Path) -> Iterator[list[str]]:
    """The room's test files in two rounds: those that import the changed file or its folder, then the others."""
    path = Path(mutant.path)
    names = {".".join(path.with_suffix("").parts), ".".join(path.parent.parts)}
    files = sorted((checkout / "tests" / path.parts[0]).rglob("test_*.py"))
    near = [file for file in files if any(f"from {name} import" in file.read_text() for name in names)]
    for group in (near, [file for file in files if file not in near]):
        if group:
            yield [str(file.relative_to(checkout)) for file in group]


def _passes(checkout: Path, tests: Sequence[str]) -> bool:
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "--dist", "loadfile", "-m", MARKS]
    words += ["-p", "no:cacheprovider", "-p", "no:randomly", f"--timeout={TEST_TIMEOUT_S}", *tests]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, check=False)
    # 5: every test of the group is left out here.
    return done.returncode in (0, 5)


def main(words: Sequence[str]) -> int:
    """Prints each mutant's fate and how many were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--count", type=int, default=24, help="how many mutants")
    parser.add_argument("--rooms", nargs="+", choices=MUTATED_ROOMS, default=MUTATED_ROOMS, help="where to look")
    parser.add_argument("--json", metavar="PATH", help="write the fates to a file")
    options = parser.parse_args(words)
    mutants = sample(options.seed, options.count, options.rooms)
    with tempfile.TemporaryDirectory() as folder:
        checkout = _copy(Path(folder))
        for room in sorted({Path(mutant.path).parts[0] for mutant in mutants}):
            if not _passes(checkout, [f"tests/{room}"]):
                print(f"tests/{room} fails without any change: mend that first", file=sys.stderr)
                return 1
        fates = [_told(mutant, is_noticed(mutant, checkout)) for mutant in mutants]
    print(f"{sum(map(bool, (fate['noticed'] for fate in fates)))} of {len(fates)} mutants were noticed")
    if options.json:
        Path(options.json).write_text(json.dumps(fates, indent=1) + "\n", encoding="utf-8")
    return 0


def _copy(folder: Path) -> Path:
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "*.db", "__pycache__"))
    # Tests start the installed commands; PYTHONPATH makes them run the copy's code.
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    return checkout


def _told(mutant: Mutant, noticed: bool) -> dict[str, object]:
    fate = "noticed " if noticed else "SURVIVED"
    print(f"{fate} {mutant.path}:{mutant.line}  {mutant.before}  ->  {mutant.after}", flush=True)
    return {key: value for key, value in asdict(mutant).items() if key != "text"} | {"noticed": noticed}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
