"""Quiet logs for every room, and none that outlives the stream of the test that asked for it."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from tools.lab.stage import on_stage

# A busy machine is slow, not wrong.
settings.register_profile("forepath", deadline=None)
settings.load_profile("forepath")

# What takes longest comes first: a worker that began it last would be waited for by all others.
LONGEST = (
    "test_killed_anywhere.py",
    "test_demo_simulated.py",
    "test_deep_live.py",
    "test_openflow_fuzz.py",
    "test_wheel.py",
    "test_newcomer.py",
    "test_predict_allocator.py",
    "test_whatif_own_load.py",
    "test_lesser_switches.py",
    "test_predict_tiers.py",
    "test_bench.py",
    "test_horizons_on_the_wire.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files in front, and who breaks what its file shares behind the others; the rest as it was.

    Tests on real switches and VMs are skipped where there is no stage.
    """
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    for item in [one for one in items if one.get_closest_marker("last")]:
        items.remove(item)
        own = [number for number, other in enumerate(items) if other.path == item.path]
        items.insert(own[-1] + 1 if own else len(items), item)
    for item in items if not on_stage() else ():
        if item.get_closest_marker("lab") or item.get_closest_marker("vm"):
            item.add_marker(pytest.mark.skip('needs a stage: python -m tools.lab.stage -- pytest -m "lab or vm"'))


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    # A command binds its logs to the standard error of its time, which a test's end closes.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()
