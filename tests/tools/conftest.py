"""Tests on real switches and VMs run only on a stage; elsewhere they say how to run them."""

from collections.abc import Iterator

import pytest

from tools.lab.lab import Lab
from tools.lab.stage import on_stage
from tools.lab.switches import normal_flows

TREE = ("leaf1", "leaf2", "leaf3", "spine1")


@pytest.fixture(autouse=True)
def _only_on_a_stage(request: pytest.FixtureRequest) -> None:
    marked = request.node.get_closest_marker("lab") or request.node.get_closest_marker("vm")
    if marked and not on_stage():
        pytest.skip('needs a stage: python -m tools.lab.stage -- pytest -m "lab or vm"')


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Switches and clients; a loop-free part of the fabric learns by itself."""
    if not on_stage():
        pytest.skip("needs a stage")
    with Lab(run_directory=tmp_path_factory.mktemp("network"), vms=False) as lab:
        lab.start()
        normal_flows(TREE)
        yield lab


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The whole lab, its VMs included."""
    if not on_stage():
        pytest.skip("needs a stage")
    with Lab(run_directory=tmp_path_factory.mktemp("machines")) as lab:
        lab.start()
        normal_flows(TREE)
        yield lab
