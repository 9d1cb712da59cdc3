"""Machines as people have them: other names, paused, crashed, twice, nowhere. Each is told, none stops the rest."""

import time
from pathlib import Path

import pytest

from cpdb import MachineReport, Store, VmLoad, open_store
from orchestrator import HostSpec, LibvirtHypervisors, MachineNews, VmSpec
from orchestrator.act.libvirt.domain import Domain, until
from orchestrator.act.libvirt.identity import Identity, MachineSample, state_of
from orchestrator.machine_alarms import PATIENCE_S, MachineAlarms

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
STATE = "<test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>{}</test:runstate>"
PAUSED, OFF, CRASHED = 3, 5, 6
GIB = 1 << 30


def domain(name: str, number: int, state: int | None = None) -> str:
    return (
        f"<domain type='test'>{STATE.format(state) if state else ''}<name>{name}</name>"
        f"<uuid>4a3b0000-0000-4000-8000-0000000000{number:02x}</uuid><memory>1048576</memory><vcpu>2</vcpu>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )


@pytest.fixture
def hypervisors(tmp_path: Path) -> LibvirtHypervisors:
    own = [domain("web1", 1), domain("虚拟机1", 2), domain("a&lt;b> &amp;c [x]", 3), domain("paused1", 4, PAUSED)]
    own += [domain("crashed1", 5, CRASHED), domain("dup1", 6), domain("off1", 7, OFF)]
    hosts = {"hA": own, "hB": [domain("dup1", 16), domain("db1", 17)]}
    for name, domains in hosts.items():
        (tmp_path / f"{name}.xml").write_text(f"<node>{''.join(domains)}</node>", encoding="utf-8")
    specs = [HostSpec(name, f"test://{tmp_path}/{name}.xml", "", 8.0, 8 * GIB) for name in hosts]
    return LibvirtHypervisors(specs, vms=[VmSpec("dup1"), VmSpec("nosuchvm"), VmSpec("off1")])


def measured(hypervisors: LibvirtHypervisors) -> list[VmLoad]:
    found: list[VmLoad] = []

    def looked() -> bool:
        found[:] = hypervisors.loads(time.time())[1]
        return "db1" in {one.vm for one in found} and "web1" in {one.vm for one in found}

    assert until(looked, 20.0, every_s=0.01)
    return found


def test_every_machine_is_seen_in_its_state(hypervisors: LibvirtHypervisors) -> None:
    states = sorted((one.vm, one.host, one.state) for one in measured(hypervisors))
    assert states == [
        ("a<b> &c [x]", "hA", "running"),
        ("crashed1", "hA", "crashed"),
        ("db1", "hB", "running"),
        ("dup1", "hA", "twice"),
        ("dup1", "hB", "twice"),
        ("nosuchvm", "", "missing"),
        ("paused1", "hA", "paused"),
        ("web1", "hA", "running"),
        ("虚拟机1", "hA", "running"),
    ]
    hypervisors.close()


def test_what_is_wrong_is_an_alarm_until_it_is_over(hypervisors: LibvirtHypervisors, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/own.db")
    loads, alarms = measured(hypervisors), MachineAlarms(store)
    hypervisors.close()
    alarms.tell(loads, 10.0)
    assert store.alarms.open() == []  # perhaps it is just being made
    alarms.tell(loads, 10.0 + PATIENCE_S)
    assert told(store) == ["machine_crashed crashed1", "machine_missing nosuchvm", "machine_twice dup1"]
    assert "hA and hB" in next(one.detail for one in store.alarms.open() if one.kind == "machine_twice")
    alarms.tell([one for one in loads if one.state != "twice"], 20.0)
    assert told(store) == ["machine_crashed crashed1", "machine_missing nosuchvm"]
    # Another process goes on where this one ended.
    MachineAlarms(store).tell([one for one in loads if one.state == "missing"], 30.0)
    assert told(store) == ["machine_missing nosuchvm"]
    store.close()


def told(store: Store) -> list[str]:
    return sorted(f"{one.kind} {one.key}" for one in store.alarms.open())


def sample(uuid: str, state: str) -> MachineSample:
    return MachineSample("vm1", {}, uuid, state, 1, 1.0, 1)


def test_a_machine_that_is_copied_is_where_it_runs() -> None:
    looks = {"hA": [sample("u1", "paused")], "hB": [sample("u1", "running")]}
    assert {host: [one.state for one in seen] for host, seen in Identity().one_of_each(looks).items()} == {
        "hA": [],
        "hB": ["running"],
    }


def test_one_machine_that_runs_on_two_hosts_is_refused_at_the_second_look() -> None:
    looks, identity = {"hA": [sample("u1", "running")], "hB": [sample("u1", "running")]}, Identity()
    assert [len(seen) for seen in identity.one_of_each(looks).values()] == [0, 1]
    assert [[one.state for one in seen] for seen in identity.one_of_each(looks).values()] == [["twice"], ["twice"]]


def test_a_left_over_definition_is_no_second_machine() -> None:
    looks = {"hA": [sample("u1", "running")], "hB": [sample("u2", "off")]}
    assert Identity().one_of_each(looks) == {"hA": looks["hA"], "hB": []}


@pytest.mark.parametrize(
    ("stats", "state"),
    [
        ({}, "running"),
        ({"state.state": 3, "state.reason": 1}, "paused"),
        ({"state.state": 5, "state.reason": 3}, "crashed"),
        ({"state.state": 5, "state.reason": 1}, "off"),
        ({"state.state": 6}, "crashed"),
        ({"state.state": 99}, "running"),
    ],
)
def test_states_are_words(stats: dict[str, int], state: str) -> None:
    assert state_of(stats) == state


class OddDomain:
    """A domain whose host says nothing sound about it."""

    def name(self) -> str:
        return "odd1"

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "u9"


def test_one_odd_machine_keeps_no_other_from_being_measured(hypervisors: LibvirtHypervisors) -> None:
    meter = hypervisors._meter
    found = [
        meter._seen_or_not("hA", Domain(OddDomain(), "odd1"), stats, 1.0)
        for stats in ({"state.state": "merry"}, {"vcpu.current": "many"})
    ]
    assert [one.state for one in found] == ["unmeasured"] * 2
    hypervisors.close()


def test_a_machine_that_stops_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "hA.xml").write_text(f"<node>{domain('web1', 1)}{domain('other', 2)}</node>")
    store = open_store(f"sqlite:///{tmp_path}/own.db")
    news = MachineNews(store, {"web1"}, time.time)
    spec = HostSpec("hA", f"test://{tmp_path}/hA.xml", "", 8.0, 8 * GIB)
    hypervisors = LibvirtHypervisors([spec], vms=[VmSpec("web1")], told=news.hear)
    connection = hypervisors.connections.of("hA")

    def states() -> dict[str, str]:
        return {one.vm: one.state for one in store.wanted.observed_of(MachineReport)}

    for call, state in (("suspend", "paused"), ("resume", "running"), ("destroy", "off")):
        for name in ("web1", "other"):
            getattr(connection.lookupByName(name), call)()
        assert until(lambda state=state: states() == {"web1": state}, 20.0, every_s=0.02), states()  # type: ignore[misc]
    hypervisors.close()
    store.close()
