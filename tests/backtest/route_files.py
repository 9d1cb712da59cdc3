"""Small networks and matrices written as files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

EDGES = [[0, 1, 10.0], [1, 0, 10.0], [0, 2, 10.0], [2, 0, 10.0], [1, 2, 10.0], [2, 1, 10.0]]
PAIRS = ["0>1", "0>2", "1>2"]
TUNNELS = {"0-1": [[0, 1], [0, 2, 1]], "0-2": [[0, 2], [0, 1, 2]], "1-2": [[1, 2], [1, 0, 2]]}


def matrices(rows: int = 60, seed: int = 1) -> np.ndarray:
    """Noise around a fixed mean: what no forecast can foresee and a hedge can withstand."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.array([6.0, 3.0, 1.0]) * rng.lognormal(0.0, 0.7, (rows, 3)))


def write(folder: Path, demand: np.ndarray, topology: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """The CSV file (NaN = blank) and the topology file."""
    lines = ["t," + ",".join(PAIRS)]
    for number, row in enumerate(demand):
        lines.append(",".join([str(number), *("" if np.isnan(value) else repr(float(value)) for value in row)]))
    table, net = folder / "matrices.csv", folder / "net.json"
    table.write_text("\n".join(lines) + "\n")
    net.write_text(
        json.dumps(topology if topology is not None else {"pairs": PAIRS, "edges": EDGES, "tunnels": TUNNELS})
    )
    return table, net
