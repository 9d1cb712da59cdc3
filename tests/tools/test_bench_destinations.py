"""Virtual IPs whose connections the switch places: at a size far too small to mean anything, but the same way."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ryu_apps import virtual_mac
from ryu_apps.topology import frames
from tools.bench.crowd import SYN, SYN_ACK, answer, opening
from tools.bench.destinations import (
    FIRST_DESTINATION,
    FIRST_SOURCE,
    DestinationScale,
    host,
    imbalance,
    measure,
    virtual_ips,
)
from tools.bench.placed import judge

PROGRAM = "import sys; from forepath.cli import main; sys.argv = ['forepath', *sys.argv[1:]]; main()"
FLAGS_AT = 47


def command(*words: str, within_s: float = 200.0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PROGRAM, "bench", "destinations", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=within_s)


def test_rules_are_counted_by_destinations_and_not_by_sources() -> None:
    result = measure(DestinationScale(vips=20, destinations=4, sources=50))
    figures = result.figures
    # Each: 2 to be known at all, its entry, its end, 4 slots, 3 x 4 destinations, 4 for answers, 2 to meet sources;
    # and of every switch four to go on from each table, one for groups that no tree carries and one for those of
    # bridges, five to listen (RARP, LLDP, ARP to all, ARP, neighbours that answer), one for sources yet to be met.
    assert figures["placing_rules_with_1_source"] == figures["placing_rules_with_all_sources"] == 20 * 26 + 12
    assert figures["counting_rules_with_all_sources"] == 2 * 50
    assert figures["host_rules_with_all_sources"] == 20 * 4 + 50
    assert figures["all_rules_where_sources_are"] == 532 + 100 + 130
    assert figures["all_rules_between"] < figures["all_rules_where_destinations_are"]
    assert all(one.met for one in result.targets), result.targets


def test_as_few_slots_move_as_can() -> None:
    result = measure(DestinationScale(vips=3, destinations=7, sources=2))
    # 1024 slots are 146 or 147 for each of seven, and 170 or 171 for each of six.
    assert result.figures["slots_moved_when_one_leaves"] in (146, 147)
    assert result.figures["slots_moved_when_one_joins"] in (146, 147)
    assert result.figures["imbalance_of_slots"] == pytest.approx(147 * 7 / 1024 - 1)
    assert all(one.met for one in result.targets)


def test_a_table_that_favours_somebody_is_uneven() -> None:
    assert imbalance([("a", "b"), ("a", "a", "a", "b")]) == pytest.approx(0.5)


def test_the_command_says_why_there_is_no_switch() -> None:
    done = command("--vips", "5", "--destinations", "2", "--sources", "3", "--no-switch", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["switch"], document["reason"]) == (None, "--no-switch")
    assert document["figures"]["virtual_ips"] == 5
    assert len(document["targets"]) == 4


def test_a_server_opens_a_connection_in_the_name_of_whoever_was_asked() -> None:
    source, server = host(FIRST_SOURCE, 7), host(FIRST_DESTINATION, 3)
    asked = opening(source, 1234, "10.64.0.1")
    assert (frames.parse(asked), asked[FLAGS_AT]) == (
        _ip(source.mac, virtual_mac("10.64.0.1"), source, "10.64.0.1"),
        SYN,
    )
    assert sum(struct.unpack("!10H", asked[14:34])) % 0xFFFF == 0
    told = answer(asked, {})
    assert told is not None
    assert frames.parse(told) == _ip(virtual_mac("10.64.0.1"), source.mac, "10.64.0.1", source)
    assert struct.unpack("!HH", told[34:38]) == (80, 1234)
    assert told[FLAGS_AT] == SYN_ACK
    # An answer is not answered, and only questions for its own addresses are.
    assert answer(told, {}) is None
    question = frames.question(server.address)
    assert answer(question, {}) is None
    reply = frames.parse(answer(question, {server.address: server}) or b"")
    assert reply is not None and reply.arp is not None
    assert (reply.arp.sender, reply.arp.sender_mac) == (server.address, server.mac)


def _ip(eth_src: str, eth_dst: str, source: Any, to: Any) -> frames.Frame:
    ends = [getattr(one, "address", one) for one in (source, to)]
    return frames.Frame(eth_dst, eth_src, 0x0800, None, *ends)


def test_who_is_not_served_and_what_reaches_the_controller_is_judged() -> None:
    phase = {"opened": 100.0, "served": 100.0, "slowest_s": 0.2, "met": 10.0, "asked": 5.0, "from_strangers": 0.0}
    told = {
        "held": {"expected": 900.0, "held": 900.0, "placing_rules_added": 0.0},
        "burst": phase,
        "new_sources": phase,
        "known_sources": phase | {"met": 0.0, "served": 99.0},
    }
    result = judge(told)
    assert result.figures["burst_to_controller"] == 15
    verdicts = {one.name: (one.value, one.met) for one in result.targets}
    assert verdicts["connections not served"] == (1.0, False)
    assert verdicts["packets to the controller a connection of known sources"] == (0.05, False)
    assert verdicts["packets to the controller a connection of new sources"] == (0.15, True)


def test_everybody_is_somebody_else() -> None:
    behind = [one for vip in virtual_ips(DestinationScale(300, 3)).values() for one in vip.destinations]
    sources = [host(FIRST_SOURCE, number) for number in range(900)]
    assert len({one.address for one in behind} | {one.address for one in sources}) == 1800
    assert len({one.mac for one in behind} | {one.mac for one in sources}) == 1800


@pytest.mark.lab
@pytest.mark.long
def test_a_real_switch_holds_the_rules_and_serves_the_sources(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    done = command("--vips", "4", "--destinations", "3", "--sources", "20", "--json", str(target))
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    found = document["switch"]
    assert document["reason"] is None
    assert found["expected"] == found["held"] > 0
    assert found["burst_served"] == found["burst_opened"] == 20
    assert found["new_sources_served"] == found["known_sources_served"] == 200
    assert found["new_sources_to_controller"] >= 20
    assert found["known_sources_to_controller"] <= 20
    assert found["placing_rules_added"] == 0
