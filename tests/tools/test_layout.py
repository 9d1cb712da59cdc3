"""The layout fits together: names, ports, addresses."""

from forepath.demo.layout import LabLayout
from mininet_topos.dumbbell import Dumbbell
from mininet_topos.fat_tree import FatTree
from mininet_topos.leaf_spine import LeafSpine
from tools.lab.assets import main_mirror
from tools.lab.cgroups import Tree, trees


def test_interfaces_have_names_that_the_kernel_takes_and_are_unique() -> None:
    names = list(LabLayout().interfaces().values())
    assert len(set(names)) == len(names)
    assert max(len(name) for name in names) <= 15


def test_addresses_and_macs_are_unique() -> None:
    layout = LabLayout()
    addresses = [end.address for end in (*layout.clients, *layout.vms, *layout.services)]
    macs = [end.mac for end in (*layout.clients, *layout.vms)]
    assert len(set(addresses)) == len(addresses)
    assert len(set(macs)) == len(macs)


def test_services_stand_on_vms_that_exist_and_the_host_is_meant_to_run_short() -> None:
    layout = LabLayout()
    for service in layout.services:
        assert all(layout.vm(vm).service == service.name for vm in service.weights)
    for host in layout.hypervisors:
        assert sum(vm.quota_cores for vm in layout.vms if vm.host == host.name) <= host.cpu_cores


def test_the_fabric_of_the_layout_is_the_topology_for_users() -> None:
    layout = LabLayout()
    topo = LeafSpine(leaves=3, spines=2, hosts=0)
    ports = {(a, info["port1"], b, info["port2"]) for a, b, info in topo.links(withInfo=True)}
    both_ways = ports | {(b, y, a, x) for a, x, b, y in ports}
    assert set(layout.fabric_ports()) <= both_ways
    assert len(ports) == len(layout.fabric_ports())


def test_sizes_of_the_other_topologies() -> None:
    dumbbell, tree = Dumbbell(hosts=2), FatTree(k=4)
    assert (len(dumbbell.switches()), len(dumbbell.hosts()), len(dumbbell.links())) == (2, 4, 5)
    assert (len(tree.switches()), len(tree.hosts()), len(tree.links())) == (20, 16, 48)


def test_the_main_archive_is_found_among_apts_targets() -> None:
    text = (
        "http://mirror/debian-security/ bookworm-security main amd64\n"
        "http://mirror/debian/ bookworm-updates main amd64\n"
        "http://mirror/debian/ bookworm main amd64\n"
    )
    assert main_mirror(text) == ("http://mirror/debian/", "bookworm", "amd64")


def test_control_groups_of_both_versions_are_recognised() -> None:
    line = "32 31 0:29 / {} rw,relatime - {} x rw,{}\n"
    first = line.format("/c/cpu,cpuacct", "cgroup", "cpu,cpuacct") + line.format("/c/memory", "cgroup", "memory")
    second = line.format("/c", "cgroup2", "nsdelegate")
    assert [tree.options for tree in trees(first + second)] == ["cpu,cpuacct", "memory"]
    assert trees(second) == [Tree(trees(second)[0].mount, "")]
    assert trees(second)[0].unified
