"""What the controller computes: statistics decoded beside Ryu's parser, all rules made anew."""

import struct
from collections.abc import Callable

from cpdb import Link
from ryu_apps import Attachment, Holding, PairShare, Rewrite, Share, Topology, desired, difference
from tools.bench.figures import BenchTarget, Result, Size, cpu_s, median

ENTRIES = 2000
# One round of ours alone is too short for the clock.
ROUNDS = 20
LEAST_TIMES_FASTER = 50.0
HEAD = struct.Struct("!HBxIIHHHH4xQQQ")


def measure_decoding(size: Size) -> Result:
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


SWITCHES, HOSTS, SPINES = 20, 200, 2
VIRTUAL_IPS = tuple(f"10.9.255.{n}" for n in range(1, 5))
LIMIT_S = 1.0


def measure_rules(size: Size) -> Result:
    """CPU for 20 switches and 200 hosts that each talk to a virtual IP: from nothing, and again with no change."""
    switches, hosts = max(4, size.of(SWITCHES)), size.of(HOSTS)
    fresh, unchanged, rules = [], [], 0
    for _ in range(size.repetitions):
        holdings = [Holding() for _ in range(switches)]
        fresh.append(cpu_s(lambda held=holdings: _reconcile(held, hosts)))  # type: ignore[misc]
        unchanged.append(cpu_s(lambda held=holdings: _reconcile(held, hosts)))  # type: ignore[misc]
        rules = sum(len(one.rules) for one in holdings)
    figures = {"from_nothing_cpu_s": median(fresh), "no_change_cpu_s": median(unchanged), "rules": float(rules)}
    name = f"rules of {SWITCHES} switches with {HOSTS} hosts, CPU s"
    return Result(figures, [BenchTarget(name, figures["from_nothing_cpu_s"], LIMIT_S, "lower")])


def _mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def _address(number: int) -> str:
    return f"10.9.{number >> 8}.{number & 255}"


def _reconcile(holdings: list[Holding], hosts: int) -> None:
    leaves = len(holdings) - SPINES
    names = [f"spine{n}" for n in range(SPINES)] + [f"leaf{n}" for n in range(leaves)]
    links = [Link(f"leaf{a}", b + 1, f"spine{b}", a + 1, None) for a in range(leaves) for b in range(SPINES)]
    places = {f"c{n}": Attachment(f"leaf{n % leaves}", 10 + n // leaves) for n in range(hosts)}
    topology = Topology(links, places)
    for holding, switch in zip(holdings, names, strict=True):
        want = desired(_share(topology, switch, places), {})
        holding.apply(difference(holding, want))


def _share(topology: Topology, switch: str, places: dict[str, Attachment]) -> Share:
    ports, towards, accounts = {}, [], []
    for number, place in enumerate(places.values()):
        if place.switch == switch:
            vip, to = VIRTUAL_IPS[number % len(VIRTUAL_IPS)], (number + 1) % len(places)
            ports[_mac(number)] = place.port
            accounts.append((_address(number), vip))
            towards.append(Rewrite(_address(number), vip, _address(to), _mac(to)))
        else:
            ports[_mac(number)] = topology.port(switch, topology.next_hops(place.switch)[switch])
    return Share(VIRTUAL_IPS, ports, PairShare(tuple(accounts), tuple(towards), tuple(towards)))
