"""`python -m tools.house`: measures the house by the budgets of CONTRIBUTING; `make check` prints it.

Each budget guards against god objects and hidden knots; none is a target to cut a thought in pieces for.
"""

import ast
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parent.parent
ROOMS = ("cpdb", "ryu_apps", "predictor", "orchestrator", "mininet_topos", "backtest", "forepath", "tools")
CODE = {".py", ".c", ".h", ".sh"}
# A ratchet: a capability raises them by what it needs, docs/decisions/0022-what-a-new-room-may-add.md tells which.
MAX_FILES, MAX_LINES = 469, 79_260
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MEDIAN_FUNCTION_LINES = 400, 40, 8
MAX_FIELDS, MAX_METHODS, MAX_PARAMETERS = 12, 15, 5
TOURS = {"The tour of a sample": 14, "The tour of a forecast": 25}
TOUR_PAGE = ROOT / "docs" / "how-it-works.md"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure: what it is, how much, how much may be, and where it is exceeded."""

    name: str
    value: float
    limit: float
    offenders: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit


@dataclass(frozen=True)
class CodeFile:
    """One file of code; `tree` only for Python."""

    path: Path

    @cached_property
    def text(self) -> str:
        """What stands in it."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax; an empty one for other languages."""
        return ast.parse(self.text if self.path.suffix == ".py" else "")

    @property
    def lines(self) -> int:
        """How long it is."""
        return len(self.text.splitlines())

    @property
    def is_data(self) -> bool:
        """Migrations are data: what they once did never changes."""
        return "versions" in self.path.parts

    @property
    def is_command(self) -> bool:
        """A command's parameters are its options: the command line is their bundle."""
        return "commands" in (*self.path.parts, self.path.stem)

    @property
    def functions(self) -> Iterator[Function]:
        """Every function and method."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


def sources(root: Path = ROOT) -> list[CodeFile]:
    """All code but tests, by the checkout's own list."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *ROOMS], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        CodeFile(Path(name)) for name in sorted(set(listed)) if Path(name).suffix in CODE and (root / name).is_file()
    ]


def measure(files: Sequence[CodeFile]) -> list[Figure]:
    """All figures, worst offenders first; files and lines are those of Python without migrations."""
    python = [file for file in files if file.path.suffix == ".py" and not file.is_data]
    return [
        Figure("source files", len(python), MAX_FILES),
        Figure("source lines", sum(file.lines for file in python), MAX_LINES),
        *_sizes([file for file in files if not file.is_data]),
        *_knots(files),
        *(_tour(title, limit) for title, limit in TOURS.items()),
    ]


def _sizes(files: Sequence[CodeFile]) -> Iterator[Figure]:
    sizes, fields, methods, parameters, tuples = {}, {}, {}, {}, []
    for file in files:
        for node in file.functions:
            place = f"{file.path}:{node.lineno} {node.name}"
            sizes[place] = (node.end_lineno or 0) - node.lineno + 1
            taken = [arg for arg in _arguments(node) if arg.arg not in ("self", "cls")]
            parameters[place] = 0 if file.is_command else len(taken)
            tuples += [f"{place}({arg.arg})" for arg in taken if _is_bare_tuple(arg.annotation)]
        for kind in file.classes:
            place = f"{file.path}:{kind.lineno} {kind.name}"
            fields[place] = sum(
                isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation) for item in kind.body
            )
            methods[place] = sum(isinstance(item, Function) for item in kind.body)
    yield _most("lines of a file", {str(file.path): file.lines for file in files}, MAX_FILE_LINES)
    yield _most("lines of a function", sizes, MAX_FUNCTION_LINES)
    yield Figure("lines of a function, median", statistics.median(sizes.values()), MAX_MEDIAN_FUNCTION_LINES)
    yield _most("fields of a record", fields, MAX_FIELDS)
    yield _most("methods of a class", methods, MAX_METHODS)
    yield _most("parameters of a function", parameters, MAX_PARAMETERS)
    yield Figure("bare tuples as parameters", len(tuples), 0, tuple(tuples))


def _arguments(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def _is_bare_tuple(annotation: ast.expr | None) -> bool:
    """Whether it is `tuple[A, B]` (or that or None): things without names. `tuple[A, ...]` is a sequence."""
    if isinstance(annotation, ast.BinOp):
        return _is_bare_tuple(annotation.left) or _is_bare_tuple(annotation.right)
    if not isinstance(annotation, ast.Subscript) or ast.unparse(annotation.value) != "tuple":
        return False
    inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    return not any(isinstance(item, ast.Constant) and item.value is ... for item in inside)


def _most(name: str, counted: dict[str, int], limit: int) -> Figure:
    over = sorted((place for place, count in counted.items() if count > limit), key=lambda place: -counted[place])
    return Figure(name, max(counted.values()), limit, tuple(f"{place} ({counted[place]})" for place in over))


def _knots(files: Sequence[CodeFile]) -> Iterator[Figure]:
    homes = defaultdict(set)
    for file in files:
        for node in file.classes:
            homes[node.name].add(str(file.path))
    shared = tuple(f"{name}: {', '.join(sorted(places))}" for name, places in sorted(homes.items()) if len(places) > 1)
    yield Figure("class names used twice", len(shared), 0, shared)
    graph, windows = _imports(files)
    knots = [part for part in nx.strongly_connected_components(graph) if len(part) > 1]
    yield Figure("circles between folders", len(knots), 0, tuple(" <-> ".join(sorted(part)) for part in knots))
    yield Figure("imports past a room's door", len(windows), 0, tuple(windows))


def _imports(files: Sequence[CodeFile]) -> tuple["nx.DiGraph[str]", list[str]]:
    """Which folder (or file beside folders) needs which within its room; and what reaches into another room's files."""
    known = {file.path for file in files}
    graph: nx.DiGraph[str] = nx.DiGraph()
    windows = []
    for file in files:
        for target in _targets(file, known):
            if target.parts[0] != file.path.parts[0]:
                # Tools measure parts, as tests do: they may look inside.
                if target.name != "__init__.py" and file.path.parts[0] != "tools":
                    windows.append(f"{file.path} imports {target}")
            elif _folder(target) != _folder(file.path) and not {_folder(target), _folder(file.path)} & {"__init__.py"}:
                graph.add_edge(f"{file.path.parts[0]}/{_folder(file.path)}", f"{target.parts[0]}/{_folder(target)}")
    return graph, windows


def _folder(path: Path) -> str:
    return path.parts[1]


def _targets(file: CodeFile, known: set[Path]) -> Iterator[Path]:
    """The files of ours that a file imports."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            tries = [Path(*parts[:length]) for length in (len(parts), len(parts) - 1) if length]
            found = [path for base in tries for path in (base.with_suffix(".py"), base / "__init__.py")]
            target = next((path for path in found if path in known), None)
            if target is not None:
                yield target


def _tour(title: str, limit: int) -> Figure:
    """How many files the tour names that stands under that heading of docs/how-it-works.md."""
    return Figure(f"files of {title[0].lower()}{title[1:]}", len(tour(title)), limit)


def tour(title: str) -> list[str]:
    """The files of a tour, in order: the numbered lines below its heading, each with a path first."""
    _, _, after = TOUR_PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")
    section = after.partition("\n## ")[0]
    return [line.split("`")[1] for line in section.splitlines() if line[:1].isdigit() and line.count("`") >= 2]


def main() -> int:
    """Prints every figure, and what exceeds it; 1 when something does."""
    figures = measure(sources())
    for figure in figures:
        print(f"{'met   ' if figure.met else 'MISSED'} {figure.name}: {figure.value:g} (at most {figure.limit:g})")
        for offender in figure.offenders if not figure.met else ():
            print(f"         {offender}")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
