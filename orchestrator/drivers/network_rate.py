"""What a machine's interfaces may send and receive at most, set and read back."""

import contextlib
from xml.etree import ElementTree

from cpdb import BytesPerS, DriverError
from orchestrator.drivers.domain import Domain, reported

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
