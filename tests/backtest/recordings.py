"""Recordings that are known to the last digit."""

import gzip
from pathlib import Path

import numpy as np

from backtest.reading import Recording


def recording(values: np.ndarray, step_s: float = 1.0) -> Recording:
    """Series x rows, named s0, s1, ..."""
    names = tuple(f"s{number}" for number in range(len(values)))
    return Recording("made.csv", names, step_s, 0.0, np.asarray(values, dtype=np.float64))


def waves(series: int = 4, rows: int = 260, seed: int = 3) -> np.ndarray:
    """Noisy cycles of 20 rows, each series of its own size."""
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    size = 10.0 ** np.arange(1, series + 1)[:, None]
    shape = 1.5 + np.sin(2 * np.pi * (at / 20 + rng.random((series, 1))))
    return size * np.maximum(shape + 0.2 * rng.standard_normal((series, rows)), 0.0)


def write(path: Path, names: list[str], rows: list[list[object]]) -> Path:
    """A CSV file; .gz is compressed."""
    text = (
        "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in [["t", *names], *rows]) + "\n"
    )
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return path
