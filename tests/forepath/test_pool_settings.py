"""Pools in the settings file: read as meant, and refused with one line for each thing that does not fit."""

from pathlib import Path

import pytest

from cpdb import SettingsError, open_store
from forepath.processes import orchestrator_config, with_pools
from forepath.settings import Settings, load_settings, pool_specs
from orchestrator import FakeHypervisors, Scaling

BASE = """
[[host]]
name = "hA"
uri = "test:///default"
cpu_cores = 4
memory_mib = 4096
[[virtual_ip]]
name = "shop"
address = "10.0.0.101"
priority = 7
[[virtual_ip.destination]]
name = "shop1"
address = "10.0.1.1"
mac = "52:54:00:00:00:01"
[[pool]]
virtual_ip = "{vip}"
max_destinations = {most}
machine.cpu_cores_max = 2.0
machine.memory_mib = 256
probe = "{probe}"
{more}
[[pool.member]]
name = "{name}"
address = "10.0.1.2"
mac = "52:54:00:00:00:02"
host = "{host}"
"""
GOOD = {"vip": "shop", "most": "3", "probe": "tcp:8080", "more": "", "name": "shop2", "host": "hA"}


def written(tmp_path: Path, **more: str) -> Path:
    path = tmp_path / "forepath.toml"
    path.write_text(BASE.format(**GOOD | more))
    return path


def test_a_pool_reaches_the_orchestrator(tmp_path: Path) -> None:
    template = tmp_path / "guest.xml"
    template.write_text("<domain><name>$name</name></domain>")
    more = f'machine.image = "/images/web.qcow2"\nmachine.template = "{template}"\nhow = "image"'
    config = orchestrator_config(load_settings(written(tmp_path, more=more)), act=False)
    (pool,) = config.declared.pools
    assert (pool.virtual_ip, pool.most, pool.priority, pool.memory_bytes) == ("10.0.0.101", 3, 7, 256 << 20)
    assert (pool.manner.probe, pool.manner.port) == ("tcp", 8080)
    assert pool.image is not None
    assert pool.image.template == "<domain><name>$name</name></domain>"
    assert [(one.vm, one.how) for one in pool.members] == [("shop2", "image")]
    spec = config.declared.vm("shop2")
    assert spec is not None
    assert (spec.cpu_cores_min, spec.cpu_cores_max, spec.priority) == (1.0, 2.0, 7)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"vip": "shoes"}, "'shoes' is not declared; known are shop"),
        ({"host": "hZ"}, "host 'hZ' is not declared; known are hA"),
        ({"name": "shop1"}, "is a destination already"),
        ({"more": 'machine.image = "/i.qcow2"\nmachine.template = "nowhere.xml"'}, "nowhere.xml cannot be read"),
    ],
)
def test_what_does_not_fit_the_rest_is_refused(wrong: dict[str, str], part: str, tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, **wrong))
    with pytest.raises(SettingsError) as caught:
        pool_specs(settings)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"most": "0"}, "max_destinations"),
        ({"more": "min_destinations = 4"}, "max_destinations 3 is below min_destinations 4"),
        ({"probe": "ping"}, "probe"),
        ({"more": "arrival.ramp = [0.5, 0.9]"}, "must ascend to 1"),
        ({"more": 'how = "image"'}, "needs image and template"),
        ({"more": 'machine.image = "/i.qcow2"'}, "belong together"),
        ({"more": "machine.cpu_cores_base = 3.0"}, "cpu_cores_max 2.0 is below cpu_cores_base 3.0"),
        ({"more": "colour = 1"}, "no such setting"),
    ],
)
def test_wrong_values_are_refused_at_the_door(wrong: dict[str, str], part: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, **wrong))
    assert part in str(caught.value)


def test_only_declared_pools_put_a_coat_on(tmp_path: Path) -> None:
    config = orchestrator_config(load_settings(written(tmp_path)), act=False)
    plain = FakeHypervisors({}, {}, lambda _vm, _now: 0.0)
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    without = orchestrator_config(Settings(), act=False)
    assert with_pools(plain, store, without) is plain
    coat = with_pools(plain, store, config)
    assert isinstance(coat, Scaling)
    coat.close()
    store.close()
