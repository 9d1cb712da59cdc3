"""Where hosts are: learnt from their own frames on edge ports, moved as soon as they speak elsewhere."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from cpdb import is_ipv6
from ryu_apps.rules import PortId

Seconds = float
HostKey = tuple[str, int]

# How often a host that keeps speaking is marked as seen again.
REFRESH_S = 10.0
# MACs behind one port; whoever invents more there is not learnt, and everybody else stays.
MAX_AT_PORT = 4096
# IPv6 addresses of one host, the newest: it makes itself others as time passes (RFC 8981). Of IPv4 it has one.
MAX_ADDRESSES = 8


class LearnResult(Enum):
    """What a frame taught."""

    NOTHING = "nothing"
    REFRESHED = "refreshed"
    ADDRESS = "address"
    NEW = "new"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Host:
    """A host by MAC and VLAN; its `addresses`, as its frames have shown them, name the VLAN, the newest first."""

    mac: str
    addresses: tuple[str, ...]
    at: PortId
    seen: Seconds
    vlan: int = 0

    def address(self, ipv6: bool = False) -> str | None:
        """The newest one of a family."""
        return next((one for one in self.addresses if is_ipv6(one) == ipv6), None)

    def with_address(self, address: str) -> "Host":
        """With this one as its newest."""
        same = [one for one in self.addresses if is_ipv6(one) == is_ipv6(address) and one != address]
        others = tuple(one for one in self.addresses if is_ipv6(one) != is_ipv6(address))
        kept = tuple(same[: MAX_ADDRESSES - 1]) if is_ipv6(address) else ()
        return replace(self, addresses=(address, *kept, *others))


class HostTable:
    """All known hosts, by MAC and by address."""

    def __init__(self, hosts: Iterable[Host] = ()) -> None:
        # Another number whenever somebody came, went, moved or got another address
        self.revision = 0
        # Another number whenever anybody was seen, at the same place or elsewhere
        self.seen_revision = 0
        self._by_mac: dict[HostKey, Host] = {}
        self._by_address: dict[str, HostKey] = {}
        # Where a MAC was learnt last
        self._vlans: dict[str, int] = {}
        self._count: Counter[PortId] = Counter()
        # As of a revision: the only host at each port
        self._alone: tuple[int, dict[PortId, str | None]] = -1, {}
        for host in hosts:
            for address in host.addresses[::-1] or (None,):
                self.learn(host.mac, address, host.at, host.seen, host.vlan)

    def __iter__(self) -> Iterator[Host]:
        return iter(sorted(self._by_mac.values(), key=lambda host: (host.mac, host.vlan)))

    def __len__(self) -> int:
        return len(self._by_mac)

    def of_mac(self, mac: str, vlan: int | None = None) -> Host | None:
        """The host with that MAC in a VLAN, or wherever it was learnt last."""
        host = self._by_mac.get((mac, self._vlans.get(mac, 0) if vlan is None else vlan))
        return host if host is not None or vlan is None else self.of_mac(mac)

    def of_address(self, address: str) -> Host | None:
        """The host with that address (`in_vlan`)."""
        key = self._by_address.get(address)
        return self._by_mac.get(key) if key is not None else None

    def alone_at(self, at: PortId) -> str | None:
        """The MAC of the only host at a port; None where there is none, or several."""
        if self._alone[0] != self.revision:
            macs: dict[PortId, str | None] = {}
            for host in self._by_mac.values():
                macs[host.at] = None if host.at in macs else host.mac
            self._alone = self.revision, macs
        return self._alone[1].get(at)

    def learn(self, mac: str, address: str | None, at: PortId, now: Seconds, vlan: int = 0) -> LearnResult:
        """A frame of `mac` came in at an edge port. An address belongs to the MAC that claimed it last."""
        key = mac, vlan
        known = self._by_mac.get(key)
        if known is None:
            if self._count[at] >= MAX_AT_PORT:
                return LearnResult.NOTHING
            self._count[at] += 1
            self.revision += 1
            self.seen_revision += 1
            self._by_mac[key], self._vlans[mac] = Host(mac, (), at, now, vlan), vlan
            self._claim(key, address)
            return LearnResult.NEW
        moved = known.at != at
        fresh = address is not None and address not in known.addresses
        self.revision += moved or fresh
        if moved:
            self._count.subtract([known.at])
            self._count[at] += 1
        if moved or fresh or now - known.seen > REFRESH_S:
            self._by_mac[key], self._vlans[mac] = replace(known, at=at, seen=now), vlan
            self.seen_revision += 1
        if fresh:
            self._claim(key, address)
        if moved:
            return LearnResult.MOVED
        if fresh:
            return LearnResult.ADDRESS
        return LearnResult.REFRESHED if now - known.seen > REFRESH_S else LearnResult.NOTHING

    def _claim(self, key: HostKey, address: str | None) -> None:
        if address is None:
            return
        previous = self.of_address(address)
        if previous is not None and (previous.mac, previous.vlan) != key:
            left = tuple(one for one in previous.addresses if one != address)
            self._by_mac[previous.mac, previous.vlan] = replace(previous, addresses=left)
        before = self._by_mac[key]
        self._by_mac[key] = host = before.with_address(address)
        for gone in set(before.addresses) - set(host.addresses):
            self._by_address.pop(gone, None)
        self._by_address[address] = key

    def leave(self, at: PortId) -> list[Host]:
        """The port turned out to lead to a switch or went away: whoever was there has to be found anew."""
        gone = [host for host in self._by_mac.values() if host.at == at]
        self.revision += bool(gone)
        self._count.pop(at, None)
        for host in gone:
            del self._by_mac[host.mac, host.vlan]
            for address in host.addresses:
                self._by_address.pop(address, None)
        return gone
