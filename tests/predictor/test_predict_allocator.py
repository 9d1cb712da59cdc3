"""Large arrays go back to the system when they are gone."""

import multiprocessing
from pathlib import Path

import numpy as np

from predictor.service.workers import give_back_large_arrays

MIB = 1 << 20


def _kept_mib() -> float:
    """Resident MiB that remain of 40 arrays of 8 MiB, after a larger one had raised the C library's own threshold."""
    applied = give_back_large_arrays()
    first = np.ones(30 * MIB // 8)
    del first
    before = _resident()
    arrays = [np.ones(MIB) for _ in range(40)]
    del arrays[:-1]  # the last one would pin all of a heap that grows upwards
    return _resident() - before if applied else 0.0


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / MIB


def test_arrays_that_are_gone_leave_nothing_behind() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_kept_mib) < 60
