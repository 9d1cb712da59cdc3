"""The machines of a pool as the orchestrator sees them: one protocol, and real ones through libvirt."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from string import Template
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cpdb import DriverError, Seconds
from orchestrator.act.hypervisors import SeenMachine
from orchestrator.act.libvirt.connections import Connections
from orchestrator.act.libvirt.domain import Domain, reported, within
from orchestrator.declared import ABSENT, OFF, PAUSED, RUNNING, SAVED, HostSpec, How, PoolMember, PoolSpec

AGENT_LIMIT_S = 2
LOOK_LIMIT_S = 5.0
CONNECT_LIMIT_S = 1.0
# A guest that does not follow the power button is switched off after this long.
SHUTDOWN_S = 10.0
_VOLUME = """<volume><name>{name}</name><capacity unit='bytes'>{size}</capacity>
 <target><format type='qcow2'/></target>
 <backingStore><path>{image}</path><format type='qcow2'/></backingStore></volume>"""
_STORAGE = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"


class LibvirtPool:
    """Machines of pools on libvirt hosts. Nothing here decides anything."""

    def __init__(
        self,
        hosts: Iterable[HostSpec],
        clock: Callable[[], Seconds] = time.monotonic,
        sleep: Callable[[Seconds], None] = time.sleep,
    ) -> None:
        """`clock` and `sleep` only measure how long a guest may take to shut down."""
        self._connections = Connections(hosts)
        self._clock = clock
        self._sleep = sleep

    def seen(self, members: Iterable[PoolMember], now: Seconds) -> list[SeenMachine]:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        by_host: dict[str, list[PoolMember]] = {}
        for one in members:
            by_host.setdefault(one.host, []).append(one)
        found: list[SeenMachine] = []
        for host, own in sorted(by_host.items()):
            with contextlib.suppress(DriverError):
                found += within(LOOK_LIMIT_S, partial(self._seen, own), f"{host}: looking at its pool")
        return found

    def _seen(self, members: Iterable[PoolMember]) -> list[SeenMachine]:
        return [SeenMachine(one.vm, one.host, self._state(one)) for one in members]

    def wake(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> None:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        within(pool.manner.wake_limit_s, lambda: self._wake(pool, member), f"{member.vm}: waking it on {member.host}")

    def _wake(self, pool: PoolSpec, member: PoolMember) -> None:
        state = self._state(member)
        if state == RUNNING:
            return
        domain = self._make(pool, member) if state == ABSENT else self._domain(member)
        with reported(f"{member.vm}: waking it on {member.host}"):
            if state == PAUSED:
                domain.resume()
            else:
                domain.create()
        if state in (OFF, ABSENT):
            self._limit(pool, member, domain)

    @staticmethod
    def _limit(pool: PoolSpec, member: PoolMember, domain: Any) -> None:
        one = Domain(domain, member.vm)
        with contextlib.suppress(DriverError):  # some drivers have no quota; the next cycle sees what it has
            one.set_limit_cores(pool.cpu_cores_min, one.vcpus())

    def rest(self, pool: PoolSpec, member: PoolMember, how: How, now: Seconds) -> None:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        doing = f"{member.vm}: laying it to rest on {member.host}"
        within(pool.manner.wake_limit_s, lambda: self._rest(pool, member, how), doing)

    def _rest(self, pool: PoolSpec, member: PoolMember, how: How) -> None:
        state = self._state(member)
        with reported(f"{member.vm}: laying it to rest on {member.host}"):
            if how == "image":
                self._remove(pool, member, state)
            elif state == RUNNING and how == "paused":
                self._domain(member).suspend()
            elif state == RUNNING and how == "saved":
                self._domain(member).managedSave(0)
            elif state in (RUNNING, PAUSED) and how == "defined":
                self._shut_down(self._domain(member))

    def _shut_down(self, domain: Any) -> None:
        until = self._clock() + SHUTDOWN_S
        domain.shutdown()
        while domain.isActive():
            if self._clock() >= until:
                domain.destroy()
                return
            self._sleep(0.2)

    def answers(self, pool: PoolSpec, member: PoolMember, now: Seconds) -> bool:  # noqa: ARG002 - protocol
        """See PoolMachines."""
        if pool.manner.probe == "tcp":
            return _connects(member.address, pool.manner.port)
        if pool.manner.probe == "none":
            return True
        import libvirt
        import libvirt_qemu

        try:
            libvirt_qemu.qemuAgentCommand(self._domain(member), '{"execute":"guest-ping"}', AGENT_LIMIT_S, 0)
        except (libvirt.libvirtError, DriverError):
            return False
        return True

    def close(self) -> None:
        """See PoolMachines."""
        self._connections.close()

    # -- looking

    def _domain(self, member: PoolMember) -> Any:
        with reported(f"{member.host}: looking for {member.vm}"):
            return self._connections.of(member.host).lookupByName(member.vm)

    def _state(self, member: PoolMember) -> str:
        import libvirt

        connection = self._connections.of(member.host)
        with reported(f"{member.host}: looking at {member.vm}"):
            try:
                domain = connection.lookupByName(member.vm)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return ABSENT
                raise
            if domain.isActive():
                return PAUSED if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED else RUNNING
            return SAVED if domain.hasManagedSaveImage() else OFF

    # -- making and removing

    def _make(self, pool: PoolSpec, member: PoolMember) -> Any:
        """Defines the machine on a disk of its own that holds only what differs from the golden image."""
        if pool.image is None:
            raise DriverError(f"{member.vm}: is not defined on {member.host}, and its pool has no image to make it of")
        connection, disk = self._connections.of(member.host), disk_path(pool.image.path, member.vm)
        with reported(f"{member.vm}: making it on {member.host} of {pool.image.path}"):
            storage = _storage(connection, str(Path(disk).parent))
            size = connection.storageVolLookupByPath(pool.image.path).info()[1]
            if Path(disk).name not in storage.listVolumes():
                name = escape(Path(disk).name)
                storage.createXML(_VOLUME.format(name=name, size=size, image=escape(pool.image.path)), 0)
            return connection.defineXML(filled(pool.image.template, pool, member))

    def _remove(self, pool: PoolSpec, member: PoolMember, state: str) -> None:
        import libvirt

        if state != ABSENT:
            domain = self._domain(member)
            if domain.isActive():
                domain.destroy()
            flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            domain.undefineFlags(flags | (libvirt.VIR_DOMAIN_UNDEFINE_NVRAM if "<nvram" in domain.XMLDesc() else 0))
        if pool.image is not None:
            disk = disk_path(pool.image.path, member.vm)
            storage = _storage(self._connections.of(member.host), str(Path(disk).parent))
            if Path(disk).name in storage.listVolumes():
                storage.storageVolLookupByName(Path(disk).name).delete(0)


def disk_path(image: str, vm: str) -> str:
    """Where a machine's own disk lies: beside the golden image."""
    return str(Path(image).with_name(f"{vm}.overlay.qcow2"))


def filled(template: str, pool: PoolSpec, member: PoolMember) -> str:
    """The domain's XML. Raises DriverError when the template names something that is not known."""
    known = {
        "name": member.vm,
        "mac": member.mac,
        "address": member.address,
        "disk": disk_path(pool.image.path, member.vm) if pool.image else "",
        "memory_kib": str(pool.memory_bytes >> 10),
        "vcpus": str(pool.vcpus),
    }
    try:
        return Template(template).substitute({key: escape(value, {"'": "&apos;"}) for key, value in known.items()})
    except (KeyError, ValueError) as error:
        names = ", ".join(f"${key}" for key in known)
        raise DriverError(f"{member.vm}: its template cannot be filled in ({error!r}); known are {names}") from error


def _storage(connection: Any, directory: str) -> Any:
    """libvirt's view of a directory, made when there is none (it lasts as long as libvirtd), and up to date."""
    known = (one for one in connection.listAllStoragePools() if _directory_of(one) == directory)
    found = next(known, None)
    if found is None:
        name = "forepath" + directory.replace("/", "-")
        found = connection.storagePoolCreateXML(_STORAGE.format(name=escape(name), path=escape(directory)), 0)
    if not found.isActive():
        found.create(0)
    found.refresh(0)
    return found


def _directory_of(storage: Any) -> str | None:
    return ElementTree.fromstring(storage.XMLDesc()).findtext("target/path")


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), CONNECT_LIMIT_S):
            return True
    except OSError:
        return False
