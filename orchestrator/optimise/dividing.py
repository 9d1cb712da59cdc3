"""Places pairs on the paths of a split by what they carry, so that the split's ratios are met with few of them cut."""

from collections.abc import Sequence

import numpy as np

from orchestrator.optimise.paths import Floats

# A path may get so much more (share of the split's traffic) before a pair has to leave it, or is cut for it.
SLACK = 0.01


def place_pairs(ratios: Floats, sizes: Sequence[float], before: Sequence[Floats | None] = ()) -> list[Floats]:
    """Ratios (K each) of pairs that carry `sizes`, shares of the traffic that `ratios` (K) split; largest pairs first.

    A pair stays where it was whole `before` while there is room; else it goes whole to the path with the most room,
    and only where none has enough it is cut over as few as do: at most K - 1 pairs are (McNaughton's rule, Management
    Science 6, 1959). What is left of each path is for the pairs that are not named here.
    """
    room = ratios.astype(float)
    placed: list[Floats] = [np.zeros(len(ratios)) for _ in sizes]
    waiting = []
    for number in np.argsort(-np.asarray(sizes), kind="stable").tolist():
        known = before[number] if number < len(before) else None
        at = int(np.argmax(known)) if known is not None and np.max(known) > 1 - SLACK else -1
        if at < 0 or sizes[number] > room[at] + SLACK:
            waiting.append(number)
            continue
        placed[number][at] = 1.0
        room[at] -= sizes[number]
    for number in waiting:
        placed[number] = _cut(sizes[number], room)
        room -= sizes[number] * placed[number]
    return placed


def _cut(size: float, room: Floats) -> Floats:
    """Ratios over the paths with the most room; what none has room for goes where there was most."""
    own, left = np.zeros(len(room)), size
    most = np.argsort(-room, kind="stable").tolist()
    for at in most:
        if room[at] <= SLACK:
            break
        own[at] = left if left <= room[at] + SLACK else room[at]
        left -= own[at]
        if left <= 0:
            break
    own[most[0]] += max(left, 0.0)
    return np.asarray(own / size)
