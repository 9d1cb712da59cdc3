"""From the settings file to the scene of a replay."""

import pytest

from cpdb import MBIT, SettingsError
from forepath.processes import replay_scene
from forepath.settings import Settings

HOSTS = [{"name": name, "uri": "test:///default", "cpu_cores": 2, "memory_mib": 512} for name in ("h1", "h2")]
LINKS = [{"a": "s1", "a_port": at, "b": f"h{at}", "capacity_mbit_per_s": 8} for at in (1, 2)]
SERVICE = {
    "name": "shop",
    "address": "10.0.0.101",
    "destination": [{"name": "a", "address": "10.0.0.11", "mac": "02:00:00:00:00:0b"}],
}


def machine(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "cpu_cores_base": 1, "cpu_cores_max": 1, **more}


def declared(**changes: object) -> Settings:
    content = {
        "node": [{"name": "s1", "kind": "switch", "dpid": 1}],
        "link": LINKS,
        "host": HOSTS,
        "virtual_ip": [SERVICE],
        "vm": [
            machine("a"), machine("b", host="h1"), machine("c"), machine("d"),
            machine("e", cpu_ms_per_connection=2, cpu_ms_per_mb=3),
        ],
    }  # fmt: skip
    return Settings.model_validate(content | changes)


def test_machines_without_a_host_are_spread_in_file_order() -> None:
    scene = replay_scene(declared())
    assert dict(scene.host_of) == {"a": "h1", "b": "h1", "c": "h2", "d": "h1", "e": "h2"}
    assert (scene.costs["e"].cpu_ms_per_connection, scene.costs["e"].cpu_ms_per_mb) == (2, 3)
    assert scene.costs["a"].cpu_ms_per_connection == 0
    assert [link.capacity_bytes_per_s for link in scene.links] == [8 * MBIT, 8 * MBIT]
    assert scene.orchestrator.declared.hosts == scene.hosts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vm": []}, r"vm: nothing is declared.*add \[\[vm\]\]"),
        ({"host": []}, r"host: nothing is declared.*add \[\[host\]\]"),
        ({"virtual_ip": []}, "virtual_ip: nothing is declared"),
        ({"vm": [machine("a", host="h7")]}, "host 'h7' of a is not declared; known are h1, h2"),
        ({"link": LINKS[:1]}, "none joins host h2 to a switch"),
    ],
)
def test_what_a_replay_needs_is_asked_for(changes: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        replay_scene(declared(**changes))
