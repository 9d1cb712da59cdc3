"""One libvirt domain, wrapped once: calls and their one-line errors, no policy."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from xml.etree import ElementTree

from cpdb import BytesPerS, DriverError, Seconds

T = TypeVar("T")


def within(limit_s: Seconds, call: Callable[[], T], doing: str) -> T:
    """What `call` returns or raises. Raises DriverError when that takes longer than `limit_s`.

    A call into a hypervisor cannot be broken off: its thread stays until it comes back, and nobody waits for it.
    """
    asked = TimedCall(call)
    if not asked.wait(limit_s):
        raise DriverError(f"{doing}: no answer within {limit_s:g} s")
    return asked.answer()


class TimedCall(Generic[T]):
    """One call in a daemon thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="libvirt-call", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is taken
            self._error = error
        finally:
            self._done.set()

    def wait(self, limit_s: Seconds) -> bool:
        """Whether it came back within `limit_s`."""
        return self._done.wait(max(0.0, limit_s))

    def answer(self) -> T:
        """What it returned or raised; only after it came back."""
        if self._error is not None:
            raise self._error
        return self._found[0]


def until(look: Callable[[], bool], limit_s: Seconds, every_s: Seconds = 0.2) -> bool:
    """Looks again and again until it holds; False when it did not within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not look():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


PERIOD_US = 100_000
# The kernel refuses quotas below one millisecond.
LEAST_QUOTA_US = 1_000
QUOTA, PERIOD = "vcpu_quota", "vcpu_period"
# A plugged vCPU came online in 0.4 to 1.7 s where this was measured; the agent is asked only after this long.
ONLINE_S = 5.0
# What the guest has to let go of may take long; it is looked at again for this long.
SETTLE_S = 30.0
# A guest's agent that does not answer within this many seconds is taken to be busy.
AGENT_ANSWER_S = 2
ENDED = "the machine's emulator ended, e.g. for lack of memory; libvirt's log of it on that host says more"
# What libvirt says when a host or an emulator breaks off, and what that means.
SAID: Mapping[str, str] = {
    "closed the monitor": ENDED,
    "connecting to monitor": ENDED,
    "state change lock": "the machine is busy with an earlier change, or its guest hangs",
    "Cannot access storage file": "its disk is not there; put it on storage that both hosts share",
    "client socket is closed": "the other end or the network to it went away",
    "End of file while reading data": "libvirtd of the source ended or was restarted",
    "Connection reset by peer": "libvirtd of that host ended or was restarted",
    "unsafe": "its disk lies on one host only; put it on storage that both hosts share",
}


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Turns a libvirt error into one DriverError line."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise DriverError(f"{doing}: {text_of(error)}") from error


def text_of(error: Any) -> str:
    """One line with libvirt's number, and what to do about the ones that are known."""
    known: Mapping[int, str] = {
        38: "check that libvirtd of that host runs and can be reached",
        42: "it was stopped or removed",
        68: "pending: the guest has not let go yet",
        86: "its guest agent does not answer",
    }
    code = error.get_error_code()
    first = str(error).strip().splitlines()[0]
    told = next((tip for said, tip in SAID.items() if said in first), None)
    if told is not None:
        return f"{first} (libvirt error {code}); {told}"
    if "cfs_quota_us" in first or "cpu.max" in first:
        return f"{first}; a machine's quota may not exceed its host group's own: raise that one or lower this"
    if "tc qdisc" in first or "tc filter" in first:
        return f"{first}; the kernel of its host lacks a module for traffic control (sch_htb, sch_sfq, act_police)"
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

    def set_vcpus(self, count: int) -> str | None:
        """More are plugged in; fewer are taken offline by the guest's agent, or unplugged where there is none.

        None when it shows; else what is still pending after a while. Unplugging never ends under pure emulation, and
        such a machine cannot be migrated afterwards, so it is the last resort.
        """
        import libvirt

        with reported(f"{self.name}: {count} vCPUs"):
            plugged = int(self.raw.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE))
            if count > plugged:
                self._asked(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                if until(lambda: self.vcpus() >= count, ONLINE_S):
                    return None
            if count != self.vcpus():
                self._online(count, plugged)
        if until(lambda: self.vcpus() == count, SETTLE_S if count < plugged else ONLINE_S):
            return None
        return f"pending: {self.vcpus()} vCPUs are in use after {SETTLE_S:g} s; the guest has not let go yet"

    def _online(self, count: int, plugged: int) -> None:
        """Sets how many the guest uses."""
        import libvirt

        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        without_agent = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED)
        try:
            self.raw.setVcpusFlags(count, live | libvirt.VIR_DOMAIN_VCPU_GUEST)
        except libvirt.libvirtError as error:
            if count >= plugged or error.get_error_code() not in without_agent:
                raise
            self._asked(count, live)

    def _asked(self, count: int, flags: int) -> None:
        """Plugs or unplugs. That the guest did not follow in time is no failure: it is looked at again."""
        import libvirt

        try:
            self.raw.setVcpusFlags(count, flags)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT:
                raise

    def patient(self) -> None:
        """Lets no question to the guest's agent wait long. Drivers without agents cannot, and need not."""
        import libvirt

        with contextlib.suppress(libvirt.libvirtError):
            self.raw.agentSetResponseTimeout(AGENT_ANSWER_S, 0)

    def memory_kib(self) -> int:
        """Memory that the machine has now, in KiB."""
        with reported(f"{self.name}: reading its memory"):
            return int(self.raw.info()[2])


# libvirt counts in kilobytes (1000 bytes) a second; "in" and "out" are the host's words for what the machine gets.
KILO = 1000.0
RATE_TOLERANCE_BYTES_PER_S = 0.5 * KILO
INBOUND, OUTBOUND = "inbound.average", "outbound.average"


def interfaces(domain: Domain) -> list[str]:
    """MAC addresses of the machine's interfaces. Raises DriverError."""
    with reported(f"{domain.name}: reading its interfaces"):
        root = ElementTree.fromstring(domain.raw.XMLDesc(0))
    found = (one.get("address") for one in root.findall("./devices/interface/mac"))
    return [one for one in found if one]


def network_rate(domain: Domain) -> BytesPerS:
    """The largest limit of its interfaces in bytes/s, 0 when one of them has none. Raises DriverError."""
    rates = [_rate(domain, one) for one in interfaces(domain)]
    return 0.0 if not rates or 0.0 in rates else max(rates)


def _rate(domain: Domain, mac: str) -> BytesPerS:
    with reported(f"{domain.name}: reading the limit of {mac}"):
        found = domain.raw.interfaceParameters(mac, 0)
    ways = [float(found.get(way, 0)) * KILO for way in (INBOUND, OUTBOUND)]
    return 0.0 if 0.0 in ways else max(ways)


def set_network_rate(domain: Domain, bytes_per_s: BytesPerS) -> None:
    """Limits each interface both ways; 0 lifts the limits. Verified by reading back. Raises DriverError.

    What a host's kernel could only do in part is taken back: half a limit would cut the machine off unseen.
    """
    macs = interfaces(domain)
    if not macs:
        raise DriverError(f"{domain.name}: it has no interface to limit")
    kilobytes = max(1, round(bytes_per_s / KILO)) if bytes_per_s > 0 else 0
    for mac in macs:
        before = round(_rate(domain, mac) / KILO)
        try:
            _set(domain, mac, kilobytes)
        except DriverError:
            with contextlib.suppress(DriverError):
                _set(domain, mac, before)
            raise
    found = network_rate(domain)
    if abs(found - kilobytes * KILO) > RATE_TOLERANCE_BYTES_PER_S:
        raise DriverError(f"{domain.name}: network rate is {found:.0f} bytes/s after asking for {bytes_per_s:.0f}")


def _set(domain: Domain, mac: str, kilobytes: int) -> None:
    import libvirt

    rate = f"{kilobytes} kB/s" if kilobytes else "no limit"
    both = {INBOUND: kilobytes, OUTBOUND: kilobytes}
    with reported(f"{domain.name}: {rate} on {mac}"):
        domain.raw.setInterfaceParameters(mac, both, libvirt.VIR_DOMAIN_AFFECT_LIVE)
