"""Carries what the settings declare into the database, where the other processes find it."""

from cpdb import Destination, Link, Node, NodeKind, Store, VirtualIp
from forepath.settings import Settings

BYTES_PER_S_PER_MBIT = 1e6 / 8


def declare(settings: Settings, store: Store) -> None:
    """Makes the store's declared nodes, links and virtual IPs those of the settings. May be repeated at will."""
    hypervisors = [Node(item.name, NodeKind.HYPERVISOR) for item in settings.host]
    machines = [Node(item.name, NodeKind.VM) for item in settings.vm]
    machines += [Node(one.name, NodeKind.VM, one.address, one.mac) for item in settings.pool for one in item.member]
    named = [Node(item.name, item.kind, item.address, item.mac, item.dpid) for item in settings.node]
    store.inventory.put_nodes([*hypervisors, *machines, *named])
    store.inventory.put_links(
        Link(item.a, item.a_port, item.b, item.b_port, item.capacity_mbit_per_s * BYTES_PER_S_PER_MBIT, declared=True)
        for item in settings.link
    )
    if settings.virtual_ip:
        store.inventory.declare_virtual_ips(
            [
                VirtualIp(
                    item.address,
                    item.name,
                    item.priority,
                    tuple(Destination(one.name, one.address, one.mac, one.weight) for one in item.destination),
                    affinity=item.affinity,
                    probe=item.probe,
                )
                for item in settings.virtual_ip
            ]
        )
