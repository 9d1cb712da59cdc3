"""The slots of every virtual IP with connection affinity: kept from change to change, so that few slots move."""

from collections.abc import Iterable, Iterator, Mapping

from cpdb import VirtualIp
from ryu_apps.pairs import BY_CONNECTION
from ryu_apps.rules import Choose, Kind, Rule, Table, kind_of
from ryu_apps.virtual_ips.slots import Prefix, divide, expand
from ryu_apps.virtual_ips.slots import Table as SlotTable
from ryu_apps.virtual_ips.spread import Spread, destination_number


class Spreads:
    """The spreads by virtual IP; only what changed is made anew."""

    def __init__(self) -> None:
        self._spreads: dict[str, Spread] = {}
        self._adopted: set[str] = set()

    def __iter__(self) -> Iterator[Spread]:
        return iter(self._spreads.values())

    def __len__(self) -> int:
        return len(self._spreads)

    def of(self, virtual_ip: str) -> Spread | None:
        """The spread of a virtual IP."""
        return self._spreads.get(virtual_ip)

    def update(self, virtual_ips: Mapping[str, VirtualIp]) -> bool:
        """Divides slots by the weights of now; True when anything changed."""
        before = self._spreads
        self._spreads = {
            address: self._kept(one) for address, one in virtual_ips.items() if one.affinity == BY_CONNECTION
        }
        return len(before) != len(self._spreads) or any(
            before.get(address) is not one for address, one in self._spreads.items()
        )

    def _kept(self, vip: VirtualIp) -> Spread:
        known = self._spreads.get(vip.address)
        if known is not None and known.destinations == vip.destinations:
            return known
        return _divided(vip, known.slots if known is not None else ())

    def adopt(self, rules: Iterable[Rule], virtual_ips: Mapping[str, VirtualIp]) -> None:
        """Takes over the slots that the first switch to show any has, so that a restart moves none."""
        found: dict[str, list[Rule]] = {}
        for rule in rules:
            if rule.table == Table.SLOTS and kind_of(rule.cookie) is Kind.SPREAD and rule.match.ipv4_dst:
                found.setdefault(rule.match.ipv4_dst, []).append(rule)
        for address in found.keys() & self._spreads.keys() - self._adopted:
            vip = virtual_ips[address]
            self._adopted.add(address)
            self._spreads[address] = _divided(vip, expand(_prefixes(vip, found[address])))


def _divided(vip: VirtualIp, before: SlotTable) -> Spread:
    return Spread(vip.address, vip.destinations, divide({one.name: one.weight for one in vip.destinations}, before))


def _prefixes(vip: VirtualIp, rules: Iterable[Rule]) -> Iterator[Prefix]:
    names = {destination_number(vip.address, one.name): one.name for one in vip.destinations}
    for rule in rules:
        chosen = next((one.number for one in rule.actions if isinstance(one, Choose)), 0)
        yield Prefix(rule.match.slot[0] if rule.match.slot else 0, rule.priority - 1, names.get(chosen, ""))
