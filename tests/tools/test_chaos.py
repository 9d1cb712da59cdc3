"""What breaks follows from the seed, and what does not hold is found, with seed and step."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tools.chaos.faults import WAYS, draw_faults
from tools.chaos.invariants import judge_bytes
from tools.lab.stage import on_stage


def test_a_seed_breaks_the_same_things_in_the_same_order_again_and_nothing_is_left_out() -> None:
    count = len(WAYS)
    first = list(islice(draw_faults(7), 3 * count))
    assert first == list(islice(draw_faults(7), 3 * count))
    assert first != list(islice(draw_faults(8), 3 * count))
    for begin in range(0, 3 * count, count):
        assert {fault.name for fault in first[begin : begin + count]} == set(WAYS)
    assert all(1 <= fault.lasts_s <= 6 for fault in first)


@pytest.mark.parametrize(
    ("told", "rules_lost", "word"),
    [
        (1000, False, None),
        (996, False, None),
        (1004, True, None),
        (990, False, "lost"),
        (1010, False, "twice"),
        (2000, True, "twice"),
        (500, True, None),
        (100, True, "lost"),
    ],
)
def test_every_byte_is_told_once_or_it_is_said(told: int, rules_lost: bool, word: str | None) -> None:
    found = judge_bytes(told, 1000, rules_lost)
    assert found is None if word is None else word in str(found)


def test_without_a_lab_it_says_so_in_one_line() -> None:
    if on_stage():
        pytest.skip("this is a stage")
    argv = [sys.executable, "-m", "tools.chaos", "--minutes", "0.1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("chaos: ") and done.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.lab
def test_what_breaks_for_two_minutes_is_survived() -> None:
    argv = [sys.executable, "-m", "tools.chaos", "--seed", "3", "--minutes", "2"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
