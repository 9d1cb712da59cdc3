"""One contract for machines of pools, kept by the fake and by libvirt's built-in test driver."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cpdb import DriverError
from orchestrator import (
    FakeHypervisors,
    FakePool,
    GoldenImage,
    HostSpec,
    LibvirtPool,
    Manner,
    PoolMember,
    PoolSpec,
)
from orchestrator.act.libvirt.pool import disk_path, filled
from orchestrator.declared import pool_problems

IMAGE = "/images/golden.qcow2"
TEMPLATE = """<domain type='test'><name>$name</name><memory unit='KiB'>$memory_kib</memory><vcpu>$vcpus</vcpu>
<os><type>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='$disk'/><target dev='vda' bus='virtio'/></disk>
<interface type='network'><mac address='$mac'/><source network='default'/></interface></devices></domain>"""
NODE = """<node><cpu><mhz>2600</mhz><model>n1</model><active>8</active><nodes>1</nodes><sockets>1</sockets>
<cores>8</cores><threads>1</threads></cpu><memory>8388608</memory>
<network><name>default</name><ip address='192.168.122.1' netmask='255.255.255.0'/></network>
<pool type='dir'><name>images</name><target><path>/images</path></target>
<volume><name>golden.qcow2</name><key>{image}</key><capacity>1048576</capacity><target><path>{image}</path>
<format type='qcow2'/></target></volume></pool>{domains}</node>"""
MEMBERS = tuple(
    PoolMember(f"web{n}", f"10.0.1.{n}", f"52:54:00:00:00:0{n}", "h1", how)
    for n, how in ((1, "paused"), (2, "saved"), (3, "defined"), (4, "image"))
)
POOL = PoolSpec("10.0.0.101", MEMBERS, image=GoldenImage(IMAGE, TEMPLATE), manner=Manner(wake_limit_s=20.0))
Machines = FakePool | LibvirtPool


def fake(_directory: Path) -> FakePool:
    host = HostSpec("h1", "", "", 8.0, 8 << 30)
    return FakePool(FakeHypervisors({"h1": host}, {}, lambda _vm, _now: 0.0), {f"web{n}": "off" for n in (1, 2, 3)})


def libvirt_test(directory: Path) -> LibvirtPool:
    pytest.importorskip("libvirt")
    plain = replace(POOL, image=GoldenImage("/none/golden.qcow2", TEMPLATE))
    domains = "".join(filled(TEMPLATE, plain, one) for one in MEMBERS[:3])
    file = directory / "h1.xml"
    file.write_text(NODE.format(image=IMAGE, domains=domains))
    made = LibvirtPool([HostSpec("h1", f"test://{file}", "", 8.0, 8 << 30)])
    for one in MEMBERS[:3]:  # the test driver starts what its file names
        made.rest(POOL, one, "defined", 0.0)
    return made


@pytest.fixture(params=[fake, libvirt_test], ids=["fake", "libvirt"])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machines]:
    make: Callable[[Path], Machines] = request.param
    made = make(tmp_path)
    yield made
    made.close()


@dataclass(frozen=True, slots=True)
class Of:
    machines: Machines
    member: PoolMember

    @property
    def state(self) -> str:
        return self.machines.seen((self.member,), 0.0)[0].state

    def wake(self) -> None:
        self.machines.wake(POOL, self.member, 0.0)

    def rest(self) -> None:
        self.machines.rest(POOL, self.member, self.member.how, 0.0)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda one: one.how)
def test_up_and_to_rest_as_often_as_one_likes(member: PoolMember, machines: Machines) -> None:
    one = Of(machines, member)
    assert one.state == {"image": "absent"}.get(member.how, "off")
    rests = {"paused": "paused", "saved": "saved", "defined": "off", "image": "absent"}[member.how]
    for _ in range(3):
        one.wake()
        assert one.state == "running"
        one.wake()
        assert one.state == "running"
        one.rest()
        assert one.state == rests
        one.rest()
        assert one.state == rests


def test_what_was_only_half_made_is_taken_away(machines: Machines) -> None:
    one = Of(machines, MEMBERS[3])
    one.wake()
    machines.rest(POOL, MEMBERS[3], "defined", 0.0)
    one.rest()
    assert one.state == "absent"
    one.wake()
    assert one.state == "running"


def test_what_cannot_be_made_is_one_clear_line(machines: Machines) -> None:
    for member, pool in ((MEMBERS[3], replace(POOL, image=None)),):
        with pytest.raises(DriverError) as caught:
            machines.wake(pool, member, 0.0)
        assert "no image" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_absent_host_is_left_out_and_named(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    made = LibvirtPool([HostSpec("h1", f"test://{tmp_path}/nothing.xml", "", 1.0, 1 << 30)])
    assert made.seen(MEMBERS, 0.0) == []
    assert not made.answers(replace(POOL, manner=Manner(probe="agent")), MEMBERS[0], 0.0)
    with pytest.raises(DriverError, match="h1"):
        made.wake(POOL, MEMBERS[0], 0.0)
    made.close()


def test_a_template_is_filled_in_or_refused() -> None:
    text = filled(TEMPLATE, POOL, MEMBERS[3])
    for part in ("<name>web4</name>", "52:54:00:00:00:04", "131072", "/images/web4.overlay.qcow2"):
        assert part in text
    assert disk_path(IMAGE, "a") == "/images/a.overlay.qcow2"
    for bad in ("<domain>$colour</domain>", "<domain>$</domain>"):
        with pytest.raises(DriverError, match="template"):
            filled(bad, POOL, MEMBERS[3])
    odd = filled("<name>$name</name>", POOL, replace(MEMBERS[3], vm="a<b&'c'"))
    assert odd == "<name>a&lt;b&amp;&apos;c&apos;</name>"


def test_all_wrong_settings_of_pools_are_named_at_once() -> None:
    bad = PoolSpec(
        "10.0.0.9", (*MEMBERS[3:], MEMBERS[3]), least=3, most=2, cpu_cores_min=2.0, image=None,
        manner=Manner(ramp=(0.5, 0.2)),
    )  # fmt: skip
    text = "\n".join(pool_problems((bad, replace(bad, members=())), ["h2"]))
    for part in (
        "least",
        "cpu_cores_min",
        "no members",
        "ramp",
        "not a declared host",
        "needs an image",
        "twice",
        "two",
    ):
        assert part in text
    assert list(pool_problems((POOL,), ["h1"])) == []
