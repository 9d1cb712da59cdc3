"""Switches that are less than Open vSwitch: what they lack is found, said once, and left out; the rest works."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import SWITCHES, VIP, World, address, declared, ip, mac
from spoken_switch import SpokenSwitch, arp_frame, tcp_frame
from test_starting import eventually, running  # noqa: F401

from cpdb import Destination, Store, VirtualIp, open_store
from ryu_apps.effects import PutRule
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.fakes.fake_profiles import Counting, SwitchProfile
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.one_table import join_tables
from ryu_apps.pipeline import desired
from ryu_apps.rules import ETH_IPV4, ETH_IPV6, PROTO_TCP, Desired, Kind, kind_of, virtual_mac
from ryu_apps.shares import limits, share
from ryu_apps.switch.abilities import Abilities, fit_rules, needs_extensions
from ryu_apps.switch.window import FIRST_CHANGES, MIN_CHANGES, ChangeWindow

PLAIN = SwitchProfile(extensions=False, max_meters=0, has_groups=False)
SHARED = [mac(name) for name in ("c1", "c2", "s1", "s2")]


def world(affinity: str = "source") -> World:
    made = World()
    vip = replace(declared().virtual_ips[VIP], affinity=affinity)
    made.start(declared(virtual_ips={VIP: vip}))
    for name in ("c1", "c2"):
        made.send(name, ip(name, "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP, ip_proto=PROTO_TCP))
    made.reconcile()
    return made


def wanted(made: World, switch: str, **but: object) -> Desired:
    part = share(made.network, SWITCHES[switch], limits(made.network, made.now))
    return desired(replace(part, **but), {}, with_limits=False)


# ---- one table


packets = st.builds(
    Packet,
    eth_src=st.sampled_from(SHARED),
    eth_dst=st.sampled_from(
        [*SHARED, virtual_mac(VIP), "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "01:80:c2:00:00:0e", "02:00:00:00:00:99"]
    ),
    eth_type=st.sampled_from([ETH_IPV4, ETH_IPV6, 0x88CC, 0x8035, 0x1234]),
    ip_src=st.sampled_from([address(name) for name in ("c1", "c2", "s1", "s2")]),
    ip_dst=st.sampled_from([VIP, *(address(name) for name in ("c1", "c2", "s1", "s2"))]),
    ip_proto=st.sampled_from([6, 17]),
    transport=st.builds(Transport, st.just(1000), st.sampled_from([80, 61357]), st.sampled_from(["S", "A", ""])),
)


def leaves(made: World, switch: str, one_table: bool) -> FakeSwitch:
    dpid, want = SWITCHES[switch], wanted(made, switch)
    want = replace(want, rules={key: rule for key, rule in want.rules.items() if not needs_extensions(rule)})
    profile = replace(PLAIN, has_groups=True)
    if one_table:
        hosts = {host.address: host.mac for host in made.network.topology.hosts if host.address}
        want, profile = join_tables(want, hosts), replace(profile, tables=1)
    fake = FakeSwitch(dpid, frozenset(range(1, 20)), profile)
    groups = made.switches[dpid].groups()
    assert fake.apply([*(_add(group) for group in groups), *map(PutRule, want.rules.values())], made.now) == []
    return fake


def _add(group: object) -> object:
    from ryu_apps.effects import AddGroup

    return AddGroup(group)  # type: ignore[arg-type]


MADE = world()
BOTH = {
    switch: tuple(leaves(MADE, switch, one_table) for one_table in (False, True))
    for switch in ("leaf1", "leaf2", "spine1")
}


@given(packets, st.sampled_from(sorted(BOTH)), st.sampled_from([1, 2, 11, 12]))
@settings(max_examples=200)
def test_one_table_does_with_every_packet_what_four_do(packet: Packet, switch: str, in_port: int) -> None:
    owners = {address(name): mac(name) for name in ("c1", "c2", "s1", "s2")}
    if packet.eth_type == ETH_IPV4 and packet.ip_dst in owners:
        # A packet for an address goes to whoever has it.
        packet = replace(packet, eth_dst=owners[packet.ip_dst])
    four, one = (one.receive(packet, in_port, MADE.now) for one in BOTH[switch])
    assert one == four


def test_in_one_table_a_pair_is_counted_once_and_in_a_restart_found_again() -> None:
    hosts = {host.address: host.mac for host in MADE.network.topology.hosts if host.address}
    rules = list(join_tables(wanted(MADE, "leaf1"), hosts).rules.values())
    assert {rule.table for rule in rules} == {0}
    counts = [rule for rule in rules if kind_of(rule.cookie) is Kind.PAIR]
    assert len({rule.cookie for rule in counts}) == len(counts) == 2
    again = World()
    again.network.declare(declared(), again.now)
    again.network.services.adopt(0x11, rules, again.now)
    pairs = {(one.source_address, one.destination.name) for one in again.network.services.pairs if one.destination}
    assert pairs == {(address("c1"), "s1"), (address("c2"), "s1")}


# ---- what is left out


def test_nothing_that_a_plain_switch_refuses_is_left_in_and_it_learns_so_from_the_first_refusal() -> None:
    want = wanted(world("connection"), "leaf1", spares={})
    abilities = Abilities()
    fake = FakeSwitch(1, frozenset({1, 2}), PLAIN)
    assert not fit_rules(want, abilities).spared
    for rule in want.rules.values():
        for reason in fake.apply([PutRule(rule)], 0.0):
            abilities = abilities.learn(PutRule(rule), reason)
    assert not abilities.extensions and not abilities.places
    fitted = fit_rules(want, abilities).want
    assert 10 < len(fitted.rules) < len(want.rules)
    assert FakeSwitch(1, frozenset({1, 2}), PLAIN).apply(map(PutRule, fitted.rules.values()), 0.0) == []


@given(st.integers(0, 40))
def test_where_a_table_is_full_hosts_stay_longest_and_connections_are_counted_for_all_or_none(room: int) -> None:
    fitted, spared = fit_rules(wanted(MADE, "leaf1"), Abilities(room={0: room, 2: room, 3: room}))
    for table in (0, 2, 3):
        own = [rule for rule in fitted.rules.values() if rule.table == table]
        kept = {kind_of(rule.cookie) for rule in own}
        assert len(own) <= room or not kept & {Kind.PAIR, Kind.PAIR_SYN, Kind.TO_DESTINATION, Kind.TO_CLIENT, Kind.HOST}
    opened = sum(kind_of(rule.cookie) is Kind.PAIR_SYN for rule in fitted.rules.values())
    assert opened == 0 or not spared.get(Kind.PAIR)


# ---- a slow one


def test_a_window_finds_what_a_switch_makes_in_a_second_and_grows_for_a_quick_one() -> None:
    for rate, least, most in ((200.0, 150, 250), (50_000.0, 10_000, 100_000), (1.0, MIN_CHANGES, MIN_CHANGES)):
        window, now, left = ChangeWindow(), 0.0, 200_000
        for _ in range(12):
            count = min(left, window.room(0, now))
            left -= count
            window.sent(count, left, now)
            now += count / rate
        window.room(0, now)
        assert least <= window.size <= most
    assert ChangeWindow().room(FIRST_CHANGES, 0.0) == 0


# ---- the whole controller, over real connections


PROFILES = {
    "whole": SwitchProfile(),
    "by source": SwitchProfile(),
    "plain": PLAIN,
    "plain by source": PLAIN,
    "single": replace(PLAIN, tables=1),
    "tiny": replace(PLAIN, max_entries={0: 20}),
    "stated": replace(PLAIN, tables=4, max_entries={0: 20}, says_max_entries=True),
    "slow": SwitchProfile(changes_per_s=200.0),
    "dead": SwitchProfile(counting=Counting.DEAD),
    "absent": SwitchProfile(counting=Counting.ABSENT),
    "packets": SwitchProfile(counting=Counting.PACKETS_ONLY),
    "trembling": SwitchProfile(counting=Counting.TREMBLING),
}
CLIENTS = {"tiny": 16, "stated": 16}
FEW = 4
EXPECTED = {
    "plain by source": {"extensions", "meters"},
    "plain": {"extensions", "meters"},
    "single": {"extensions", "meters", "tables"},
    "tiny": {"extensions", "meters", "room (pair)"},
    "stated": {"extensions", "meters", "room (pair)"},
}


class Island:
    """A switch with clients and a server of its own, and a virtual IP before that."""

    def __init__(self, number: int, name: str, profile: SwitchProfile) -> None:
        self.number, self.name, self.profile = number, name, profile
        self.switch_name = f"dpid:{number:016x}"
        self.vip = f"10.{number}.0.100"
        self.clients = {port: self._host(port) for port in range(1, CLIENTS.get(name, FEW) + 1)}
        self.server_port = len(self.clients) + 1
        self.server = self._host(self.server_port)

    def _host(self, port: int) -> tuple[str, str]:
        return f"10.{self.number}.0.{port}", f"02:00:00:00:{self.number:02x}:{port:02x}"

    def declared(self) -> VirtualIp:
        affinity = "connection" if self.number % 2 else "source"
        return VirtualIp(self.vip, self.name, 10, (Destination(f"s-{self.name}", *self.server, 1),), affinity=affinity)

    def connect(self, port: int) -> None:
        hosts = {**self.clients, self.server_port: self.server}
        self.switch = SpokenSwitch(port, self.number, self.profile, hosts)
        Thread(target=self.switch.serve, daemon=True).start()

    def greet(self) -> None:
        for port, host in self.switch.hosts.items():
            self.switch.say(port, arp_frame(1, host, host[0]))

    def call(self, port: int) -> None:
        self.switch.say(port, tcp_frame(self.clients[port], (self.vip, virtual_mac(self.vip))))

    def is_answered(self) -> bool:
        """Whether the ARP request, the opening and the answer of each client come through; who waits tries again."""
        waiting = [port for port in self.clients if not self._heard(port)]
        time.sleep(0.05)
        for port in waiting:
            self.switch.say(port, arp_frame(1, self.clients[port], self.vip))
            self.call(port)
            self.switch.say(self.server_port, tcp_frame(self.server, self.clients[port], "SA", (80, 1000)))
        return not waiting

    def _heard(self, port: int) -> bool:
        got = list(self.switch.got)
        arp = any(at == port and one.arp is not None and one.eth_src == virtual_mac(self.vip) for at, one in got)
        to = any(at == self.server_port and one.ip_dst == self.server[0] for at, one in got)
        back = any(at == port and one.ip_src == self.vip for at, one in got)
        return arp and to and back


@contextmanager
def islands(folder: Path, port: int) -> Iterator[tuple[list[Island], Store]]:
    made = [Island(number, name, profile) for number, (name, profile) in enumerate(PROFILES.items(), 1)]
    stores: list[Store] = []

    def opened() -> bool:
        stores.append(open_store(f"sqlite:///{folder}/own.db", create=False))
        return True

    assert eventually(opened)
    store = stores[-1]
    store.inventory.declare_virtual_ips([one.declared() for one in made])
    assert eventually(lambda: not made[0].connect(port))
    for island in made[1:]:
        island.connect(port)
    yield made, store
    for island in made:
        island.switch.close()
    store.close()


def _lacks(made: list[Island], store: Store) -> dict[str, set[str]]:
    alarms = [one for one in store.alarms.open() if one.kind == "switch_lacks"]
    return {
        one.name: {alarm.key.partition("/")[2] for alarm in alarms if alarm.node == one.switch_name} for one in made
    }


def test_on_every_kind_of_switch_services_work_and_what_it_lacks_is_said(
    tmp_path: Path,
    running: int,  # noqa: F811
) -> None:
    peers: list[socket.socket] = []
    with islands(tmp_path, running) as (made, store):
        for island in made:
            island.greet()
        assert eventually(lambda: not [one for one in made if not one.is_answered()])
        assert eventually(lambda: _lacks(made, store) == {one.name: EXPECTED.get(one.name, set()) for one in made}), (
            _lacks(made, store)
        )
        # Who talks on shows that something should have been counted.
        assert eventually(lambda: not _told_wrongly(made, store)), _told_wrongly(made, store)
        # Whoever speaks other versions is named; one that offers ours among others is served.
        for versions in (1 << 5, 1 << 6 | 1 << 5 | 1 << 4):
            peers.append(socket.create_connection(("127.0.0.1", running), timeout=10))
            peers[-1].sendall(struct.pack("!BBHIHHI", 6, 0, 16, 1, 1, 8, versions))
        assert eventually(lambda: any(one.kind == "openflow_version" for one in store.alarms.open()))
        (word,) = (one.detail for one in store.alarms.open() if one.kind == "openflow_version")
        assert "offers OpenFlow 1.4, and 1.3 is spoken" in word
        said = [_exactly(peers[1], size) for size in (8, 8)]
        assert [(one[0], one[1]) for one in said] == [(4, 0), (4, 5)]
        assert max(island.switch.changes for island in made) < 2000
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert "overdue" not in said
    for peer in peers:
        peer.close()


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += peer.recv(size - len(data))
    return data


def _told_wrongly(made: list[Island], store: Store) -> list[str]:
    time.sleep(0.5)
    return [one.name for one in made if not _is_told_rightly(one, store)]


def _is_told_rightly(island: Island, store: Store) -> bool:
    """Whether there are rows, or none and an alarm."""
    name, is_doubted = island.switch_name, island.profile.counting is not Counting.RIGHT
    for port in island.clients:
        island.call(port)
    said = any(one.kind == "switch_counters" and one.key == name for one in store.alarms.open())
    told = sum(one.packets for one in store.facts.communications(0.0) if one.virtual_ip == island.vip)
    if island.profile.counting is Counting.TREMBLING:
        return said
    return said and not told if is_doubted else not said and told > 0
