"""What a database holds as offered load: rates and cores in their seconds, gaps, strangers, and what was held back."""

import io
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from whatif_scenes import BULK, BULK_PAIR, SHOP, SHOP_PAIR, small_scene

from backtest import RecordingError
from backtest.whatif import RequestCost, TimeSpan, read_load, recorded_durations, recorded_load
from cpdb import (
    MBIT,
    ActionRecord,
    ActionTiming,
    Batch,
    FlowKey,
    LinkLoad,
    OutcomeKind,
    Store,
    VmLoad,
    Window,
    open_store,
)
from forepath import exchange

START = 1_000_000
SCENE = small_scene()
KEYS = [FlowKey("c1", SHOP, "shop1"), FlowKey("10.0.0.2", BULK, "bulk1"), FlowKey("c7", SHOP, "shop1")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Twelve seconds of two declared pairs and a stranger, of which nobody counts the eighth; bulk1 uses 0.2 cores."""
    opened = open_store(f"sqlite:///{tmp_path / 'cpdb.db'}")
    for second in range(12):
        if second != 7:
            sizes = array("q", [1000 + second, 2000, 5])
            counts = Batch("edge", START + second + 1, 1.0, KEYS, sizes, sizes, array("q", [second, 1, 1]))
            opened.facts.add_batches([counts])
        opened.facts.add_loads([machine("bulk1", second, 0.2)])
    yield opened
    opened.close()


def machine(name: str, second: int, used: float, limit: float = 0.5) -> VmLoad:
    return VmLoad(name, "hA", START + second + 0.6, "running", used, limit, 1, 64 << 20, 64 << 20)


def test_rates_and_cores_lie_in_their_seconds(store: Store) -> None:
    found = recorded_load(store, SCENE)
    assert set(found.pairs) == {SHOP_PAIR, BULK_PAIR}
    shop = found.pairs.index(SHOP_PAIR)
    assert found.bytes_per_s[:, shop].tolist() == [1000 + t if t != 7 else 0 for t in range(12)]
    assert found.connections_per_s[:, shop].tolist() == [t if t != 7 else 0 for t in range(12)]
    assert np.flatnonzero(~found.known).tolist() == [7]
    assert found.cores[[0, 6, 11], 1] == pytest.approx([0.2, 0.2, 0.2])
    assert not found.lower_bound
    assert any("1 s in which nobody counted" in note for note in found.left_out)
    assert any("not declared in the settings, left out: c7>10.0.0.101" in note for note in found.left_out)


def test_a_part_is_read(store: Store) -> None:
    assert recorded_load(store, SCENE, TimeSpan(START + 2, START + 5)).seconds == 3
    assert recorded_load(store, SCENE, TimeSpan(since=-4)).seconds == 4
    with pytest.raises(RecordingError, match="nothing is stored within --from and --to; there is 1000000 to 1000012"):
        recorded_load(store, SCENE, TimeSpan(START + 50))


def test_what_requests_cost_is_no_cpu_beside_them(store: Store) -> None:
    scene = small_scene(costs=dict.fromkeys(SCENE.host_of, RequestCost(50.0, 10_000.0)))
    # 1 connection at 50 ms and 2000 bytes at 10 s a 10^6: 0.05 and 0.02 of the 0.2 cores.
    assert recorded_load(store, scene).cores[0, 1] == pytest.approx(0.13)


def test_load_that_was_held_back_is_a_lower_bound(store: Store) -> None:
    store.facts.add_loads([machine("shop1", 3, 0.49)])
    store.facts.add_loads([LinkLoad("leaf", "hA", START + 4.0, 1.0, int(7.5 * MBIT), 1)])
    limited = ActionRecord(
        "reserve_bandwidth", "c1", {}, "", {}, "predictive", START + 5.0, ActionTiming(None, 1.0, START + 6.5),
        OutcomeKind.DONE,
    )  # fmt: skip
    store.journal.add_action(limited)
    found = recorded_load(store, SCENE)
    assert found.lower_bound
    told = " ".join(found.left_out)
    assert "shop1 (1 times)" in told and "leaf>hA (1 times)" in told and "limited by 1 actions" in told
    assert recorded_durations(store) == {"reserve_bandwidth": (1.5,)}


def test_an_export_is_a_recording_of_the_same_load(store: Store, tmp_path: Path) -> None:
    target = io.StringIO()
    exchange.export(store, Window(1, START, START + 12, exchange.ALL), target, lambda _: None)
    text = target.getvalue()
    assert "vm:bulk1:cores" in text and f"c1>{SHOP}:connections" in text
    path = tmp_path / "export.csv"
    kept = [
        [cell for name, cell in zip(text.splitlines()[0].split(","), row.split(","), strict=True) if "c7" not in name]
        for row in text.splitlines()
    ]
    path.write_text("\n".join(",".join(row) for row in kept) + "\n", encoding="utf-8")
    from_file, from_store = read_load(path, SCENE), recorded_load(store, SCENE)
    assert from_file.pairs == from_store.pairs
    seconds = from_store.known
    for name in ("bytes_per_s", "connections_per_s", "cores"):
        assert getattr(from_file, name)[seconds] == pytest.approx(getattr(from_store, name)[seconds])


def test_a_database_without_a_row_is_one_line(tmp_path: Path) -> None:
    empty = open_store(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(RecordingError, match="holds no communications; name one"):
        recorded_load(empty, SCENE)
    empty.close()
