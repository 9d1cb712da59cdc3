"""Turns the declared pools of the settings file into what the orchestrator is told about them."""

from collections.abc import Iterator
from pathlib import Path

from cpdb import SettingsError, Store
from forepath.sections_pools import PoolSection
from forepath.settings import Settings
from orchestrator import (
    GoldenImage,
    Hypervisors,
    LibvirtPool,
    Manner,
    OrchestratorConfig,
    PoolMember,
    PoolSpec,
    Scaling,
)

MIB = 1 << 20


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
            least=one.least,
            most=one.most,
            weight=one.weight,
            priority=services[one.virtual_ip].priority,
            cpu_cores_min=one.cpu_cores_base,
            cpu_cores_max=one.cpu_cores_max,
            vcpus=one.vcpus,
            memory_bytes=one.memory_mib * MIB,
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
    if section.image is None or section.template is None:
        return None
    return GoldenImage(section.image, _text(section.template))


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
        wake_limit_s=section.wake_limit_s,
        boot_limit_s=section.boot_limit_s,
        health_limit_s=section.health_limit_s,
        ramp=section.ramp,
        ramp_step_s=section.ramp_step_s,
        quiet_s=section.quiet_s,
        drain_limit_s=section.drain_limit_s,
        cut_connections=section.cut_connections,
        cooldown_s=section.cooldown_s,
    )


def with_pools(hypervisors: Hypervisors, store: Store, config: OrchestratorConfig) -> Hypervisors:
    """The hypervisors, able to bring machines of the declared pools in and out; themselves where there are none."""
    return Scaling(hypervisors, LibvirtPool(config.hosts), store, config) if config.pools else hypervisors
