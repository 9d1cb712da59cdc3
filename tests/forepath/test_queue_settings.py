"""A link's queue: from the settings file to what the orchestrator is told."""

from pathlib import Path

import pytest

from cpdb import SettingsError
from forepath import processes
from forepath.settings import load_settings
from orchestrator import QueueSpec

LINK = '[[link]]\na = "leaf2"\na_port = 21\nb = "hA"\ncapacity_mbit_per_s = 80\n'


def written(directory: Path, text: str) -> Path:
    path = directory / "forepath.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_declared_device_becomes_a_queue_in_its_direction(tmp_path: Path) -> None:
    bare = '[[link]]\na = "leaf1"\nb = "spine1"\ncapacity_mbit_per_s = 8\n'
    settings = load_settings(written(tmp_path, f'{LINK}queue_device = "leaf2-eth21"\nguaranteed_share = 0.6\n{bare}'))
    config = processes.orchestrator_config(settings, act=True)
    assert config.declared.queues == (QueueSpec("leaf2>hA", "leaf2-eth21", 10e6, 0.6),)


def test_no_device_is_no_queue(tmp_path: Path) -> None:
    assert processes.orchestrator_config(load_settings(written(tmp_path, LINK)), act=True).declared.queues == ()


@pytest.mark.parametrize(
    "line",
    ["guaranteed_share = 0.5", 'queue_device = "a/b"', 'queue_device = "d"\nguaranteed_share = 1.0'],
    ids=["a share without a device", "not an interface", "nothing left for the rest"],
)
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="link leaf2>hA: ") as caught:
        load_settings(written(tmp_path, f"{LINK}{line}\n"))
    assert str(caught.value).count("\n") == 0
