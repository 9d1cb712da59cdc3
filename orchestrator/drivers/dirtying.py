"""How fast guests write their memory: measured now and then on machines that may be moved, and kept for a while."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpdb import BytesPerS, Seconds

# Sampling takes a second of a guest's time in small pieces; one machine a host is sampled at a time.
CALCULATE_S = 1
ANSWER_AFTER_S = 2.5
EVERY_S = 10.0
# Habits change: what was measured longer ago than this says nothing about a move now.
KEEP_S = 60.0
NEVER = float("-inf")
# virDomainDirtyRateStatus: a result is there.
MEASURED = 2


@dataclass(slots=True)
class Dirtying:
    """Rates by machine in bytes/s, from the hypervisor's sampling or from the last migration, whichever is newer."""

    _rates: dict[str, tuple[Seconds, BytesPerS]] = field(default_factory=dict)
    _asked: dict[str, Seconds] = field(default_factory=dict)
    _awaited: dict[str, Seconds] = field(default_factory=dict)
    _deaf: set[str] = field(default_factory=set)

    def rate(self, vm: str, now: Seconds) -> BytesPerS | None:
        """What is known of the machine; None when nobody measured it lately."""
        at, rate = self._rates.get(vm, (NEVER, 0.0))
        return rate if 0 <= now - at <= KEEP_S else None

    def learnt(self, vm: str, rate: BytesPerS | None, now: Seconds) -> None:
        """A migration saw how fast it writes, if it took long enough to see anything."""
        if rate is not None:
            self._rates[vm] = now, rate

    def awaited(self, host: str) -> bool:
        """Whether an answer of that host is to come."""
        return host in self._awaited

    def ask(self, host: str, machines: Sequence[tuple[Any, str]], now: Seconds) -> None:
        """Starts one measurement on the host: of the machine whose last one is longest ago, when it is due."""
        if 0 <= now - self._awaited.get(host, NEVER) < ANSWER_AFTER_S:
            return
        self._awaited.pop(host, None)
        due = [one for one in machines if one[1] not in self._deaf and now - self._asked.get(one[1], NEVER) >= EVERY_S]
        if not due:
            return
        raw, name = min(due, key=lambda one: (self._asked.get(one[1], NEVER), one[1]))
        self._asked[name] = now
        if self._begun(raw, name):
            self._awaited[host] = now

    def _begun(self, raw: Any, name: str) -> bool:
        import libvirt

        try:
            raw.startDirtyRateCalc(CALCULATE_S, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED):
                self._deaf.add(name)
            return False
        return True

    def note(self, vm: str, stats: Mapping[str, Any], now: Seconds) -> None:
        """Takes a result from bulk statistics; an old one is not taken for a new one."""
        rate = stats.get("dirtyrate.megabytes_per_second")
        if rate is None or stats.get("dirtyrate.calc_status") != MEASURED:
            return
        # The emulator stamps whole seconds of the host's clock.
        if now - stats.get("dirtyrate.calc_start_time", now) <= EVERY_S + ANSWER_AFTER_S:
            self._rates[vm] = now, float(rate) * (1 << 20)
