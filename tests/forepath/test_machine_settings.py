"""Hosts and machines: from the settings file to what the orchestrator is told about them."""

from pathlib import Path

import pytest

from cpdb import SettingsError
from forepath.processes import orchestrator_config
from forepath.settings import load_settings


def written(directory: Path, text: str) -> Path:
    path = directory / "forepath.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_memory_and_places_of_machines_reach_the_orchestrator(tmp_path: Path) -> None:
    host = "[[host]]\nname = 'h1'\nuri = 'test:///default'\ncpu_cores = 2\nmemory_mib = 512\nmaintenance = true\n"
    machine = "[[vm]]\nname = 'a'\ncpu_cores_base = 1\ncpu_cores_max = 1\n"
    more = "memory_mib_min = 96\nmemory_mib_max = 256\naffinity = 'web'\nanti_affinity = 'db'\n"
    config = orchestrator_config(load_settings(written(tmp_path, f"{host}{machine}{more}")), act=True)
    (told,) = config.declared.hosts
    assert told.closed and told.maintenance and not told.cordoned
    (vm,) = config.declared.vms
    assert (vm.memory_bytes_min, vm.memory_bytes_max) == (96 << 20, 256 << 20)
    assert (vm.affinity, vm.anti_affinity) == ("web", "db")
    (bare,) = orchestrator_config(load_settings(written(tmp_path, machine)), act=True).declared.vms
    assert (bare.memory_bytes_max, bare.affinity, bare.anti_affinity) == (0, None, None)


@pytest.mark.parametrize(
    ("lines", "mend"),
    [
        ("memory_mib_min = 256\nmemory_mib_max = 128", "memory_mib_max 128 is below memory_mib_min 256"),
        ("affinity = 'x'\nanti_affinity = 'x'", "give one of them"),
    ],
)
def test_contradictions_about_a_machine_are_told(tmp_path: Path, lines: str, mend: str) -> None:
    machine = f"[[vm]]\nname = 'a'\ncpu_cores_base = 1\ncpu_cores_max = 1\n{lines}\n"
    with pytest.raises(SettingsError, match=mend):
        load_settings(written(tmp_path, machine))
