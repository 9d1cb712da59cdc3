"""What the controller computes when everything changes at once: all rules of all switches, and their differences."""

from cpdb import Link
from ryu_apps import Attachment, Holding, Rewrite, Share, Topology, desired, difference
from tools.bench.figures import BenchTarget, Result, Size, cpu_s, median

SWITCHES, HOSTS, SPINES = 20, 200, 2
VIRTUAL_IPS = tuple(f"10.9.255.{n}" for n in range(1, 5))
LIMIT_S = 1.0


def measure(size: Size) -> Result:
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
    return Share(VIRTUAL_IPS, ports, tuple(accounts), tuple(towards), tuple(towards))
