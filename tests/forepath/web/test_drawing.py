"""Where nodes are drawn: always the same, none on another, and many hosts as one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forepath.web.layout import MOST_NODES, lay_out
from forepath.web.views import VIEWS
from tools.house import ROOT
from tools.page_pictures import PICTURES, picture_of

Node = dict[str, Any]


def fabric(leaves: int, spines: int, hosts: int) -> tuple[list[Node], list[tuple[str, str]]]:
    switches = [f"leaf{n}" for n in range(leaves)] + [f"spine{n}" for n in range(spines)]
    nodes: list[Node] = [{"name": name, "kind": "switch"} for name in switches]
    wires = [(f"leaf{n}", f"spine{m}") for n in range(leaves) for m in range(spines)]
    for n in range(hosts):
        nodes += [{"name": f"h{n}", "kind": "hypervisor"}, {"name": f"vm{n}", "kind": "vm", "host": f"h{n}"}]
        nodes.append({"name": f"c{n}", "kind": "client"})
        wires += [(f"leaf{n % leaves}", f"h{n}"), (f"c{n}", f"leaf{n % leaves}")]
    return nodes, wires


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 15))
def test_no_two_nodes_are_drawn_at_one_place(leaves: int, spines: int, hosts: int) -> None:
    nodes, wires = fabric(leaves, spines, hosts)
    drawing = lay_out(nodes, wires)
    places = [one.place for one in drawing.spots.values()]
    assert len(set(places)) == len(places)
    assert drawing.spots.keys() == {one["name"] for one in nodes} or len(nodes) > MOST_NODES
    assert lay_out(nodes, wires[::-1]) == drawing


def test_spines_are_above_leaves_above_hosts_above_machines() -> None:
    spots = lay_out(*fabric(3, 2, 3)).spots
    rows = [spots[name].place.y for name in ("spine0", "leaf0", "h0", "vm0")]
    assert rows == sorted(rows) and len(set(rows)) == 4 and spots["c0"].place.y == spots["h0"].place.y


def test_a_mesh_is_drawn_by_springs_and_hosts_stay_near() -> None:
    nodes: list[Node] = [{"name": f"s{n}", "kind": "switch"} for n in range(8)]
    nodes += [{"name": f"c{n}", "kind": "client"} for n in range(8)]
    ring = [(f"s{n}", f"s{(n + step) % 8}") for n in range(8) for step in (1, 3)]
    spots = lay_out(nodes, [*ring, *((f"s{n}", f"c{n}") for n in range(8))]).spots
    assert len({round(spots[f"s{n}"].place.y) for n in range(8)}) > 4
    assert all(abs(spots[f"s{n}"].place.x - spots[f"c{n}"].place.x) < 50 for n in range(8))


def test_many_hosts_are_drawn_as_one_for_each_switch_and_counted() -> None:
    nodes, wires = fabric(10, 2, 400)
    drawing = lay_out(nodes, wires)
    assert len(drawing.spots) <= MOST_NODES
    assert sum(one.count for one in drawing.spots.values()) == len(nodes)
    assert drawing.drawn_as["vm17"] == drawing.drawn_as["c7"] == "hosts at leaf7"


def test_every_view_has_a_picture_in_the_documents() -> None:
    page = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
    pictures = {picture_of(view.path) for view in VIEWS}
    assert {f"{name}.png" for name in pictures | {"dark", "narrow"}} == {one.name for one in PICTURES.iterdir()}
    assert [name for name in pictures if f"](web/{name}.png)" not in page] == []
