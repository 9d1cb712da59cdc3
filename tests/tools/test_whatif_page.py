"""The page of what replays gave: scenarios and their targets, causes by part, and recordings mapped onto topologies."""

from pathlib import Path

import numpy as np
import pytest

from backtest.whatif import check_ways, least_costs
from cpdb import Pair
from orchestrator import VmSpec
from tools.bench.scenarios import ScenarioRun
from tools.whatif_page import ROWS, Offered, Star, main, mapped_task, write_page

PARTS = {"CPU short": 4.0, "CPU idle": 3.0, "links short": 2.0, "copying": 0.0, "pauses": 0.0}
COSTS = {"static": 100.0, "reactive": 9.0, "predictive": 12.0, "oracle": 8.0, "bound": 1.0}


def test_a_page_tells_costs_targets_and_causes(tmp_path: Path) -> None:
    parts = {"reactive": PARTS, "predictive": PARTS | {"links short": 5.0}, "oracle": PARTS | {"CPU idle": 2.0}}
    run = ScenarioRun("on_off", 1, COSTS, -3.0, 7, 1, False, None, parts)
    write_page(tmp_path / "page.md", [run], 1, [("set", "1", "2", "3", "4", "5", "-", "Nothing to gain.")])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| on_off | 100 | 9 | 12 | 8 | 1 | 1.333 | -3.00 | 7 | 0 |" in text
    assert "| predictive / reactive, worst run | 1.33 | <= 1.02 | **missed** |" in text
    assert "| on_off | +0 (+0) | +0 (-1) | +3 (+0) | +0 (+0) | +0 (+0) |" in text
    assert "| set | 1 | 2 | 3 | 4 | 5 | - | Nothing to gain. |" in text


def test_a_star_is_a_scene_that_can_be_replayed() -> None:
    vms = [VmSpec("web1", 0, 0.5, 1.0), VmSpec("db1", 1, 0.5, 2.0)]
    star = Star(["c1"], {"web": "web1", "db": "db1"}, vms, {"web1": "hA", "db1": "hB"}, 2.0, 10.0)
    rates = np.full((ROWS, 2), 1e6)
    task = mapped_task("made", star, Offered([Pair("c1", "web"), Pair("c1", "db")], rates, rates / 1e4, {}))
    check_ways(task.scene, task.load)
    assert least_costs(task.scene, task.load, task.judged).sum() == 0
    assert task.judged.sum() == ROWS // 2


@pytest.mark.parametrize(("words", "code"), [([], 2), (["page.md", "/nowhere", "1"], 1)])
def test_wrong_words_write_nothing(tmp_path: Path, words: list[str], code: int) -> None:
    assert main([str(tmp_path / word) if word.endswith(".md") else word for word in words]) == code
    assert list(tmp_path.iterdir()) == []
