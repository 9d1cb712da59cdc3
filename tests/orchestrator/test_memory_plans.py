"""Memory of a machine: balloon and added memory make up the total, and a guest is never starved."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import DriverError
from orchestrator.act.libvirt.measuring import GuestMemory
from orchestrator.act.libvirt.memory import (
    MEMORY_FLOOR_BYTES,
    REQUESTED,
    RESERVE_BYTES,
    Plug,
    floor_bytes,
    planned,
    plugs_of,
    used_bytes,
)

MIB = 1 << 20
DEVICE = """<devices><memory model='virtio-mem'>
  <target><size unit='KiB'>524288</size><node>0</node><block unit='KiB'>2048</block>
  <requested unit='KiB'>131072</requested><current unit='KiB'>131072</current></target>
  <alias name='virtiomem0'/></memory>
 <memory model='dimm'><target><size unit='KiB'>1</size></target></memory></devices>"""
SAID: dict[str, Any] = {"balloon.current": 131_072, "balloon.usable": 71_084, "balloon.unused": 65_468}


def plug(size_kib: int, block_kib: int = 2048) -> Plug:
    return Plug("", size_kib, block_kib, 0)


def test_devices_are_found_in_a_definition_and_can_be_asked_for_something_else() -> None:
    (found,) = plugs_of(DEVICE)
    assert (found.size, found.block, found.requested) == (524_288, 2048, 131_072)
    changed = REQUESTED.sub(r"\g<1>0\g<2>", found.xml)
    assert plugs_of(changed)[0].requested == 0
    assert plugs_of("<devices/>") == []


@given(st.integers(1, 4096), st.integers(64, 2048), st.lists(st.integers(0, 1024), max_size=3))
def test_parts_make_up_the_total_to_a_block(total: int, base: int, sizes: list[int]) -> None:
    plugs = [plug(size * 1024) for size in sizes]
    most = base + sum(sizes)
    if total > most:
        with pytest.raises(DriverError, match=f"maximum of {most} MiB"):
            planned(total * 1024, base * 1024, plugs)
        return
    found = planned(total * 1024, base * 1024, plugs)
    assert total * 1024 <= found.balloon + sum(found.requested) <= total * 1024 + 2048
    assert found.balloon <= base * 1024
    assert all(0 <= one <= device.size for one, device in zip(found.requested, plugs, strict=True))
    # Nothing is taken from the balloon as long as a device holds something.
    assert found.balloon == base * 1024 or sum(found.requested) == 0


@given(st.one_of(st.none(), st.integers(0, 1 << 40)), st.integers(0, 1 << 40))
def test_the_floor_leaves_the_guest_what_it_uses_and_some_more(used: int | None, least: int) -> None:
    found = floor_bytes(used, least)
    assert found >= max(MEMORY_FLOOR_BYTES, least)
    assert used is None or found >= used + RESERVE_BYTES


def test_caches_are_not_use_and_old_figures_are_none() -> None:
    assert used_bytes(SAID | {"balloon.last-update": 100}, 105.0, "balloon.") == (131_072 - 71_084) << 10
    assert used_bytes(SAID | {"balloon.last-update": 100}, 160.0, "balloon.") is None
    assert used_bytes({"balloon.current": 5, "balloon.last-update": 100}, 100.0, "balloon.") is None
    assert used_bytes({"actual": 100, "unused": 40, "last_update": 9}, 10.0) == 60 << 10


def test_while_a_balloon_moves_what_the_guest_used_before_counts() -> None:
    guests = GuestMemory()

    def told(now: float, size_kib: int, usable_kib: int) -> int | None:
        stats = {"balloon.current": size_kib, "balloon.usable": usable_kib, "balloon.last-update": now}
        return guests.used("h1/web", stats, now)

    used = (131_072 - 71_084) << 10
    assert told(100.0, 131_072, 71_084) == used
    # Its size has changed, what it says has not yet, and the other way round.
    assert told(101.0, 98_304, 71_084) == used
    assert told(102.0, 98_304, 38_316) == used
    assert told(104.5, 98_304, 30_000) == (98_304 - 30_000) << 10
