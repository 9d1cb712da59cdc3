"""From a machine's cumulative counters to what it used between two looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpdb import Seconds

NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Growth:
    """What a machine used a second until `now`: cores, and bytes received and sent by all its interfaces."""

    now: Seconds
    cores: float
    rx_bytes_per_s: float
    tx_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Cumulative counters of one machine, seen from inside it: rx is what came to it."""

    now: Seconds
    cpu_ns: int
    rx_bytes: int
    tx_bytes: int

    @staticmethod
    def of(stats: Mapping[str, Any], now: Seconds) -> "Counters":
        """From one record of `virConnectGetAllDomainStats`; interfaces are numbered net.0., net.1., ...

        libvirt counts a plain tap device as the host sees it and says so in reverse, so rx and tx are the guest's.
        """
        interfaces = range(int(stats.get("net.count", 0)))
        rx, tx = (sum(int(stats.get(f"net.{n}.{way}.bytes", 0)) for n in interfaces) for way in ("rx", "tx"))
        return Counters(now, int(stats.get("cpu.time", 0)), rx, tx)

    def growth(self, before: "Counters | None") -> Growth | None:
        """Use since `before`; None when there is nothing to compare with, as after a start or a migration.

        An interface that was unplugged takes its counters along: then nothing is known of the network, and 0 is said.
        """
        if before is None or self.now <= before.now or self.cpu_ns < before.cpu_ns:
            return None
        seconds = self.now - before.now
        return Growth(
            self.now,
            (self.cpu_ns - before.cpu_ns) / NANOSECONDS / seconds,
            max(0, self.rx_bytes - before.rx_bytes) / seconds,
            max(0, self.tx_bytes - before.tx_bytes) / seconds,
        )
