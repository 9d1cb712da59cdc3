"""What the settings declare - hosts, machines, pools, nodes, links, services - in the words of the other rooms."""

from collections.abc import Iterator
from pathlib import Path

from cpdb import MBIT, MIB, Destination, Link, Node, NodeKind, SettingsError, Store, VirtualIp
from forepath.settings.sections import PoolSection
from forepath.settings.tree import Settings
from orchestrator import GoldenImage, HostSpec, Manner, PoolMember, PoolSpec, VmSpec


def host_specs(settings: Settings) -> tuple[HostSpec, ...]:
    """The hypervisors, in the file's order; without a `migration_uri` others send machines to where we connect."""
    return tuple(
        HostSpec(
            name=one.name,
            uri=one.uri,
            migration_uri=one.migration_uri or one.uri,
            cpu_cores_capacity=one.cpu_cores,
            memory_bytes_capacity=one.memory_mib * MIB,
            cordoned=one.cordoned,
            maintenance=one.maintenance,
            region=one.region,
        )
        for one in settings.host
    )


def vm_specs(settings: Settings) -> tuple[VmSpec, ...]:
    """The machines, in the file's order."""
    return tuple(
        VmSpec(
            name=one.name,
            priority=one.priority,
            cpu_cores_min=one.cpu_cores_base,
            cpu_cores_max=one.cpu_cores_max,
            vcpus_max=one.vcpus_max,
            memory_bytes_min=one.memory_mib_min * MIB,
            movable=one.movable,
            migration_auto_converge=one.migration.auto_converge,
            migration_post_copy=one.migration.post_copy,
            memory_bytes_max=(one.memory_mib_max or 0) * MIB,
            affinity=one.affinity,
            anti_affinity=one.anti_affinity,
        )
        for one in settings.vm
    )


def pool_specs(settings: Settings) -> tuple[PoolSpec, ...]:
    """The pools, in the file's order. Raises SettingsError with all that does not fit the rest of the file."""
    if problems := list(_problems(settings)):
        raise SettingsError("\n".join(problems))
    services = {one.name: one for one in settings.virtual_ip}
    return tuple(
        PoolSpec(
            virtual_ip=services[one.virtual_ip].address,
            members=tuple(
                PoolMember(member.name, member.address, member.mac, member.host, member.how or one.how)
                for member in one.member
            ),
            least=one.min_destinations,
            most=one.max_destinations,
            weight=one.weight,
            priority=services[one.virtual_ip].priority,
            cpu_cores_min=one.machine.cpu_cores_base,
            cpu_cores_max=one.machine.cpu_cores_max,
            vcpus=one.machine.vcpus,
            memory_bytes=one.machine.memory_mib * MIB,
            image=_image(one),
            manner=_manner(one),
        )
        for one in settings.pool
    )


def _problems(settings: Settings) -> Iterator[str]:
    services = {one.name: one for one in settings.virtual_ip}
    hosts = {one.name for one in settings.host}
    for pool in settings.pool:
        service = services.get(pool.virtual_ip)
        if service is None:
            yield f"pool: virtual_ip {pool.virtual_ip!r} is not declared; known are {', '.join(services) or 'none'}"
            continue
        declared = {one.name for one in service.destination}
        for one in pool.member:
            where = f"pool of {pool.virtual_ip}, member {one.name}"
            if one.name in declared:
                yield f"{where}: is a destination already; machines of a pool come and go, leave it out there"
            if one.host not in hosts:
                yield f"{where}: host {one.host!r} is not declared; known are {', '.join(sorted(hosts)) or 'none'}"


def _image(section: PoolSection) -> GoldenImage | None:
    if section.machine.image is None or section.machine.template is None:
        return None
    return GoldenImage(section.machine.image, _text(section.machine.template))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"pool: template {path} cannot be read ({error}); name a file with a domain's XML"
        ) from error


def _manner(section: PoolSection) -> Manner:
    probe, _, port = section.probe.partition(":")
    return Manner(
        probe=probe,  # type: ignore[arg-type]
        port=int(port or 0),
        wake_limit_s=section.arrival.resume_limit_s,
        boot_limit_s=section.arrival.boot_limit_s,
        health_limit_s=section.arrival.health_limit_s,
        ramp=section.arrival.ramp,
        ramp_step_s=section.arrival.ramp_step_s,
        quiet_s=section.departure.quiet_s,
        drain_limit_s=section.departure.drain_limit_s,
        cut_connections=section.departure.cut_connections,
        cooldown_s=section.departure.cooldown_s,
    )


def _placed(address: str | None, vlan: int | None) -> str | None:
    """An address of a node as the controller knows it: with its VLAN."""
    return f"{address}@{vlan}" if address and vlan else address


def declared_nodes(settings: Settings) -> list[Node]:
    """Hypervisors, machines, those of pools, and what has a [[node]] of its own; later ones say more of the same."""
    hypervisors = [Node(item.name, NodeKind.HYPERVISOR) for item in settings.host]
    machines = [Node(item.name, NodeKind.VM) for item in settings.vm]
    machines += [Node(one.name, NodeKind.VM, one.address, one.mac) for item in settings.pool for one in item.member]
    named = [
        Node(
            item.name,
            item.kind,
            _placed(item.address, item.vlan),
            item.mac,
            item.dpid,
            address6=_placed(item.address6, item.vlan),
        )
        for item in settings.node
    ]
    return [*hypervisors, *machines, *named]


def declared_links(settings: Settings) -> list[Link]:
    """The links, capacities in bytes/s."""
    return [
        Link(item.a, item.a_port, item.b, item.b_port, item.capacity_mbit_per_s * MBIT, declared=True)
        for item in settings.link
    ]


def declared_virtual_ips(settings: Settings) -> list[VirtualIp]:
    """The virtual IPs with their destinations."""
    return [
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


def declare(settings: Settings, store: Store) -> None:
    """Makes the store's declared nodes, links and virtual IPs those of the settings. May be repeated at will."""
    store.inventory.put_nodes(declared_nodes(settings))
    store.inventory.put_links(declared_links(settings))
    if settings.virtual_ip:
        store.inventory.declare_virtual_ips(declared_virtual_ips(settings))
