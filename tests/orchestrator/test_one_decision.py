"""What `forepath plan` proposes is what the cycle would do, routes included: both ask for the same decision."""

import pytest

from cpdb import (
    Communication,
    Destination,
    InstallStatus,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    OutcomeKind,
    SplitReport,
    Store,
    VirtualIp,
    split_key,
)
from orchestrator import Approval, FakeHypervisors, Orchestrator, OrchestratorConfig
from ryu_apps import Topology

MBIT = 125_000.0
NOW = 1_700_000_000.0
HISTORY_S = 120
SOURCES = 20
# Each path from leaf1 to leaf2 carries 100 Mbit/s; all sources together send 95 over the first.
RATE = 95 * MBIT / SOURCES
CONFIG = OrchestratorConfig(routing={"enabled": True, "every_s": 1.0, "min_gain": 0.01})


@pytest.fixture
def full(store: Store) -> Store:
    """Two leaves over two spines, and two minutes in which one of the two ways was nearly full."""
    switches = ("leaf1", "leaf2", "spine1", "spine2")
    store.inventory.put_nodes(Node(name, NodeKind.SWITCH, dpid=number) for number, name in enumerate(switches, 1))
    clients = [
        Node(f"c{n}", NodeKind.CLIENT, f"10.0.0.{n + 1}", attached_to="leaf1", port=10 + n) for n in range(SOURCES)
    ]
    store.inventory.put_nodes([*clients, Node("shop1", NodeKind.VM, "10.0.1.1", attached_to="leaf2", port=9)])
    store.inventory.put_links(
        Link(leaf, port, spine, port, 100 * MBIT, declared=True)
        for port, spine in enumerate(("spine1", "spine2"), 1)
        for leaf in ("leaf1", "leaf2")
    )
    shop = Destination("shop1", "10.0.1.1", "02:00:00:00:01:01")
    store.inventory.declare_virtual_ips([VirtualIp("10.0.9.9", "shop", 0, (shop,))])
    path = topology(store).path("c0", "shop1")
    for second in range(HISTORY_S):
        t = NOW - HISTORY_S + second + 1
        store.facts.add_communications(
            Communication(f"c{n}", "10.0.9.9", "shop1", t, 1.0, int(RATE), 60, 4) for n in range(SOURCES)
        )
        hops = [("leaf1", spine) for spine in path if spine.startswith("spine")]
        hops += [(spine, "leaf2") for _, spine in hops]
        store.facts.add_loads(LinkLoad(a, b, t, 1.0, int(SOURCES * RATE), SOURCES * 60) for a, b in hops)
    return store


def topology(store: Store) -> Topology:
    return Topology.of(store.inventory.nodes(), store.inventory.links())


def test_a_plan_is_what_the_cycle_would_do_routes_included(full: Store) -> None:
    paths = topology(full).path
    advised = Orchestrator(CONFIG, full, FakeHypervisors({}, {}, lambda *_: 0.0), paths).cycle(NOW).advised
    plan = Approval(CONFIG, full, FakeHypervisors({}, {}, lambda *_: 0.0), paths).propose(NOW)
    proposed = [(step["action"]["kind"], step["action"]["body"]) for step in plan.body["steps"]]
    assert "set_routes" in {kind for kind, _ in proposed}
    assert proposed == [(row.kind, row.body) for row in advised]


def test_a_plan_with_routes_is_carried_out_as_it_was_read(full: Store) -> None:
    approval = Approval(CONFIG, full, FakeHypervisors({}, {}, lambda *_: 0.0), topology(full).path)
    plan = approval.propose(NOW)
    (step,) = (one for one in plan.body["steps"] if one["action"]["kind"] == "set_routes")
    now = [NOW]

    def controller(seconds: float) -> None:
        now[0] += seconds
        for row in full.wanted.splits():
            key = split_key(row.from_switch, row.to_switch)
            status = InstallStatus.INSTALLED
            full.wanted.observe([SplitReport(key, row.from_switch, row.generation, status, "", now[0])])

    done = approval.carry_out(plan.id, lambda: now[0], controller)
    assert [(one.kind, one.outcome) for one in done if one.kind == "set_routes"] == [("set_routes", OutcomeKind.DONE)]
    rows = {(row.from_switch, row.to_switch): row for row in full.wanted.splits()}
    for change in step["action"]["body"]["changes"]:
        row = rows[change["from"], change["to"]]
        assert list(row.ratios) == change["after"]
        assert [one.source for one in row.heavy] == [one[0] for one in change["heavy"]]
        assert row.heavy


def test_without_routing_neither_has_a_route(full: Store) -> None:
    config = CONFIG.tuned(routing={"enabled": False})
    paths = topology(full).path
    advised = Orchestrator(config, full, FakeHypervisors({}, {}, lambda *_: 0.0), paths).cycle(NOW).advised
    plan = Approval(config, full, FakeHypervisors({}, {}, lambda *_: 0.0), paths).propose(NOW)
    kinds = {row.kind for row in advised} | {step["action"]["kind"] for step in plan.body["steps"]}
    assert "set_routes" not in kinds
