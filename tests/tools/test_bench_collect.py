"""`forepath bench collect`: targets from what was found, a small real run, one line where none can be had."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpdb import open_store
from tools.bench import collect_many
from tools.bench.collect import judge
from tools.lab.stage import why_not

FOREPATH = Path(sys.executable).with_name("forepath")
ROOT = Path(__file__).parents[2]


def poll(cpu_s: float, stall_s: float) -> dict[str, Any]:
    return {"wall_s": 1.0, "cpu_s": cpu_s, "stall_s": stall_s, "stall_cpu_s": 0.1, "peak_memory_bytes": 1e8}


def test_the_median_poll_is_judged() -> None:
    found = {
        "flows": 100,
        "forepath": [poll(0.1, 0.2), poll(0.02, 0.01), poll(0.01, 0.01)],
        "ryu": [poll(1.5, 2.0)],
        "sustained": {"entries_per_cpu_s": 20_000.0},
    }
    result = judge(found)
    assert result.figures["times_less_cpu"] == pytest.approx(75)
    assert [one.met for one in result.targets] == [True, True, False]
    assert result.figures["forepath_longest_stall_of_all_s"] == 0.2


def test_many_controllers_are_judged_by_the_rows_a_cpu_second_of_one() -> None:
    figures = {"sqlite_1_rows_per_cpu_s": 100.0, "sqlite_4_rows_per_cpu_s": 70.0, "postgresql_1_rows_per_cpu_s": 0.0}
    assert [(one.value, one.met) for one in collect_many.judge(figures, collect_many.ManyScale()).targets] == [
        (0.7, False)
    ]


def test_rows_are_counted_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cpdb.db"
    open_store(url).close()
    written = collect_many._write(url, 0, 0.0)
    store = open_store(url)
    reader = collect_many.RowReader(store)
    assert reader.advance() == reader.advance() == written > 0
    store.close()


@pytest.mark.lab
def test_a_small_run_on_a_real_switch(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    argv = [
        str(FOREPATH),
        "bench",
        "collect",
        "--flows",
        "400",
        "--polls",
        "1",
        "--seconds",
        "3",
        "--json",
        str(target),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    assert document["figures"]["flows"] == 400
    assert document["figures"]["sustained_rows_per_s"] > 0
    assert len(document["targets"]) == 3


@pytest.mark.skipif(why_not(vms=False) is None, reason="here it can be had")
def test_without_root_one_line_says_why() -> None:
    done = subprocess.run([str(FOREPATH), "bench", "collect"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
