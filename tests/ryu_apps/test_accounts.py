"""Pairs outside virtual IPs: found by samples, counted exactly, foretold; prefixes and the rest are counted, too."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest
from controller_lab import ADDRESS, network
from hypothesis import given
from hypothesis import strategies as st
from spoken_switch import SpokenSwitch, arp_frame, tcp_frame
from test_netflow import flow, flows, message, sampling, sampling_template, template
from test_starting import eventually

from cpdb import Communication, Store, open_store
from predictor import Predictor
from predictor.config import PredictorConfig
from ryu_apps.accounts import (
    MAX_ACCOUNTS,
    REST,
    Account,
    AccountShare,
    Talkers,
    account_numbers,
    account_rules,
    choose_fairly,
    parse_accounts,
)
from ryu_apps.effects import PutRule
from ryu_apps.fakes.fake_packets import Packet, Transport
from ryu_apps.fakes.fake_profiles import SwitchProfile
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.openflow import decode_match, encode_match
from ryu_apps.rules import ETH_IPV4, ETH_IPV6, PROTO_TCP, PROTO_UDP, number_of, pair_number

A, B, C = (("10.7.0.1", "02:00:00:00:07:01"), ("10.7.0.2", "02:00:00:00:07:02"), ("10.7.1.3", "02:00:00:00:07:03"))
DECLARED = parse_accounts(["10.7.0.0/16 > 10.7.0.2 tcp:443", "10.7.1.0/24 > any", "any > 10.9.0.0/16 udp:53"])
DECLARED6 = (*DECLARED, *parse_accounts(["fd00:7::/32 > fd00:9::/48 tcp:443", "any > any tcp:80"]))


# ---- accounts


def test_an_account_is_read_from_words_and_what_is_none_is_refused_with_the_way_to_write_it() -> None:
    assert DECLARED[0] == Account("10.7.0.0/16", "10.7.0.2", PROTO_TCP, 443)
    assert [one.service for one in DECLARED] == ["10.7.0.2 tcp:443", "any", "10.9.0.0/16 udp:53"]
    for text in (
        "",
        "10.0.0.1",
        "10.0.0.1 > x",
        "10.0.0.1/8 > any",
        "any > any tcp:0",
        "any > any icmp:1",
        "10.0.0.0/8 > fd00::1",
    ):
        with pytest.raises(ValueError, match=r"."):
            Account.parse(text)


@pytest.mark.parametrize("account", DECLARED6)
def test_the_match_of_an_account_is_read_back_from_its_bytes(account: Account) -> None:
    assert [decode_match(encode_match(match)) for match in account.matches] == [*account.matches]


addresses = st.sampled_from(["10.7.0.1", "10.7.0.2", "10.7.1.3", "10.9.4.4", "192.0.2.1"])
of_ipv6 = st.sampled_from(["fd00:7::1", "fd00:7:1::1", "fd00:9::4", "2001:db8::1"])
ends = st.tuples(st.just(ETH_IPV4), addresses, addresses) | st.tuples(st.just(ETH_IPV6), of_ipv6, of_ipv6)
packets = st.builds(
    lambda ends, proto, transport: Packet(A[1], B[1], *ends, ip_proto=proto, transport=transport),
    ends,
    st.sampled_from([PROTO_TCP, PROTO_UDP]),
    st.builds(Transport, st.just(40_000), st.sampled_from([53, 443, 80]), st.sampled_from(["S", "A"])),
)


@given(st.lists(packets, max_size=30))
def test_each_packet_from_a_host_is_in_one_count_and_in_the_right_one(sent: list[Packet]) -> None:
    share = AccountShare((("10.7.0.1", "10.7.0.2"), ("fd00:7::1", "fd00:9::4")), DECLARED6, (1,), 9)
    fake = FakeSwitch(9, frozenset({1, 2}))
    assert fake.apply([PutRule(rule) for rule in account_rules(share)], 0.0) == []
    for packet in sent:
        fake.receive(packet, 1, 1.0)
    counted = Counter()
    for one in fake.samples(2.0):
        counted[number_of(one.cookie)] += one.packets
    assert sum(counted.values()) == len(sent)
    for talker in share.talkers:
        assert counted.pop(pair_number(*talker)) == sum((one.ip_src, one.ip_dst) == talker for one in sent)
    names, others = account_numbers(share), [one for one in sent if (one.ip_src, one.ip_dst) not in share.talkers]
    for account in (*DECLARED6, None):
        own = sum(count for number, count in counted.items() if names[number] == account)
        assert own == sum(_first(one) == (DECLARED6.index(account) if account else None) for one in others)


def _first(packet: Packet) -> int | None:
    source, to = packet.ip_src or "", packet.ip_dst or ""
    port = packet.ip_proto, packet.transport.dport
    belongs = (
        source.startswith("10.7.") and to == "10.7.0.2" and port == (PROTO_TCP, 443),
        source.startswith("10.7.1."),
        to.startswith("10.9.") and port == (PROTO_UDP, 53),
        source.startswith("fd00:7:") and to.startswith("fd00:9:") and port == (PROTO_TCP, 443),
        port == (PROTO_TCP, 80),
    )
    return next((place for place, is_in in enumerate(belongs) if is_in), None)


# ---- who talks much


rates = st.dictionaries(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 30).map(str)), st.floats(1, 1e6), max_size=60
)


@given(rates, st.integers(0, 40))
def test_entries_are_shared_fairly_among_sources(rates: dict[tuple[str, str], float], room: int) -> None:
    chosen = choose_fairly(rates, room)
    assert len(chosen) == len(set(chosen)) == min(room, len(rates))
    own = {source: [ends for ends in chosen if ends[0] == source] for source, _ in rates}
    for source, taken in own.items():
        left = [ends for ends in rates if ends[0] == source and ends not in taken]
        # Nobody who has a pair left has fewer than another one, by more than the last round.
        assert not left or all(len(taken) >= len(other) - 1 for other in own.values())
        # Of each source the largest are taken.
        assert not left or not taken or min(rates[one] for one in taken) >= max(rates[one] for one in left)


def test_who_talks_much_is_counted_until_it_has_been_quiet_and_never_too_many() -> None:
    talkers = Talkers(3, 1000.0)
    talkers.look(0.0)
    for second in range(1, 60):
        for number in range(10):
            talkers.hear((f"10.0.0.{number % 2}", f"10.0.1.{number}"), 5000 + number)
        talkers.hear(("10.0.0.9", "10.0.1.1"), 100)
        talkers.look(float(second))
    assert set(talkers) == {("10.0.0.1", "10.0.1.9"), ("10.0.0.0", "10.0.1.8"), ("10.0.0.1", "10.0.1.7")}
    assert talkers.of_number(pair_number("10.0.0.1", "10.0.1.9")) == ("10.0.0.1", "10.0.1.9")
    before = talkers.revision
    for second in range(60, 200):
        talkers.look(float(second))
    assert not set(talkers) and talkers.revision > before
    assert MAX_ACCOUNTS == 8


# ---- the wire, over real parts: a sample, a pair, a rule, rows, a forecast


def test_a_sampled_pair_is_found_counted_exactly_told_and_foreseen(tmp_path: Path) -> None:
    ports = [_free_port(kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    (tmp_path / "forepath.toml").write_text(
        f"controller.port = {ports[0]}\n[controller.netflow]\nlisten = '127.0.0.1:{ports[1]}'\n"
        "agents = { 'dpid:0000000000000007' = '127.0.0.1' }\n"
        "[controller.accounts]\nmax_pairs = 4\nfrom_mbit_per_s = 0.5\ndeclared = ['10.7.1.0/24 > any']\n"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"FOREPATH_DATABASE_URL": f"sqlite:///{tmp_path}/own.db", "PYTHONPATH": root}
    argv = [sys.executable, "-m", "forepath.commands.ryu_manager", "ryu_apps.controller"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            _walk_the_wire(tmp_path, *ports)
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def _free_port(kind: int) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _walk_the_wire(folder: Path, port: int, netflow_port: int) -> None:
    made: list[SpokenSwitch] = []
    hosts = {1: A, 2: B, 3: C}
    assert eventually(lambda: not made.append(SpokenSwitch(port, 7, SwitchProfile(), hosts)))
    switch = made[-1]
    Thread(target=switch.serve, daemon=True).start()
    stores: list[Store] = []
    assert eventually(lambda: not stores.append(open_store(f"sqlite:///{folder}/own.db", create=False)))
    store = stores[-1]
    for at, host in hosts.items():
        switch.say(at, arp_frame(1, host, host[0]))
    exporter, sequence = socket.socket(type=socket.SOCK_DGRAM), 0

    def talk() -> None:
        nonlocal sequence
        for _ in range(5):
            switch.say(1, tcp_frame(A, B))
            switch.say(3, tcp_frame(C, B))
        switch.say(2, tcp_frame(B, A, "SA"))
        told = (template(9), sampling_template(9), sampling(100), flows(flow(20_000, 20, A[0], B[0])))
        exporter.sendto(message(9, *told, sequence=sequence), ("127.0.0.1", netflow_port))
        sequence += 1
        time.sleep(0.2)

    def counted(source: str, to: str) -> int:
        return sum(one.bytes for one in store.facts.communications(0.0) if (one.source, one.virtual_ip) == (source, to))

    wanted = ((A[0], B[0]), ("10.7.1.0/24", "any"), ("dpid:0000000000000007", REST))
    assert eventually(lambda: not talk() and all(counted(*ends) > 0 for ends in wanted), 60), [
        (one.source, one.virtual_ip, one.bytes) for one in store.facts.communications(0.0)
    ]
    # Exactly: what the switch counted since its entry is there, not what samples stand for.
    number = pair_number(A[0], B[0])
    assert eventually(lambda: counted(A[0], B[0]) == _held(switch, number), 20), (counted(A[0], B[0]), number)
    predictor = Predictor(PredictorConfig(models=["naive", "ewma"], history={"window_s": 120.0, "min_s": 2.0}), False)

    def is_foreseen() -> bool:
        talk()
        predictor.cycle(store, time.time())
        pairs = (one.pair for one in store.forecasts.latest(time.time(), 60.0))
        return (A[0], B[0]) in {(pair.source, pair.virtual_ip) for pair in pairs}

    assert eventually(is_foreseen, 40)
    switch.close()
    store.close()
    exporter.close()


def _held(switch: SpokenSwitch, number: int) -> int:
    return sum(one.bytes for one in switch.switch.samples(time.time()) if number_of(one.cookie) == number)


# ---- a real exporter


@pytest.mark.lab
def test_a_pair_that_open_vswitch_exports_by_ipfix_is_found_and_counted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with network(tmp_path_factory.mktemp("ipfix")) as net:
        net.settings = {
            "netflow.listen": "'127.0.0.1:2055'",
            "netflow.agents": "{ leaf1 = '127.0.0.1' }",
            "accounts.max_pairs": "4",
            "accounts.from_mbit_per_s": "0.05",
        }
        net.controller()
        source, to = ADDRESS["c1"], ADDRESS["s1"]
        assert eventually(lambda: net.pings("c1", to), 30), net.log()
        # Templates are sent at the beginning, and every ten minutes: somebody must be there to hear them.
        make = ["--", "--id=@i", "create", "IPFIX", 'targets="127.0.0.1:2055"', "sampling=4", "cache_active_timeout=1"]
        argv = ["ovs-vsctl", *make, "--", "set", "bridge", "leaf1", "ipfix=@i"]
        subprocess.run(argv, check=True, capture_output=True, timeout=20)
        with net.background("c1", "ping", "-q", "-i", "0.005", "-s", "1200", to):
            assert eventually(
                lambda: any(_talk(row) == ("c1", to) for row in net.store.facts.communications(0.0)), 30
            ), net.log()
        own = [row for row in net.store.facts.communications(0.0) if _talk(row) == ("c1", to)]
        assert {row.sampling for row in own} == {None}
        assert source not in {row.source for row in own}


def _talk(row: Communication) -> tuple[str, str]:
    return row.source, row.virtual_ip
