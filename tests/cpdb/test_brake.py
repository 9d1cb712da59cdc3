"""The kill switch: at most one pause is in force, and it ends when it should."""

from cpdb import Pause, Store, open_store

CABLES = Pause(100.0, "anna@desk", "changing cables")


def test_a_pause_without_an_end_lasts_until_somebody_resumes(store: Store) -> None:
    assert store.pauses.in_force(100.0) is None and store.pauses.resume(100.0, "bob@desk") is None
    store.pauses.pause(CABLES)
    assert store.pauses.in_force(1e9) == CABLES
    assert store.pauses.resume(200.0, "bob@desk") == CABLES
    assert store.pauses.in_force(200.0) is None and store.pauses.resume(201.0, "bob@desk") is None


def test_a_pause_with_an_end_ends_by_itself(store: Store) -> None:
    item = Pause(100.0, "anna@desk", ends_at=160.0)
    store.pauses.pause(item)
    assert store.pauses.in_force(159.9) == item
    assert store.pauses.in_force(160.0) is None and store.pauses.resume(161.0, "anna@desk") is None


def test_the_last_word_counts_and_the_first_does_not_come_back(store: Store) -> None:
    store.pauses.pause(CABLES)
    short = Pause(110.0, "bob@desk", "only a moment", 120.0)
    store.pauses.pause(short)
    assert store.pauses.in_force(111.0) == short
    assert store.pauses.in_force(121.0) is None


def test_it_is_there_for_every_process_and_after_a_restart(store: Store) -> None:
    other = open_store(store.engine.url.render_as_string(hide_password=False), create=False)
    other.pauses.pause(CABLES)
    other.close()
    assert store.pauses.in_force(101.0) == CABLES
