"""Flow statistics as a switch sends them: the fast decoder beside the framework's own, on the same bytes."""

import struct
from typing import Any

from bench.figures import Result, Size, Target, cpu_s, median

ENTRIES = 2000
LEAST_TIMES_FASTER = 10.0
HEAD = struct.Struct("!HBxIIHHHH4xQQQ")


def measure(size: Size) -> Result:
    """Entries decoded per CPU second, counters and cookie read from each."""
    from ryu_apps.framework import LazyFlowStats, parser

    entries = size.of(ENTRIES)
    buffer = flow_statistics(entries)
    ours = entries / _decode(LazyFlowStats, buffer, size.repetitions)
    theirs = entries / _decode(parser.OFPFlowStats, buffer, size.repetitions)
    figures = {"forepath_entries_per_cpu_s": ours, "ryu_entries_per_cpu_s": theirs, "times_faster": ours / theirs}
    name = "flow statistics, times faster than Ryu's parser"
    return Result(figures, [Target(name, ours / theirs, LEAST_TIMES_FASTER, "higher")])


def _decode(decoder: Any, buffer: bytes, repetitions: int) -> float:
    def work() -> None:
        at = 0
        while at < len(buffer):
            entry = decoder.parser(buffer, at)
            if entry.cookie == 0 or entry.byte_count < 0 or entry.packet_count < 0:
                raise ValueError("an entry was decoded wrongly")
            at += entry.length

    return max(median(cpu_s(work) for _ in range(repetitions)), 1e-6)


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
