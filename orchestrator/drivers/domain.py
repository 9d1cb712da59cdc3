"""One libvirt domain, wrapped once: calls and their one-line errors, no policy."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cpdb import DriverError

PERIOD_US = 100_000
# The kernel refuses quotas below one millisecond.
LEAST_QUOTA_US = 1_000
MEMORY_FLOOR_BYTES = 64 << 20
QUOTA, PERIOD = "vcpu_quota", "vcpu_period"
# A plugged vCPU came online in 0.4 to 1.7 s where this was measured; the agent is asked only after this long.
ONLINE_S = 5.0
LOOK_EVERY_S = 0.2


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Turns a libvirt error into one DriverError line."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise DriverError(f"{doing}: {_text(error)}") from error


def _text(error: Any) -> str:
    """One line with libvirt's number, and what to do about the ones that are known."""
    known: Mapping[int, str] = {
        38: "check that libvirtd of that host runs and can be reached",
        42: "it was stopped or removed",
        68: "pending: the guest has not let go yet",
    }
    code = error.get_error_code()
    first = str(error).strip().splitlines()[0]
    if "cfs_quota_us" in first or "cpu.max" in first:
        return f"{first}; a machine's quota may not exceed its host group's own: raise that one or lower this"
    return f"{first} (libvirt error {code})" + (f"; {known[code]}" if code in known else "")


@dataclass(frozen=True, slots=True)
class Domain:
    """A running machine by name on one host."""

    raw: Any
    name: str

    def limit_cores(self, vcpus: int) -> float:
        """What quota and vCPUs allow, in cores: libvirt's vcpu_quota holds for each vCPU."""
        quota = self.quota()
        return float(vcpus) if quota is None else vcpus * min(1.0, quota)

    def quota(self) -> float | None:
        """The quota of each vCPU as a share of one core, None when there is none or the driver has none."""
        with reported(f"{self.name}: reading its CPU quota"):
            found = self.raw.schedulerParameters()
        quota, period = found.get(QUOTA, -1), found.get(PERIOD, PERIOD_US)
        share = quota / period if period > 0 else -1.0
        return share if 0 < share < 1 else None

    def set_limit_cores(self, cores: float, vcpus: int) -> None:
        """Sets the quota so that all vCPUs together get `cores`; verified by reading it back."""
        import libvirt

        quota = max(LEAST_QUOTA_US, round(cores / vcpus * PERIOD_US))
        wanted = {PERIOD: PERIOD_US, QUOTA: quota if cores < vcpus else -1}
        with reported(f"{self.name}: CPU limit {cores:.2f} cores"):
            try:
                self.raw.setSchedulerParametersFlags(wanted, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except LookupError as error:  # raised by the binding itself when the hypervisor has no such parameter
                raise DriverError(f"{self.name}: this hypervisor has no CPU quota") from error
        found = self.limit_cores(vcpus)
        if abs(found - min(cores, vcpus)) > max(0.02, LEAST_QUOTA_US / PERIOD_US * vcpus):
            raise DriverError(f"{self.name}: CPU limit is {found:.2f} cores after asking for {cores:.2f}")

    def vcpus(self) -> int:
        """vCPUs in use: what the guest says where it has an agent, else what is plugged in.

        A busy guest's agent is slow to answer, so it is not asked where there is nothing to ask.
        """
        import libvirt

        with reported(f"{self.name}: counting its vCPUs"):
            plugged = int(self.raw.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE))
        if plugged <= 1:
            return plugged
        try:
            return min(plugged, int(self.raw.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST)))
        except libvirt.libvirtError:
            return plugged

    def set_vcpus(self, count: int) -> None:
        """More are plugged in; fewer are taken offline by the guest's agent, as unplugging never ends under TCG."""
        import libvirt

        with reported(f"{self.name}: {count} vCPUs"):
            plugged = int(self.raw.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE))
            if count > plugged:
                self.raw.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                if self._guest_shows(count):
                    return
            if count != self.vcpus():
                self.raw.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_VCPU_GUEST)

    def _guest_shows(self, count: int) -> bool:
        """Whether the guest brings a new vCPU online by itself, which takes it up to some seconds when it is busy."""
        for _ in range(round(ONLINE_S / LOOK_EVERY_S)):
            if self.vcpus() >= count:
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def memory_kib(self) -> int:
        """Memory that the machine has now, in KiB."""
        with reported(f"{self.name}: reading its memory"):
            return int(self.raw.info()[2])

    def set_memory(self, size_bytes: int) -> None:
        """Balloon target in bytes; below the floor the guest would die instead of shrinking."""
        import libvirt

        if size_bytes < MEMORY_FLOOR_BYTES:
            floor = MEMORY_FLOOR_BYTES >> 20
            raise DriverError(f"{self.name}: {size_bytes >> 20} MiB is below the floor of {floor} MiB")
        with reported(f"{self.name}: memory {size_bytes >> 20} MiB"):
            self.raw.setMemoryFlags(size_bytes >> 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def migrate(self, migration_uri: str) -> None:
        """Live, peer to peer; returns when the machine runs on the other host."""
        import libvirt

        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            | libvirt.VIR_MIGRATE_PEER2PEER
        )
        with reported(f"{self.name}: migration to {migration_uri}"):
            self.raw.migrateToURI3(migration_uri, {}, flags)

    def abort(self) -> None:
        """Ends a migration that is under way; the machine stays where it is."""
        with reported(f"{self.name}: aborting its migration"):
            self.raw.abortJob()
