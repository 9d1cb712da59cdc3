"""The lab that tests on real switches and VMs share."""

from collections.abc import Iterator

import pytest

from tools.lab.lab import Lab
from tools.lab.switches import normal_flows

TREE = ("leaf1", "leaf2", "leaf3", "spine1")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Switches and clients; a loop-free part of the fabric learns by itself."""
    with Lab(run_directory=tmp_path_factory.mktemp("network"), vms=False) as lab:
        lab.start()
        normal_flows(TREE)
        yield lab


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The whole lab, its VMs included."""
    with Lab(run_directory=tmp_path_factory.mktemp("machines")) as lab:
        lab.start()
        normal_flows(TREE)
        yield lab
