"""Chooses the destination behind a virtual IP: weighted, without memory, and moving as few pairs as possible."""

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from math import log

from cpdb import Destination, VirtualIp, WantedWeights


def choose(source: str, virtual_ip: str, destinations: Iterable[Destination]) -> Destination | None:
    """The destination of (source, virtual IP), None when no weight is above 0.

    Weighted rendezvous hashing: each destination's share of sources is its share of the weights, and a change
    of one weight moves only sources to or from that destination (Thaler & Ravishankar, 1998; weights as in
    Schindelhauer & Schomaker, 2005: score = -weight / ln(hash)).
    """
    scored = [
        (-one.weight / log(_uniform(source, virtual_ip, one.name)), one.name, one)
        for one in destinations
        if one.weight > 0
    ]
    return max(scored)[2] if scored else None


def _uniform(*parts: str) -> float:
    number = int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big")
    return (number + 0.5) / 2**64


def weighted(virtual_ip: VirtualIp, wanted: Iterable[WantedWeights]) -> VirtualIp:
    """The virtual IP with the weights that are wanted instead of the declared ones, where there are any."""
    for item in wanted:
        if item.virtual_ip == virtual_ip.address:
            destinations = tuple(
                replace(one, weight=max(0, int(item.weights.get(one.name, one.weight))))
                for one in virtual_ip.destinations
            )
            return replace(virtual_ip, destinations=destinations)
    return virtual_ip
