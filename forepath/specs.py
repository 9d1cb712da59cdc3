"""Turns the declared hosts and machines of the settings file into what the orchestrator is told about them."""

from forepath.settings import Settings
from orchestrator import HostSpec, VmSpec

MIB = 1 << 20


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
            migration_auto_converge=one.migration_auto_converge,
            migration_post_copy=one.migration_post_copy,
            memory_bytes_max=(one.memory_mib_max or 0) * MIB,
            affinity=one.affinity,
            anti_affinity=one.anti_affinity,
        )
        for one in settings.vm
    )
