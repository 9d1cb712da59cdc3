"""Flow statistics as a switch sends them: the fast decoder beside the framework's own, on the same bytes."""

import struct
from collections.abc import Callable

from tools.bench.figures import BenchTarget, Result, Size, cpu_s, median

ENTRIES = 2000
# One round of ours alone is too short for the clock.
ROUNDS = 20
LEAST_TIMES_FASTER = 50.0
HEAD = struct.Struct("!HBxIIHHHH4xQQQ")


def measure(size: Size) -> Result:
    """Entries decoded per CPU second, cookie and counters of each; ours checks every nested length as well."""
    from ryu_apps.framework import parser
    from ryu_apps.openflow import decode_flow_stats

    entries = size.of(ENTRIES)
    buffer = flow_statistics(entries)

    def theirs() -> None:
        at = 0
        while at < len(buffer):
            at += parser.OFPFlowStats.parser(buffer, at).length

    ours_per_s = ROUNDS * entries / _cpu(lambda: [decode_flow_stats(buffer) for _ in range(ROUNDS)], size)
    theirs_per_s = entries / _cpu(theirs, size)
    times = ours_per_s / theirs_per_s
    figures = {"forepath_entries_per_cpu_s": ours_per_s, "ryu_entries_per_cpu_s": theirs_per_s, "times_faster": times}
    name = "flow statistics, times faster than Ryu's parser"
    return Result(figures, [BenchTarget(name, times, LEAST_TIMES_FASTER, "higher")])


def _cpu(work: Callable[[], object], size: Size) -> float:
    return max(median(cpu_s(work) for _ in range(size.repetitions)), 1e-6)


def flow_statistics(entries: int) -> bytes:
    """The bodies of a statistics reply as Open vSwitch sends it: an address match and one instruction each."""
    from ryu_apps.framework import parser

    buffer = bytearray()
    for number in range(entries):
        match = parser.OFPMatch(eth_type=0x0800, ipv4_src=f"10.1.{number >> 8}.{number & 255}", ipv4_dst="10.9.9.9")
        body = bytearray()
        match.serialize(body, 0)
        parser.OFPInstructionGotoTable(1).serialize(body, len(body))
        length = HEAD.size + len(body)
        # length, table, age (s, ns), priority, two timeouts, flags, cookie, packets, bytes; OpenFlow 1.3.5, 7.3.5.2
        buffer += HEAD.pack(length, 0, number, 5, 20, 0, 0, 0, number + 1, number, 1000 * number) + body
    return bytes(buffer)
