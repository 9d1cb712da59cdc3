"""Estimates a live migration before it is begun: how long it copies, how often, and for how long the guest stops."""

from dataclasses import dataclass

from cpdb import BytesPerS, Seconds

# QEMU stops the guest when what is left can be sent within this time.
DOWNTIME_S = 0.3
MOST_ROUNDS = 30
# A guest of unknown habits is taken to write at half the speed of the copy: twice its memory is sent.
UNKNOWN_SHARE = 0.5
# So many rounds show that it gets nowhere; then a copy that may is switched to post-copy.
LOST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PreCopy:
    """`converges`: the guest need not be stopped for longer than is allowed. The rest says what it takes till then.

    `bytes_per_s` is what the copy may take from the network.
    """

    converges: bool
    rounds: int
    bytes_sent: float
    total_s: Seconds
    downtime_s: Seconds
    bytes_per_s: BytesPerS = 0.0


def pre_copy(
    memory_bytes: float,
    dirty_bytes_per_s: BytesPerS | None,
    bytes_per_s: BytesPerS,
    downtime_s: Seconds = DOWNTIME_S,
) -> PreCopy:
    """Copies all memory, then again and again what was written meanwhile, until the rest fits into the downtime.

    Never more than the memory is written anew in a round. Clark et al., Live Migration of Virtual Machines, NSDI 2005;
    the sum of rounds as in Liu et al., Performance and Energy Modeling for Live Migration, HPDC 2011.
    """
    if bytes_per_s <= 0:
        return PreCopy(False, 0, 0.0, float("inf"), float("inf"))
    dirty = UNKNOWN_SHARE * bytes_per_s if dirty_bytes_per_s is None else dirty_bytes_per_s
    left, sent, rounds = float(memory_bytes), 0.0, 0
    while left > downtime_s * bytes_per_s and rounds < MOST_ROUNDS:
        sent += left
        left = min(float(memory_bytes), dirty * left / bytes_per_s)
        rounds += 1
    stop_s = left / bytes_per_s
    return PreCopy(stop_s <= downtime_s, rounds, sent + left, (sent + left) / bytes_per_s, stop_s, bytes_per_s)


def post_copy(memory_bytes: float, dirty_bytes_per_s: BytesPerS, bytes_per_s: BytesPerS) -> PreCopy:
    """The same for a guest that writes faster than it can be copied, and may run on the other host before all is there.

    All memory once, some rounds in vain, and at most all memory once more after the switch: an upper bound.
    """
    in_vain = LOST_ROUNDS * min(memory_bytes, dirty_bytes_per_s * memory_bytes / bytes_per_s)
    sent = 2 * memory_bytes + in_vain
    return PreCopy(True, 1 + LOST_ROUNDS, sent, sent / bytes_per_s, DOWNTIME_S, bytes_per_s)
