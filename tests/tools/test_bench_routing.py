"""A simulated fat-tree: routing relieves links that are too full, and leaves alone what fits."""

from tools.bench.routing import fat_tree, replay


def test_a_fat_tree_has_as_many_links_as_it_should() -> None:
    links = fat_tree(4)
    assert len(links) == len(set(links)) == 32
    assert len({name for hop in links for name in hop}) == 20


def test_full_links_are_relieved_and_nothing_moves_where_all_fits() -> None:
    off, on = replay(minutes=3, load=0.8, trigger=0.8, seed=1).values()
    assert on.lost < off.lost / 2 and on.congested < off.congested
    calm = replay(minutes=2, load=0.3, trigger=0.8, seed=1)["on"]
    assert calm.moves == 0
