"""Destinations that do not answer get nothing new, come back damped, and nobody is blamed for what nobody knows."""

from dataclasses import replace

from simulated import HOSTS, VIP, World, address, declared, ip, mac

from cpdb import Alarm, HealthStatus, Link, Node, NodeKind, ObservedRecord, Standing
from ryu_apps.declared import Declared
from ryu_apps.effects import Effect, PacketOut
from ryu_apps.rules import PortId, virtual_mac
from ryu_apps.services.health import Health, ProbeTarget
from ryu_apps.settings import ProbesSection
from ryu_apps.status.destinations import HealthPublisher
from ryu_apps.topology import frames
from ryu_apps.topology.frames import ACK, PROBE_PORT, RST, SYN, Arp, Segment

S1 = ProbeTarget("10.0.0.11", "02:00:00:00:00:11")


def run(health: Health, seconds: int, answers: bool, start: float = 0.0) -> float:
    """Time passes, four times a second; whoever is asked answers, or not."""
    now = start
    for _ in range(4 * seconds):
        for target in health.due([S1], [S1], now):
            if answers:
                health.answered(target, True, now + 0.01)
        now += 0.25
    return now


def test_three_silences_are_down_and_two_answers_are_up_again() -> None:
    health = Health(ProbesSection(every_s=2.0, failures=3, successes=2))
    now = run(health, 3, True)
    assert health.status(S1) is HealthStatus.UP
    # Whoever is silent is asked again soon, but the first question has its time.
    while not (silent := health.due([S1], [S1], now)):
        now += 0.25
    assert silent == [S1] and health.status(S1) is HealthStatus.UP
    now = run(health, 1, False, now)
    assert health.status(S1) is HealthStatus.DOWN
    now = run(health, 1, True, now)
    assert health.status(S1) is HealthStatus.DOWN
    run(health, 5, True, now)
    assert health.status(S1) is HealthStatus.UP


def test_whoever_falls_again_and_again_must_answer_longer() -> None:
    health, now, waits = Health(ProbesSection(every_s=1.0, failures=2, successes=2)), 0.0, []
    now = run(health, 2, True)
    for _ in range(4):
        while health.status(S1) is not HealthStatus.DOWN:
            now = run(health, 1, False, now)
        start = now
        while health.status(S1) is not HealthStatus.UP:
            now = run(health, 1, True, now)
        waits.append(now - start)
    assert waits[0] < waits[1] < waits[2] < waits[3]


def test_whom_nobody_has_seen_is_not_blamed() -> None:
    health = Health(ProbesSection(every_s=1.0, failures=2, successes=2))
    for quarter in range(80):
        health.due([S1], [], quarter / 4)
    assert health.status(S1) is HealthStatus.UNKNOWN


def test_many_destinations_are_asked_at_a_bounded_rate() -> None:
    targets = [
        ProbeTarget(f"10.{n // 250}.{n % 250}.1", f"02:00:00:00:{n // 250:02x}:{n % 250:02x}") for n in range(4000)
    ]
    health, rounds, met = Health(), [], set[ProbeTarget]()
    for quarter in range(400):
        due = health.due(targets, targets, quarter / 4)
        for one in due:
            health.answered(one, True, quarter / 4)
        rounds.append(len(due))
        met |= set(due)
    # Never more at once than a switch keeps for a busy controller; the first look stands for half a second.
    assert max(rounds) <= 100
    assert sum(rounds) <= 100 * 200 * 1.1
    assert met == set(targets)
    assert all(health.status(one) is HealthStatus.UP for one in targets)


def test_a_service_is_asked_as_its_virtual_ip_and_the_connection_is_taken_back() -> None:
    syn = Segment(VIP, PROBE_PORT, address("s1"), 80, 7, 0, SYN)
    data = frames.probe_frame(syn, virtual_mac(VIP), mac("s1"))
    assert frames.read_segment(data) == syn
    assert frames.parse(data) == frames.Frame(mac("s1"), virtual_mac(VIP), 0x0800, None, VIP, address("s1"))
    assert frames.read_segment(data[:40]) is None
    # Checksums over everything, their own fields included, come to nothing.
    words = [int.from_bytes(data[14 + n : 16 + n], "big") for n in range(0, 20, 2)]
    assert (sum(words) & 0xFFFF) + (sum(words) >> 16) == 0xFFFF


# ---- with the network


def behind(weights: tuple[int, int] = (100, 100), probe: str = "arp", **standings: Standing) -> Declared:
    whole = declared(weights)
    vip = whole.virtual_ips[VIP]
    destinations = tuple(replace(one, standing=standings.get(one.name, Standing.SERVING)) for one in vip.destinations)
    return replace(whole, virtual_ips={VIP: replace(vip, destinations=destinations, probe=probe)})


def live(world: World, seconds: float, *silent: str) -> None:
    """Time passes; hosts answer the controller's ARP questions, those of the names in `silent` do not."""
    end = world.now + seconds
    while world.now < end:
        world.now += 0.5
        effects = world.network.tick(world.now)
        world.reconcile()
        for name in asked(world, effects):
            if name not in silent:
                world.speak(name)


def asked(world: World, effects: list[Effect]) -> list[str]:
    """Hosts that a question by ARP reaches."""
    found = []
    for effect in effects:
        frame = frames.parse(effect.data) if isinstance(effect, PacketOut) else None
        if isinstance(effect, PacketOut) and frame is not None and frame.arp is not None:
            places = {PortId(effect.dpid, port) for port in effect.ports}
            wanted = frame.arp.target
            found += [name for name, at in world.places.items() if at in places and address(name) == wanted]
    return found


def weights(world: World) -> list[int]:
    serving = {one.name: one.weight for one in world.network.services.virtual_ips[VIP].destinations}
    return [serving.get(name, 0) for name in ("s1", "s2")]


def status(world: World) -> dict[str, str]:
    return {one.name: one.health.status for one in world.network.services.destinations.words()}


def test_a_silent_destination_gets_nothing_new_while_another_answers() -> None:
    world = World()
    world.start(behind())
    live(world, 5)
    assert (status(world), weights(world)) == ({"s1": "up", "s2": "up"}, [100, 100])
    live(world, 9, "s1")
    assert (status(world), weights(world)) == ({"s1": "down", "s2": "up"}, [0, 100])
    live(world, 9, "s1", "s2")
    # When nobody answers, everyone stays.
    assert (status(world), weights(world)) == ({"s1": "down", "s2": "down"}, [100, 100])
    live(world, 9)
    assert (status(world), weights(world)) == ({"s1": "up", "s2": "up"}, [100, 100])


def test_a_source_leaves_a_destination_that_stays_down() -> None:
    world = World()
    world.start(behind((100, 0)))
    world.network.declare(behind((100, 1)), world.now)
    live(world, 5)
    assert world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))[0][0] == "s1"
    pair = world.network.services.pairs.of_addresses(address("c1"), VIP)
    assert pair is not None
    for _ in range(30):
        live(world, 1, "s1")
        pair.active = world.now
    assert world.send("c1", ip("c1", "s1", eth_dst=virtual_mac(VIP), ip_dst=VIP))[0][0] == "s2"


def test_a_stand_by_is_not_asked() -> None:
    world = World()
    world.start(behind((100, 0)))
    live(world, 20, "s2")
    assert status(world) == {"s1": "up", "s2": "unknown"}


def test_who_joins_gets_nothing_before_its_first_answer() -> None:
    world = World()
    world.start(behind(s2=Standing.JOINING))
    live(world, 5, "s2")
    assert weights(world) == [100, 0]
    live(world, 5)
    assert weights(world) == [100, 100]
    world.network.declare(behind(s2=Standing.DRAINING), world.now)
    assert weights(world) == [100, 0]


def test_a_service_that_refuses_is_down_though_its_host_answers() -> None:
    world = World()
    world.start(behind(probe="tcp:80", s2=Standing.JOINING))

    def answer(effects: list[Effect], flags: int) -> list[Effect]:
        more: list[Effect] = []
        for effect in effects:
            question = frames.read_segment(effect.data) if isinstance(effect, PacketOut) else None
            if question is not None and question.to == address("s2"):
                back = Segment(question.to, 80, VIP, PROBE_PORT, 99, question.sequence + 1, flags)
                data = frames.probe_frame(back, mac("s2"), virtual_mac(VIP))
                more += world.network.packet_in(HOSTS["s2"], data, world.now)
        return more

    for _ in range(8):
        world.now += 0.5
        answer(world.network.tick(world.now), RST | ACK)
    assert status(world)["s2"] == "down"
    closing: list[Effect] = []
    for _ in range(8):
        world.now += 0.5
        closing += answer(world.network.tick(world.now), SYN | ACK)
    assert status(world)["s2"] == "up"
    # The other one was asked as well, and nobody there answered for it.
    assert weights(world) == [0, 100]
    # The connection is not left half open.
    last = [frames.read_segment(one.data) for one in closing if isinstance(one, PacketOut)][-1]
    assert last is not None and last.flags & RST and (last.to, last.to_port) == (address("s2"), 80)
    assert world.network.services.pairs.of_addresses(address("s2"), VIP) is None


# ---- conflicts


def gratuitous(world: World, at: PortId, its_mac: str, its_address: str) -> None:
    body = Arp(frames.REQUEST, its_mac, its_address, its_mac, its_address)
    world.network.packet_in(at, frames.arp(body, its_mac, frames.BROADCAST), world.now)


def alarms(rows: list[ObservedRecord | Alarm]) -> list[tuple[str, bool]]:
    return [(one.kind, one.cleared_at is None) for one in rows if isinstance(one, Alarm)]


def test_an_address_with_two_macs_freezes_its_destination_until_it_is_quiet() -> None:
    world, publisher = World(), HealthPublisher()
    world.start(behind())
    live(world, 5)
    publisher.news(world.network.services.destinations.words(), world.now)
    gratuitous(world, HOSTS["c2"], mac("c2"), address("s1"))
    live(world, 1)
    assert (status(world)["s1"], weights(world)) == ("frozen", [0, 100])
    # The claim itself is not believed.
    host = world.network.topology.hosts.of_address(address("s1"))
    assert host is not None and host.mac == mac("s1")
    assert alarms(publisher.news(world.network.services.destinations.words(), world.now)) == [("duplicate", True)]
    assert alarms(publisher.news(world.network.services.destinations.words(), world.now)) == []
    live(world, 35)
    assert (status(world)["s1"], weights(world)) == ("up", [100, 100])
    assert alarms(publisher.news(world.network.services.destinations.words(), world.now)) == [("duplicate", False)]


def test_a_mac_in_two_places_is_frozen_and_a_machine_that_moves_is_not() -> None:
    world = World()
    world.start(behind())
    live(world, 5)
    world.places["s1"] = PortId(0x13, 12)
    world.switches[0x13].ports |= {12}
    world.network.topology.port_changed(PortId(0x13, 12), True, world.now)
    world.now += 2.0
    world.speak("s1")
    # The old place is asked; nobody is there.
    live(world, 10)
    assert status(world)["s1"] == "up"
    for _ in range(2):
        for at in (HOSTS["s1"], PortId(0x13, 12)):
            world.now += 1.0
            gratuitous(world, at, mac("s1"), address("s1"))
    live(world, 1)
    assert status(world)["s1"] == "frozen"


def test_a_double_that_only_answers_is_found_by_asking_the_old_place() -> None:
    world = World()
    world.start(behind())
    live(world, 5)
    twin = PortId(0x13, 12)
    world.switches[0x13].ports |= {12}
    world.network.topology.port_changed(twin, True, world.now)
    world.now += 2.0
    gratuitous(world, twin, mac("s1"), address("s1"))
    for _ in range(16):
        world.now += 0.5
        for effect in world.network.tick(world.now):
            if isinstance(effect, PacketOut) and (frame := frames.parse(effect.data)) and frame.arp:
                for at in (twin, HOSTS["s1"]):
                    if at.dpid == effect.dpid and at.port in effect.ports and frame.arp.target == address("s1"):
                        gratuitous(world, at, mac("s1"), address("s1"))
    assert status(world)["s1"] == "frozen"


def test_a_machine_may_move_between_hypervisors_but_not_to_a_client() -> None:
    world = World()
    whole = behind()
    hosts = [("hv1", NodeKind.HYPERVISOR, "leaf2", 11), ("hv2", NodeKind.HYPERVISOR, "leaf3", 12)]
    hosts += [("desk", NodeKind.CLIENT, "leaf1", 13)]
    nodes = [*whole.nodes, *(Node(name, kind) for name, kind, _, _ in hosts)]
    links = [*whole.links, *(Link(leaf, port, name, 0, 1e6, declared=True) for name, _, leaf, port in hosts)]
    for at in (PortId(0x13, 12), PortId(0x11, 13)):
        world.switches[at.dpid].ports |= {at.port}
    world.start(replace(whole, nodes=tuple(nodes), links=tuple(links)))
    live(world, 5)
    world.places["s1"] = PortId(0x13, 12)
    world.speak("s1")
    live(world, 12)
    assert status(world)["s1"] == "up"
    world.places["s1"] = PortId(0x11, 13)
    world.speak("s1")
    live(world, 40)
    assert status(world)["s1"] == "frozen"
    world.places["s1"] = PortId(0x13, 12)
    world.speak("s1")
    live(world, 40)
    assert status(world)["s1"] == "up"


def test_a_new_controller_clears_alarms_that_no_longer_hold() -> None:
    world = World()
    world.start(behind())
    live(world, 5)
    publisher = HealthPublisher()
    first = publisher.news(world.network.services.destinations.words(), world.now)
    assert {(one.kind, one.key) for one in first if isinstance(one, Alarm) and one.cleared_at is not None} == {
        (kind, f"{VIP}/{name}") for kind in ("duplicate", "moved") for name in ("s1", "s2")
    }
    assert publisher.news(world.network.services.destinations.words(), world.now + 1) == []
