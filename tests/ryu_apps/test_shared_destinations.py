"""Two virtual IPs with one machine behind both: each answer comes from the one that the connection was made to."""

from dataclasses import replace

import pytest
from simulated import HOSTS, VIP, World, address, declared, ip

from ryu_apps.declared import Declared
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.rules import virtual_mac

OTHER = "10.0.0.101"


def both(affinity: str = "source", weights: tuple[int, int] = (100, 0)) -> Declared:
    """s1 (or s2) behind both virtual IPs; the second one has this affinity."""
    what = declared(weights)
    more = replace(what.virtual_ips[VIP], address=OTHER, name="other", affinity=affinity)
    return replace(what, virtual_ips=what.virtual_ips | {OTHER: more})


def sent(client: str, to: str, port: int) -> Packet:
    whole = ip(client, "s1", eth_dst=virtual_mac(to), ip_dst=to, ip_proto=6)
    return replace(whole, transport=Transport(port, 80, "S"))


def answers(world: World, client: str, to: str, port: int) -> tuple[str, str | None]:
    """Who serves a connection, and from which address its answer comes."""
    ((server, got),) = world.send(client, sent(client, to, port))
    assert (got.eth_dst, got.ip_dst) == (f"02:00:00:00:{server.encode().hex(':')}", address(server))
    back = ip(server, client, ip_proto=6, transport=Transport(80, port, "SA"))
    ((receiver, answer),) = world.send(server, back)
    assert receiver == client and answer.eth_src == virtual_mac(answer.ip_src or "")
    return server, answer.ip_src


@pytest.mark.parametrize("affinity", ["source", "connection"])
def test_connections_to_both_are_answered_by_their_own(affinity: str) -> None:
    world = World()
    world.start(both(affinity))
    for port in range(40_000, 40_010):
        for client in HOSTS.keys() & {"c1", "c2"}:
            assert answers(world, client, VIP, port) == ("s1", VIP)
            assert answers(world, client, OTHER, port + 100) == ("s1", OTHER)


def test_a_restart_leaves_each_pair_where_it_was() -> None:
    world = World()
    world.start(both(weights=(100, 100)))
    before = [answers(world, "c1", to, 40_000) for to in (VIP, OTHER)]
    server = before[0][0]
    # Weights by which the pair would be somewhere else if it were new
    world.start(both(weights=(0, 100) if server == "s1" else (100, 0)))
    assert world.network.services.pairs.of_addresses(address("c1"), VIP) is not None
    assert answers(world, "c1", VIP, 40_001) == before[0]


def test_where_a_switch_cannot_tell_them_apart_an_alarm_says_so() -> None:
    world = World()
    world.start(both())
    world.network.services.unplacing = set(world.switches)
    assert answers(world, "c1", VIP, 40_000) == ("s1", VIP)
    world.react(world.network.tick(world.now))
    assert not world.alarms.counts["answers_mixed"]
    world.send("c1", sent("c1", OTHER, 40_001))
    world.react(world.network.tick(world.now))
    assert world.alarms.counts["answers_mixed"] == 1
