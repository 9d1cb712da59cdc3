"""Who serves a pair in a replay is who serves it live: by its source's address of the virtual IP's family."""

from backtest.whatif.steering import Steering
from cpdb import Destination, Node, NodeKind, Pair
from ryu_apps import choose


def test_a_source_chooses_by_its_address_of_the_virtual_ip_s_family() -> None:
    both = tuple(Destination(f"s{n}", f"fd00::{n}", f"02:00:00:00:00:0{n}", 100) for n in range(4))
    nodes = {
        f"c{n}": Node(f"c{n}", NodeKind.CLIENT, f"10.0.0.{n}", address6=f"fd00:1::{n}" if n % 2 else None)
        for n in range(40)
    }
    pairs = [Pair(name, to) for name in nodes for to in ("fd00::100", "10.0.0.100")]
    steering = Steering(pairs, nodes)
    assert steering.steer(dict.fromkeys(("fd00::100", "10.0.0.100"), both), (), 0.0)
    for pair, served in zip(pairs, steering.served, strict=True):
        node = nodes[pair.source]
        address = (node.address6 if ":" in pair.virtual_ip else node.address) or pair.source
        found = choose(address, pair.virtual_ip, both)
        assert found is not None and served.shares == {found.name: 1.0}
