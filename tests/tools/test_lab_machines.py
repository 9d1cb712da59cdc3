"""Real VMs on two real hypervisor hosts. The tests share one lab, and each leaves it as it found it."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from cpdb.errors import LabError
from forepath.demo.layout import LabVm
from forepath.demo.results import read_played, read_samples
from forepath.demo.schedule import Phases, make_schedule
from tools.lab.lab import Lab, Sampler
from tools.lab.machines import Machines, read_vm_cpu

pytestmark = pytest.mark.vm


def used_cores(lab: Lab, vm: str, seconds: float = 2.0) -> float:
    before, start = read_vm_cpu(lab.machines)[vm].cpu_seconds, time.monotonic()
    time.sleep(seconds)
    return (read_vm_cpu(lab.machines)[vm].cpu_seconds - before) / (time.monotonic() - start)


def test_every_vm_serves_on_its_first_host_within_its_quota(machines: Lab) -> None:
    boots = set()
    for vm in machines.layout.vms:
        stat = machines.machines.stat(vm.name)
        boots.add(stat["boot_id"])
        assert stat["cpus"] == 1
        assert machines.machines.host_of(vm.name) == vm.host
        assert read_vm_cpu(machines.machines)[vm.name].vcpu_limit_cores == pytest.approx(vm.quota_cores)
    assert len(boots) == len(machines.layout.vms)
    assert machines.spins_per_ms > 1000


def test_a_quota_takes_effect(machines: Lab) -> None:
    try:
        assert 0.15 < used_cores(machines, "batch1") < 0.35
        machines.machines.set_quota("batch1", 0.10)
        time.sleep(0.5)
        assert used_cores(machines, "batch1") < 0.15
    finally:
        machines.machines.reset()
    assert read_vm_cpu(machines.machines)["batch1"].vcpu_limit_cores == pytest.approx(0.25)


def test_a_quota_above_the_host_is_refused_in_one_line(machines: Lab) -> None:
    with pytest.raises(LabError, match="shop1"):
        machines.machines.set_quota("shop1", 1.9)


def test_live_migration_keeps_the_guest_and_reset_brings_it_back(machines: Lab) -> None:
    before = machines.machines.stat("batch1")
    machines.machines.migrate("batch1", "hB")
    try:
        assert machines.machines.host_of("batch1") == "hB"
        moved = machines.machines.stat("batch1")
        assert moved["boot_id"] == before["boot_id"]
        assert moved["uptime_s"] >= before["uptime_s"]
        assert read_vm_cpu(machines.machines)["batch1"].host == "hB"
    finally:
        machines.machines.reset()
    assert machines.machines.host_of("batch1") == "hA"
    assert machines.machines.stat("batch1")["boot_id"] == before["boot_id"]


def test_a_vcpu_comes_and_reset_takes_it_back(machines: Lab) -> None:
    machines.machines.domain("shop2").setVcpusFlags(2, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    deadline = time.monotonic() + 10
    while machines.machines.stat("shop2")["cpus"] != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert machines.machines.stat("shop2")["cpus"] == 2
    machines.machines.reset()
    assert machines.machines.stat("shop2")["cpus"] == 1


def test_a_guest_whose_kernel_panics_is_told_at_once(machines: Lab, tmp_path: Path) -> None:
    lost = LabVm("lost", "hA", "10.77.0.99", "52:54:00:77:00:63", 0.2)
    (tmp_path / "nothing").write_bytes(b"no archive")
    assets = replace(machines.machines.assets, initramfs=tmp_path / "nothing")
    one = Machines(replace(machines.layout, vms=(lost,)), machines.machines.hosts, assets)
    one.connections.update(machines.machines.connections)
    try:
        one.boot()
        with pytest.raises(LabError, match=r"lost stopped on hA while booting: Kernel panic .* root fs"):
            one.wait_serving()
    finally:
        domain = one.connections["hA"].lookupByName("lost")
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def test_a_guest_told_to_write_while_it_ends_writing_writes(machines: Lab) -> None:
    """It gives its memory back when it ends; what is asked for meanwhile must not be forgotten."""
    base = machines.machines.stat("batch1")["memory_free_bytes"]

    def writes() -> bool:
        return bool(base - machines.machines.stat("batch1")["memory_free_bytes"] >= 15 << 20)

    try:
        for wait_s in (0.0, 0.004, 0.008, 0.012, 0.016, 0.02):
            machines.machines.get("batch1", "/dirty?kib=0", 5.0)
            time.sleep(wait_s)
            machines.machines.get("batch1", "/dirty?kib=20480&kib_per_s=61440", 5.0)
            time.sleep(0.25)  # what it had before is given back by now if it is given back at all
            deadline = time.monotonic() + 15
            while not (writing := writes()) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert writing, wait_s
    finally:
        machines.machines.get("batch1", "/dirty?kib=0", 5.0)


def test_traffic_is_played_and_the_truth_is_sampled(machines: Lab, tmp_path: Path) -> None:
    """Six seconds of a calm schedule, straight to the VMs' own addresses, for there is no controller here."""
    lab = machines
    schedule = make_schedule(1, "calm", Phases(0, 1, ("static",)))
    first = {s.name: lab.layout.vm(next(iter(s.weights))).address for s in lab.layout.services}
    short = {c: tuple(r for r in rows if r.at_s < 6) for c, rows in schedule.requests.items()}
    streams = tuple(replace(stream, end_s=6.0) for stream in schedule.streams)
    replace(schedule, addresses=first, requests=short, streams=streams).save(tmp_path / "schedule.json")
    sink = lab.machines.stat("backup1")["sink_bytes"]
    sampler = Sampler(lab, tmp_path / "samples.jsonl")
    sampler.start()
    processes = []
    for client in lab.layout.clients:
        words = ["--schedule", str(tmp_path / "schedule.json"), "--client", client.name]
        words += ["--start-at", str(time.time() + 4.0), "--spins-per-ms", str(lab.spins_per_ms)]
        words += ["--out", str(tmp_path / f"{client.name}.jsonl")]
        processes.append(lab.client_popen(client.name, [sys.executable, "-m", "tools.lab.traffic", *words]))
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    sampler.stop()
    rows = read_played(tmp_path / f"c{n}.jsonl" for n in (1, 2, 3))
    assert len(rows) == sum(len(requests) for requests in short.values())
    assert sum(row.latency_s is not None for row in rows) >= 0.9 * len(rows)
    sent = json.loads((tmp_path / "c4.jsonl").read_text())["bytes"]
    assert lab.machines.stat("backup1")["sink_bytes"] - sink >= 0.8 * sent
    samples = read_samples(tmp_path / "samples.jsonl")
    assert samples[-1].links["leaf2>hA"][0] - samples[0].links["leaf2>hA"][0] >= 0.8 * sent
    assert samples[-1].vms["shop1"][0] > samples[0].vms["shop1"][0]
