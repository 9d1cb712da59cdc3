"""Divides the slots of a virtual IP among its destinations, moves as few as possible, and says it in few rules."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# A hash of each new connection picks one of so many slots. Equal weights then differ by one slot in a thousand.
SLOT_BITS = 10
SLOTS = 1 << SLOT_BITS

Table = tuple[str | None, ...]


class Prefix(NamedTuple):
    """Slots whose upper `length` bits are those of `first` belong to `owner`; the longest prefix decides."""

    first: int
    length: int
    owner: str


def quotas(weights: Mapping[str, int], slots: int = SLOTS) -> dict[str, int]:
    """How many slots each weight is worth: largest remainders, so each is within one slot of its exact share.

    Empty when no weight is above 0.
    """
    total = sum(weight for weight in weights.values() if weight > 0)
    exact = {name: slots * weight / total for name, weight in sorted(weights.items()) if weight > 0}
    found = {name: int(share) for name, share in exact.items()}
    rest = slots - sum(found.values())
    for name in sorted(exact, key=lambda name: (found[name] - exact[name], name))[: max(0, rest)]:
        found[name] += 1
    return found


def divide(weights: Mapping[str, int], before: Sequence[str | None] = ()) -> Table:
    """A slot table for these weights; of the table `before`, only what a destination has too much moves.

    All None when no weight is above 0. Whole aligned blocks move first: they take fewer rules.
    """
    quota = quotas(weights)
    table: list[str | None] = list(before) if len(before) == SLOTS else [None] * SLOTS
    if not quota:
        return (None,) * SLOTS
    held = Counter(table)
    surplus = {name: count - quota.get(name or "", 0) for name, count in held.items()}
    lack = {name: count - held[name] for name, count in quota.items() if count > held[name]}
    for bits in range(SLOT_BITS, -1, -1):
        # Beside blocks of the taker's own first: two halves of one owner take one rule.
        for beside in (True, False):
            _move_blocks(table, 1 << bits, surplus, lack, beside)
    return tuple(table)


def _move_blocks(
    table: list[str | None], size: int, surplus: dict[str | None, int], lack: dict[str, int], beside: bool
) -> None:
    """Moves aligned blocks of this size from who has too much to who lacks some, as long as that fits both."""
    for first in range(0, SLOTS, size):
        if not lack:
            return
        owner = table[first]
        if surplus.get(owner, 0) < size or not _whole(table, first, size):
            continue
        taker = _neighbour(table, first, size) if beside else max(lack, key=lambda name: (lack[name], name))
        if taker is None or lack.get(taker, 0) < size:
            continue
        table[first : first + size] = [taker] * size
        surplus[owner] -= size
        lack[taker] -= size
        if not lack[taker]:
            del lack[taker]


def _whole(table: Sequence[str | None], first: int, size: int) -> bool:
    return all(one == table[first] for one in table[first : first + size])


def _neighbour(table: Sequence[str | None], first: int, size: int) -> str | None:
    """Who has the other half of the block that is twice as large; None when nobody has all of it."""
    other = first ^ size
    return table[other] if other < SLOTS and _whole(table, other, size) else None


def compress(table: Sequence[str | None]) -> list[Prefix]:
    """The fewest prefixes that say the same as the table; [] for one without owners.

    Draves, King, Venkatachary and Zill, Constructing Optimal IP Routing Tables (INFOCOM 1999): upwards, each node
    takes the owners that both halves agree on, else all of them; downwards, a prefix is written where the one above
    does not say the right thing yet.
    """
    if any(owner is None for owner in table):
        return []
    levels = [[frozenset((owner,)) for owner in table]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([below[n] & below[n + 1] or below[n] | below[n + 1] for n in range(0, len(below), 2)])
    found: list[Prefix] = []
    _write(levels[::-1], 0, 0, None, found)
    return found


def _write(
    levels: list[list[frozenset[str | None]]], depth: int, place: int, above: str | None, found: list[Prefix]
) -> None:
    here = levels[depth][place]
    if above not in here:
        above = min(one for one in here if one is not None)
        found.append(Prefix(place << (len(levels) - 1 - depth), depth, above))
    if depth + 1 < len(levels):
        for half in (2 * place, 2 * place + 1):
            _write(levels, depth + 1, half, above, found)


def expand(prefixes: Iterable[Prefix]) -> Table:
    """The table that prefixes describe, the inverse of `compress`; None where they say nothing."""
    table: list[str | None] = [None] * SLOTS
    for one in sorted(prefixes, key=lambda one: one.length):
        size = SLOTS >> one.length
        first = one.first - one.first % max(size, 1)
        table[first : first + size] = [one.owner or None] * len(table[first : first + size])
    return tuple(table)
