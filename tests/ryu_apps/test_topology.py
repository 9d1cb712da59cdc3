"""Paths: every pair of switches that is joined is reached, without loops, the same way each time."""

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from cpdb import Link, Node, NodeKind
from ryu_apps import Topology

switches = st.integers(2, 9)


@st.composite
def networks(draw: st.DrawFn) -> list[Link]:
    count = draw(switches)
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda one: one[0] < one[1])
    pairs = draw(st.sets(ends, min_size=1, max_size=20))
    down = draw(st.sets(st.sampled_from(sorted(pairs))))
    return [
        Link(f"s{a}", 10 + b, f"s{b}", 10 + a, None, up=(a, b) not in down or len(pairs) == 1) for a, b in sorted(pairs)
    ]


@given(networks())
def test_following_next_hops_arrives_on_a_shortest_path(links: list[Link]) -> None:
    topology = Topology(links, {})
    graph = nx.Graph((link.a, link.b) for link in links if link.up)
    for destination in graph:
        hops = topology.next_hops(destination)
        assert set(hops) == nx.node_connected_component(graph, destination) - {destination}
        for start in hops:
            path = topology.path(start, destination)
            assert path[0] == start
            assert path[-1] == destination
            assert len(path) == len(set(path)) == nx.shortest_path_length(graph, start, destination) + 1


@given(networks())
def test_the_order_of_links_does_not_matter(links: list[Link]) -> None:
    names = {link.a for link in links} | {link.b for link in links}
    one, other = Topology(links, {}), Topology(list(reversed(links)), {})
    assert all(one.next_hops(name) == other.next_hops(name) for name in names)


NODES = [
    *(Node(name, NodeKind.SWITCH, dpid=n) for n, name in enumerate(("leaf1", "leaf2", "spine1", "spine2"), 1)),
    Node("c1", NodeKind.CLIENT, attached_to="leaf1", port=11),
    Node("hA", NodeKind.HYPERVISOR),
    Node("vm1", NodeKind.VM, attached_to="leaf2", port=21),
    Node("vm2", NodeKind.VM, attached_to="leaf2", port=21),
]
LINKS = [
    *(Link(leaf, n, spine, m, 1e6) for m, leaf in ((1, "leaf1"), (2, "leaf2")) for n, spine in ((1, "spine1"),)),
    *(Link(leaf, 2, "spine2", m, 1e6) for m, leaf in ((1, "leaf1"), (2, "leaf2"))),
    Link("hA", 0, "leaf2", 21, 5e5, declared=True),
]


def test_a_vm_is_reached_through_its_hypervisor() -> None:
    topology = Topology.of(NODES, LINKS)
    path = topology.path("c1", "vm1")
    assert (path[0], path[1], path[3], path[4], path[5]) == ("c1", "leaf1", "leaf2", "hA", "vm1")
    assert path[2] in ("spine1", "spine2")
    assert topology.path("vm1", "vm2") == ("vm1", "hA", "vm2")
    assert topology.path("c1", "hA")[-2:] == ("leaf2", "hA")
    assert topology.path("c1", "nobody") == ()


def test_a_switch_to_avoid_is_used_only_when_nothing_else_leads_on() -> None:
    for avoid, expected in (("spine1", "spine2"), ("spine2", "spine1")):
        topology = Topology(LINKS[:4], {}, frozenset({avoid}))
        assert topology.path("leaf1", "leaf2") == ("leaf1", expected, "leaf2")
    only = [link for link in LINKS[:4] if "spine1" in (link.a, link.b)]
    assert Topology(only, {}, frozenset({"spine1"})).path("leaf1", "leaf2") == ("leaf1", "spine1", "leaf2")


@given(networks(), st.data())
def test_with_spares_nothing_ever_circles_whatever_fails_and_one_failure_next_door_is_survived(
    links: list[Link], data: st.DataObject
) -> None:
    topology = Topology(links, {})
    graph = nx.Graph((link.a, link.b) for link in links if link.up)
    edges = sorted(tuple(sorted(edge)) for edge in graph.edges)
    failed = {frozenset(edge) for edge in data.draw(st.lists(st.sampled_from([("", ""), *edges]), max_size=6))}
    for destination in graph:
        hops, spares = topology.next_hops(destination), topology.spare_hops(destination)
        assert set(spares) <= set(hops)
        for start in hops:
            here, seen = start, [start]
            while here != destination:
                choices = [one for one in (hops[here], spares.get(here)) if one is not None]
                ahead = next((one for one in choices if frozenset((here, one)) not in failed), None)
                if ahead is None:
                    break
                assert graph.has_edge(here, ahead)
                assert ahead not in seen
                seen.append(ahead)
                here = ahead
            if failed == {frozenset((start, hops[start]))} and start in spares:
                assert seen[1] == spares[start]


def test_leaves_have_a_spare_spine_and_spines_have_none() -> None:
    leaves, spines = ("leaf1", "leaf2", "leaf3"), ("spine1", "spine2")
    fabric = [Link(leaf, m, spine, n, None) for n, leaf in enumerate(leaves, 1) for m, spine in enumerate(spines, 1)]
    topology = Topology(fabric, {})
    for leaf in ("leaf1", "leaf3"):
        assert {topology.next_hops("leaf2")[leaf], topology.spare_hops("leaf2")[leaf]} == set(spines)
    assert not set(topology.spare_hops("leaf2")) & set(spines)
    assert topology.spare_hops("nowhere") == topology.next_hops("nowhere") == {}
