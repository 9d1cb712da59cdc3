"""Reads traffic matrices and the network that carried them, and names everything that is wrong with either at once."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from backtest.reading import Cells, RecordingError, read_cells
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
    cells = read_cells(path, lambda name: ">" in name or name == ORACLE)
    columns = [name for name in cells.names if ">" in name]
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
    values = _numbers(cells, path, columns)
    oracle = _numbers(cells, path, [ORACLE])[:, 0] if ORACLE in cells.names else None
    keys = tuple(name.replace(">", "-", 1) for name in columns)
    return Matrices(path.name, net.name or topology.name, cells.times, values, used, keys, oracle)


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


def _numbers(cells: Cells, path: Path, columns: Sequence[str]) -> Floats:
    """Those columns, rows x columns. Raises RecordingError with all that is below 0."""
    values = cells.values[:, [cells.names.index(name) for name in columns]]
    problems = [
        f"line {cells.lines[row]}, {columns[at]}: {values[row, at]:g} is below 0; leave the cell blank if it is missing"
        for row, at in np.argwhere(values < 0)[: MOST_PROBLEMS + 1]
    ]
    if problems:
        raise RecordingError(_line(path, problems))
    return values
