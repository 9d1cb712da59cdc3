"""Splits between two switches as they are in force: which wanted paths are whole, their ratios, and who takes which.

One pure reading for the controller that installs them and for everybody who asks which way traffic goes.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from math import log

from cpdb import LABELS, LAST_TAG, WantedSplit
from ryu_apps.topology.paths import Topology

Seconds = float
Ends = tuple[str, str]
# Shares of a divided pair in whole numbers. Open vSwitch hashes connections into at most 256 parts by weight; where the
# least weight is a smaller share than that, it falls back to a hash of addresses (ofproto/ofproto-dpif.c).
WEIGHTS = 64
# Where heavy pairs leave less than this, the others choose by the ratios themselves.
NO_LIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class SplitPath:
    """One path of a split: the switches on it, the tag of its packets, and its share (the shares add up to 1).

    `light`: of that, the share of pairs that are placed by number; `heavy`: its share of each pair that is placed by
    what it carries, by the names of its ends. Two are equal when tag and path are, whatever their shares.
    """

    tag: int
    hops: tuple[str, ...]
    ratio: float = field(default=1.0, compare=False)
    light: float = field(default=-1.0, compare=False)
    heavy: Mapping[Ends, float] = field(default_factory=dict, compare=False)

    @property
    def weight(self) -> float:
        """By which pairs choose it that are not heavy."""
        return self.ratio if self.light < 0 else self.light


# How traffic is spread: paths with shares that add up to 1. One for a whole pair; none for the shortest way
Spread = tuple[tuple[SplitPath, float], ...]
SplitPaths = Mapping[Ends, tuple[SplitPath, ...]]


def find_split_paths(
    splits: Iterable[WantedSplit],
    topology: Topology,
    now: Seconds,
    taken: Iterable[SplitPath] = (),
    avoid: Container[str] = (),
) -> dict[Ends, tuple[SplitPath, ...]]:
    """The splits in force at `now` by (first switch, last switch).

    Paths with a link that is down or unknown, or with a switch to `avoid`, are left out and the others take their
    share; where none is left there is no split, and traffic goes the shortest way. A path whose tag another one already
    carries on the same link (or one of `taken`, which are still in use) is left out, too: packets of both would be
    taken for each other.
    """
    claims = {(one.tag, hop): one.hops for one in taken for hop in pairwise(one.hops)}
    found = {}
    for split in sorted(splits, key=lambda one: (one.from_switch, one.to_switch)):
        if split.expires_at is not None and split.expires_at <= now:
            continue
        whole = []
        for hops, ratio, tag in zip(split.paths, split.ratios, split.tags, strict=False):
            usable = ratio > 0 and _leads(split, hops) and is_whole(hops, topology, avoid)
            if usable and _claimed(claims, tag, hops):
                whole.append(_with_heavy(split, SplitPath(tag, hops, ratio)))
        total, light = sum(one.ratio for one in whole), sum(one.light for one in whole)
        if whole:
            ends = split.from_switch, split.to_switch
            scaled = [replace(one, ratio=one.ratio / total) for one in whole]
            found[ends] = tuple(
                replace(one, light=one.light / light if light > NO_LIGHT else one.ratio) for one in scaled
            )
    return found


def _with_heavy(split: WantedSplit, path: SplitPath) -> SplitPath:
    place = split.paths.index(path.hops)
    own = [(one, one.ratios[place]) for one in split.heavy if len(one.ratios) == len(split.paths)]
    light = max(path.ratio - sum(one.share * ratio for one, ratio in own), 0.0)
    return replace(path, light=light, heavy={(one.source, one.destination): ratio for one, ratio in own if ratio > 0})


def _leads(split: WantedSplit, hops: tuple[str, ...]) -> bool:
    simple = len(hops) >= 2 and len(set(hops)) == len(hops)
    return simple and (hops[0], hops[-1]) == (split.from_switch, split.to_switch)


def _claimed(claims: dict[tuple[int, Ends], tuple[str, ...]], tag: int, hops: tuple[str, ...]) -> bool:
    wanted = [(tag, hop) for hop in pairwise(hops)]
    if not LABELS <= tag <= LAST_TAG or any(claims.get(one, hops) != hops for one in wanted):
        return False
    claims.update(dict.fromkeys(wanted, hops))
    return True


def is_whole(hops: tuple[str, ...], topology: Topology, avoid: Container[str] = ()) -> bool:
    """Whether all links of a path are up, and none of its switches is to be avoided."""
    try:
        return not any(one in avoid for one in hops) and all(topology.port(*hop) > 0 for hop in pairwise(hops))
    except KeyError:
        return False


def choose_path(source_address: str, destination_address: str, choices: Iterable[SplitPath]) -> SplitPath | None:
    """The path of the traffic from one address to another; None when there is no choice.

    Weighted rendezvous hashing, as for destinations: shares are met over many pairs, and a change of one share moves
    only traffic to or from that path.
    """
    scored = [
        (-one.weight / log(_uniform(source_address, destination_address, *one.hops)), one.hops, one) for one in choices
    ]
    return max(scored)[2] if scored else None


def spread_over(names: Ends, addresses: Ends, choices: Sequence[SplitPath]) -> Spread:
    """How traffic between two nodes is spread: as wanted of a heavy pair, else over the one path that it chooses."""
    own = [(one, one.heavy.get(names, 0.0)) for one in choices]
    total = sum(share for _, share in own)
    if total > 0:
        return tuple((one, share / total) for one, share in own if share > 0)
    chosen = choose_path(*addresses, choices)
    return ((chosen, 1.0),) if chosen else ()


def _uniform(*parts: str) -> float:
    number = int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big")
    return (number + 0.5) / 2**64


@dataclass(frozen=True, slots=True)
class Routed:
    """Paths as traffic to a virtual IP's destination takes them: along the splits in force, else the shortest way."""

    topology: Topology
    splits: SplitPaths
    # Names of nodes -> addresses; a name without an address stands for itself
    addresses: Mapping[str, str | None]

    def path(self, source: str, destination: str) -> tuple[str, ...]:
        """Names of all nodes from `source` to `destination`, both included; empty when there is no way."""
        nodes = self.topology.path(source, destination)
        ends = self.ends(nodes)
        split = self.split_path(source, destination, ends) if ends else None
        if split is None or ends is None:
            return nodes
        return (*nodes[: nodes.index(ends[0])], *split.hops, *nodes[nodes.index(ends[1]) + 1 :])

    def ends(self, nodes: tuple[str, ...]) -> Ends | None:
        """The first and the last switch on a path; None where there are not two."""
        inside = [node for node in nodes if node in self.topology.switches]
        return (inside[0], inside[-1]) if len(inside) > 1 else None

    def split_path(self, source: str, destination: str, ends: Ends) -> SplitPath | None:
        """The path of a split that most of this traffic takes between two switches; None where no split is in force."""
        spread = self.spread(source, destination, ends)
        return max(spread, key=lambda one: one[1])[0] if spread else None

    def spread(self, source: str, destination: str, ends: Ends) -> Spread:
        """How this traffic is spread between two switches; empty where no split is in force."""
        sender, receiver = (self.addresses.get(name) or name for name in (source, destination))
        return spread_over((source, destination), (sender, receiver), self.splits.get(ends, ()))
