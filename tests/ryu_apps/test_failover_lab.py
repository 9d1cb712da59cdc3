"""Real Open vSwitch: links that fail under load, a controller that dies and comes back, and what switches refuse."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_lab import ADDRESS, LAYOUT, VIP, Net, eventually, network

from cpdb import Limit, Pair, Reservation

pytestmark = pytest.mark.lab
STREAM = (sys.executable, str(Path(__file__).with_name("stream.py")))
RAW = (sys.executable, str(Path(__file__).with_name("raw.py")))
FOREIGN = (
    "cookie=0x77,table=3,priority=1,udp,tp_dst=4242,actions=drop",
    "cookie=0x78,table=0,priority=7,in_port=99,actions=drop",
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A network whose controller has found everybody, and knows that a switch holds one meter at most."""
    with network(tmp_path_factory.mktemp("failover")) as made:
        made.controller()
        assert eventually(lambda: all(made.pings("c1", ADDRESS[name]) for name in ("s1", "s2", "c2")), 30), made.log()
        assert eventually(lambda: made.pings("c1", VIP), 30), made.log()
        yield made


def ofctl(*words: str) -> str:
    argv = ["ovs-ofctl", "-O", "OpenFlow13", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout


def rules(switch: str) -> dict[str, str]:
    """Our rules: what they match and their cookie -> what they do; without counters and times."""
    found = {}
    for line in ofctl("dump-flows", switch).splitlines():
        if "cookie=0xf0ea" in line:
            cookie, table = re.findall(r"cookie=(\w+)|table=(\d+)", line)
            rest = line.split("priority=", 1)[1]
            match, does = rest.split(" actions=", 1)
            found[f"{cookie[0]}/{table[1]}/{match}"] = does
    return found


def first_port(switch: str, client: str) -> int:
    """The port through which a switch sends to a client as long as it is up."""
    mac = LAYOUT.client(client).mac
    line = next(line for line in ofctl("dump-flows", switch, "table=3").splitlines() if f"dl_dst={mac}" in line)
    group = re.search(r"group:(\d+)", line)
    if group is not None:
        return int(group.group(1)) >> 12 & 0xFFF
    plain = re.search(r"output:\"?(?:[\w-]*eth)?(\d+)", line)
    assert plain is not None, line
    return int(plain.group(1))


def link(device: str, state: str) -> None:
    subprocess.run(["ip", "link", "set", device, state], check=True, timeout=10)


def outage(net: Net, device: str, seconds: float = 4.0) -> tuple[int, float]:
    """How many datagrams of a stream from c1 to s1 arrived while a link went down, and the longest gap in seconds."""
    with net.background("s1", *STREAM, "receive", "0.0.0.0", "9", str(seconds)) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline()
        with net.background("c1", *STREAM, "send", ADDRESS["s1"], "9", str(seconds + 1)):
            assert sink.stdout.readline() == "begun\n"
            time.sleep(seconds / 2)
            link(device, "down")
            try:
                count, gap, _ = sink.stdout.readline().split()
            finally:
                link(device, "up")
    return int(count), float(gap)


def test_a_failed_link_near_or_far_costs_less_than_a_second(net: Net) -> None:
    near = f"leaf1-eth{first_port('leaf1', 's1')}"
    assert "group:" in ofctl("dump-flows", "leaf1", "table=3")
    count, gap = outage(net, near)
    assert count > 1000
    assert gap < 1.0
    assert eventually(lambda: net.pings("c1", ADDRESS["s1"]) and "LINK_DOWN" not in ports("leaf1"))
    # The other end of the way: the spine has no other way, and the controller has to move the leaf.
    far = f"leaf2-eth{first_port('leaf1', 's1')}"
    count, gap = outage(net, far)
    assert count > 1000
    assert gap < 1.0
    assert eventually(lambda: net.pings("c1", ADDRESS["s1"]) and "LINK_DOWN" not in ports("leaf2"))


def ports(switch: str) -> str:
    # The switch's own local port is never up here.
    return ofctl("dump-ports-desc", switch).split("LOCAL(")[0]


def test_what_a_switch_refuses_is_told_with_its_reason_and_set_right(net: Net) -> None:
    # Somebody else's, but with the number that we would take next, and a group of theirs.
    taken = re.findall(r"meter[=:](\d+)", ofctl("dump-meters", "leaf1"))
    free = max((int(number) for number in taken), default=59_999) + 1
    ofctl("add-meter", "leaf1", f"meter={free},kbps,burst,stats,bands=type=drop,rate=5000,burst_size=500")
    ofctl("add-group", "leaf1", "group_id=1,type=all")
    now = time.time()
    limits = (Limit(Pair("c1", VIP), 250_000.0),)
    net.store.wanted.reserve(Reservation("r", Pair("c2", VIP), 1e6, limits, "test", "a test", now, now + 30))

    def told(kind: str, words: str) -> str | None:
        rows = [one.to_row() for one in net.store.wanted.observed()]
        return next((row.status for row in rows if row.kind == kind and re.search(words, row.key)), None)

    assert eventually(lambda: told("reservation", "r") == "installed"), net.log()
    assert eventually(lambda: told("switch error", "add meter: .*METER_EXISTS") == "counted"), net.log()
    assert "rate=2000" in ofctl("dump-meters", "leaf1")
    assert "group_id=1," in ofctl("dump-groups", "leaf1")
    net.store.wanted.clear(time.time())


def test_forged_and_relayed_lldp_makes_no_link_and_raises_alarms(net: Net) -> None:
    links = {(one.a, one.b) for one in net.store.inventory.links()}
    frame = net.run("c1", *RAW, "hear", device(net, "c1")).stdout.strip()
    mark = b"forepath".hex()
    assert mark in frame
    # Behind the mark are the time and the number used once, 8 bytes each; then comes the signature.
    place = frame.index(mark) + len(mark) + 32
    forged = frame[:place] + f"{int(frame[place], 16) ^ 1:x}" + frame[place + 1 :]
    net.run("c2", *RAW, "say", device(net, "c2"), forged, frame)

    def kinds() -> set[tuple[str, str]]:
        return {(one.kind, one.key) for one in net.store.alarms.open()}

    assert eventually(lambda: {("forged_lldp", "leaf1:12"), ("relayed_lldp", "leaf1:12")} <= kinds()), net.log()
    assert {(one.a, one.b) for one in net.store.inventory.links()} == links
    assert net.pings("c1", ADDRESS["s1"])
    # The port is suspect for a while; then its host counts again.
    assert eventually(lambda: net.pings("c1", ADDRESS["c2"]), 25), net.log()


def device(net: Net, client: str) -> str:
    links = net.run(client, "ip", "-o", "link").stdout.splitlines()
    return next(line.split(":")[1].strip().split("@")[0] for line in links if "LOOPBACK" not in line)


def everything() -> dict[str, dict[str, str]]:
    return {switch.name: rules(switch.name) for switch in LAYOUT.switches}


def settled() -> dict[str, dict[str, str]]:
    """All our rules once they no longer change."""
    seen: list[dict[str, dict[str, str]]] = [{}]

    def same() -> bool:
        time.sleep(1.5)
        seen.append(everything())
        return seen[-1] == seen[-2]

    assert eventually(same, 20)
    return seen[-1]


def different(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> dict[tuple[str, str], object]:
    """(switch, rule) -> what it does here and there, where that is not the same."""
    places = {(switch, rule) for held in (one, other) for switch, own in held.items() for rule in own}
    pairs = {(switch, rule): (one[switch].get(rule), other[switch].get(rule)) for switch, rule in places}
    return {place: both for place, both in pairs.items() if both[0] != both[1]}


def test_without_controller_a_switch_turns_by_itself_and_a_new_one_finds_all_as_it_was(net: Net) -> None:
    for rule in FOREIGN:
        ofctl("add-flow", "leaf1", rule)
    assert eventually(lambda: all(net.pings("c1", ADDRESS[name]) for name in ("s1", "s2", "c2")), 30), net.log()
    assert net.pings("c1", VIP)
    before = settled()
    groups = {switch.name: ofctl("dump-groups", switch.name) for switch in LAYOUT.switches}
    net.kill_controller()
    count, gap = outage(net, f"leaf1-eth{first_port('leaf1', 's1')}")
    assert count > 1000
    assert gap < 1.0
    start = time.monotonic()
    net.controller()
    assert eventually(lambda: net.log().count("switch connected") >= 2 * len(LAYOUT.switches), 30), net.log()
    # Until it has read everything, heard of everybody, and its grace is over.
    time.sleep(6.0)
    assert net.pings("c1", VIP)
    eventually(lambda: everything() == before, 15)
    assert different(before, everything()) == {}
    assert {switch.name: sorted(ofctl("dump-groups", switch.name).splitlines()[1:]) for switch in LAYOUT.switches} == {
        name: sorted(text.splitlines()[1:]) for name, text in groups.items()
    }
    foreign = [line for line in ofctl("dump-flows", "leaf1").splitlines() if re.search(r"cookie=0x7[78],", line)]
    ages = [float(found.group(1)) for line in foreign if (found := re.search(r"duration=([\d.]+)s", line))]
    assert len(ages) == len(FOREIGN)
    assert min(ages) > time.monotonic() - start
