"""What is declared, wanted and reported of virtual IPs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cpdb import DestinationHealth, HealthStatus, ObservedRecord, Store, VirtualIp, read_health


@dataclass(frozen=True, slots=True)
class DeclaredState:
    """What is declared, wanted and reported of virtual IPs; `spread` are the shares by which connections are placed."""

    virtual_ips: Mapping[str, VirtualIp]
    weights: Mapping[str, Mapping[str, int]]
    observed: tuple[ObservedRecord, ...]
    health: Mapping[str, Mapping[str, DestinationHealth]]
    spread: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, store: Store) -> "DeclaredState":
        """As it is now. Raises StoreError."""
        vips = {vip.address: vip for vip in store.inventory.virtual_ips()}
        observed = tuple(store.wanted.observed())
        weights = {one.virtual_ip: one.weights for one in store.wanted.weights()}
        health = read_health(observed)
        spread = {
            one.address: one.shares(weights.get(one.address, {}), _before_they_fell(health.get(one.address, {})))
            for one in vips.values()
            if one.by_connection
        }
        return cls(vips, weights, observed, health, spread)

    def first(self, virtual_ip: str) -> str | None:
        """The first destination that gets new connections."""
        vip = self.virtual_ips.get(virtual_ip)
        able = vip.eligible(self.weights.get(virtual_ip, {}), self.health.get(virtual_ip, {})) if vip else ()
        return able[0].name if able else None


def _before_they_fell(health: Mapping[str, DestinationHealth]) -> dict[str, DestinationHealth]:
    """As if everyone answered: the past is learnt from, and most of it is from before a destination went down."""
    return {
        name: replace(item, status=HealthStatus.UNKNOWN) if item.status is HealthStatus.DOWN else item
        for name, item in health.items()
    }
