"""Reads traffic matrices and the network that carried them, and names everything that is wrong with either at once."""

import csv
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from backtest.reading import RecordingError
from orchestrator.optimise import RoutingError, Tunnels, shortest_paths, tunnels

Floats = NDArray[np.float64]
ORACLE = "oracle_mlu"
MOST_PROBLEMS = 12
Node = int | str


class TopologyFile(BaseModel):
    """The file as it is written: links with capacities, and the paths of each pair (none: 4 shortest simple ones)."""

    name: str = ""
    pairs: list[str] | None = None
    edges: list[tuple[Node, Node, float]] = Field(min_length=1)
    tunnels: dict[str, list[list[Node]]] | None = None


@dataclass(frozen=True, slots=True)
class Matrices:
    """Demands (T x N, NaN = missing), times (T) and, where the file has it, the best MLU of each row as given there."""

    name: str
    topology: str
    times: Floats
    demand: Floats
    tunnels: Tunnels
    keys: tuple[str, ...]
    given_oracle: Floats | None


def read_matrices(path: Path, topology: Path) -> Matrices:
    """Reads a CSV file (column t, one column `a>b` per pair; blank = missing) and the JSON file of its network.

    Raises RecordingError with one line that names every problem.
    """
    header, rows = _table(path)
    columns = [name for name in header if ">" in name]
    net = _topology(topology)
    capacity, problems = _capacity(net)
    nodes = {str(node): node for link in capacity for node in link}
    problems += [*_pair_problems(columns, net, nodes)]
    if problems:
        raise RecordingError(_line(topology, problems))
    pairs = [(nodes[source], nodes[target]) for source, target in (name.split(">", 1) for name in columns)]
    try:
        paths = shortest_paths(capacity, pairs) if net.tunnels is None else _paths(net.tunnels, columns, nodes)
        used = tunnels({pair: paths[pair] for pair in pairs}, capacity)
    except RoutingError as error:
        raise RecordingError(_line(topology, str(error).split("; "))) from error
    values, times = _numbers(path, header, rows, columns)
    oracle = _numbers(path, header, rows, [ORACLE])[0][:, 0] if ORACLE in header else None
    keys = tuple(name.replace(">", "-", 1) for name in columns)
    return Matrices(path.name, net.name or topology.name, times, values, used, keys, oracle)


def _line(path: Path, problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return f"{path}: {'; '.join(problems[:MOST_PROBLEMS])}{more}"


def _topology(path: Path) -> TopologyFile:
    try:
        return TopologyFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecordingError(f"--topology {path}: {error.strerror}; name a readable JSON file") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"--topology {path}: is no text; name a JSON file") from error
    except json.JSONDecodeError as error:
        raise RecordingError(f"--topology {path}:{error.lineno}: is no JSON: {error.msg}") from error
    except ValidationError as error:
        said = [f"{'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}" for one in error.errors()]
        raise RecordingError(_line(path, said)) from error


def _capacity(net: TopologyFile) -> tuple[dict[tuple[Node, Node], float], list[str]]:
    capacity: dict[tuple[Node, Node], float] = {}
    problems = []
    for number, (source, target, size) in enumerate(net.edges):
        if source == target:
            problems.append(f"edges.{number}: leads from {source} to itself")
        elif (source, target) in capacity:
            problems.append(f"edges.{number}: {source} > {target} is there twice")
        elif not (math.isfinite(size) and size > 0):
            problems.append(f"edges.{number}: {source} > {target}: capacity {size:g} must be above 0")
        capacity[source, target] = size
    return capacity, problems


def _pair_problems(columns: Sequence[str], net: TopologyFile, nodes: dict[str, Node]) -> Iterator[str]:
    if not columns:
        yield "the CSV file has no column named like a>b"
    for name in columns:
        source, target = name.split(">", 1)
        if source == target:
            yield f"pair {name}: source and destination are the same"
        yield from (f"pair {name}: node {one} has no edge" for one in (source, target) if one not in nodes)
        if net.tunnels is not None and name.replace(">", "-", 1) not in net.tunnels:
            yield f"tunnels: none for pair {name}; add the key {name.replace('>', '-', 1)}, or set tunnels to null"
    if net.pairs is not None:
        yield from (f"pairs: {name} has no column" for name in net.pairs if name not in set(columns))
        yield from (f"pairs: column {name} is not among them" for name in columns if name not in set(net.pairs))


def _paths(given: dict[str, list[list[Node]]], columns: Sequence[str], nodes: dict[str, Node]) -> dict[Any, Any]:
    found = {}
    for name in columns:
        source, target = name.split(">", 1)
        # A node written "3" in one place and 3 in another is the same one.
        ways = [tuple(nodes.get(str(node), node) for node in way) for way in given[f"{source}-{target}"]]
        found[nodes[source], nodes[target]] = ways
    return found


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with _opened(path) as text:
            lines = csv.reader(text)
            header = [name.strip().lstrip("\ufeff") for name in next(lines, [])]
            rows = [line for line in lines if line]
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordingError(f"{path}: {reason}; name a readable .csv or .csv.gz file") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: is no text; name a .csv or .csv.gz file") from error
    if not header or header[0] != "t":
        raise RecordingError(f"{path}:1: the first column must be t (seconds)")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RecordingError(f"{path}:1: every column needs a name of its own; mend {', '.join(twice)}")
    return header, rows


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _numbers(path: Path, header: list[str], rows: list[list[str]], columns: Sequence[str]) -> tuple[Floats, Floats]:
    places = [header.index(name) for name in columns]
    values, times = np.empty((len(rows), len(places))), np.empty(len(rows))
    problems: list[str] = []
    for number, row in enumerate(rows):
        if len(row) != len(header):
            problems.append(f"row {number}: has {len(row)} cells, the header {len(header)}")
            continue
        times[number] = _number(row[0], f"row {number}, t", problems)
        for at, place in enumerate(places):
            values[number, at] = _number(row[place], f"row {number}, {columns[at]}", problems)
    if problems:
        raise RecordingError(_line(path, problems))
    return values, times


def _number(cell: str, where: str, problems: list[str]) -> float:
    cell = cell.strip()
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = -math.inf
    if not value >= 0 or math.isinf(value):
        problems.append(f"{where}: {cell!r} is no number from 0 on; leave the cell blank if it is missing")
    return value
