"""Which machine answers which pair: chosen as the controller chooses, kept while the pair speaks."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.whatif.records import Flags
from backtest.whatif.shares import Crossings
from backtest.whatif.wiring import FlowTable, Wiring
from cpdb import Destination, Node, Pair, Seconds
from ryu_apps import ControllerSection, choose

Path = Callable[[str, str], tuple[str, ...]]
# As the controller by default: only after so much silence do changed weights move a pair.
IDLE_S = ControllerSection().pairs.idle_s


@dataclass(slots=True)
class Served:
    """Where a pair's traffic goes: machine -> share, chosen from these destinations; `active`: when it last spoke."""

    shares: Mapping[str, float] = field(default_factory=dict)
    chosen_from: tuple[Destination, ...] | None = None
    active: Seconds = -np.inf


@dataclass(slots=True)
class Steering:
    """Destinations of pairs. `nodes` are sources, by name; that stands for one without an address of the family."""

    pairs: Sequence[Pair]
    nodes: Mapping[str, Node]
    served: list[Served] = field(init=False)
    # What all pairs have been chosen from, None while some wait for silence
    _settled: Mapping[str, tuple[Destination, ...]] | None = None

    def __post_init__(self) -> None:
        self.served = [Served() for _ in self.pairs]

    def note_speech(self, spoke: Flags, now: Seconds) -> None:
        """Pairs that have just said something."""
        for number in np.flatnonzero(spoke).tolist():
            self.served[number].active = now

    def steer(
        self, serving: Mapping[str, tuple[Destination, ...]], by_connection: Collection[str], now: Seconds
    ) -> bool:
        """Chooses anew where that hurts nobody; True when something has changed.

        `serving` is by virtual IP; whoever gets nothing new has weight 0 there, and keeps those that speak.
        """
        if serving == self._settled:
            return False
        changed, waits = False, False
        for pair, place in zip(self.pairs, self.served, strict=True):
            among = serving.get(pair.virtual_ip, ())
            if place.chosen_from == among:
                continue
            single = pair.virtual_ip not in by_connection
            keeps = single and any(one.name in place.shares for one in among)
            if keeps and now - place.active <= IDLE_S:
                waits = True
                continue
            before, place.chosen_from = place.shares, among
            place.shares = self._chosen(pair, among) if single else _by_weight(among)
            changed = changed or before != place.shares
        self._settled = None if waits else dict(serving)
        return changed

    def _chosen(self, pair: Pair, among: Iterable[Destination]) -> dict[str, float]:
        node = self.nodes.get(pair.source)
        address = node.address_towards(pair.virtual_ip) if node else None
        found = choose(address or pair.source, pair.virtual_ip, among)
        return {found.name: 1.0} if found else {}

    def flow_table(self, wiring: Wiring, path: Path, machines: Sequence[str], silent: Collection[str]) -> FlowTable:
        """The ways of all pairs; nobody answers for the machines that are `silent`.

        A destination that is no machine of ours has the number after the last.
        """
        numbers = {name: number for number, name in enumerate(machines)}
        rows: list[tuple[int, int, float]] = []
        reached, ways = [], []
        for number, (pair, place) in enumerate(zip(self.pairs, self.served, strict=True)):
            for name, share in place.shares.items():
                nodes = path(pair.source, name)
                reached.append(name not in silent and bool(nodes))
                ways.append(wiring.hops(nodes))
                rows.append((number, numbers.get(name, len(machines)), share))
        pairs, vms, shares = zip(*rows, strict=True) if rows else ((), (), ())
        return FlowTable(
            np.array(pairs, dtype=np.int64),
            np.array(vms, dtype=np.int64),
            np.array(shares, dtype=np.float64),
            np.array(reached, dtype=bool),
            Crossings.of(ways),
        )


def _by_weight(among: Iterable[Destination]) -> dict[str, float]:
    items = [one for one in among if one.weight > 0]
    total = sum(one.weight for one in items)
    return {one.name: one.weight / total for one in items}
