"""`kill -9` at every place of every action, then a successor: the world is as wanted, and every row has an end."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from desires import DESIRES, START
from killed_orchestrator import Job, Stage, url
from lasting import Killer, LastingHypervisors

from cpdb import ActionRecord, OutcomeKind, open_store
from orchestrator import KINDS

# Since then: the first is known to be dead, an orphan is given up and tried again, and their ends.
AFTER_S = (6, 7, 40, 41, 42)
# What is done in steps is carried on at once, a step or two in each cycle.
IN_STEPS = ("scale_out", "scale_in")
# A lease ends while nobody acts, and what is still wanted is then reserved anew.
LEASED = ("reserve_bandwidth",)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database: making one takes longer than copying one."""
    directory = tmp_path_factory.mktemp("empty")
    open_store(url(directory)).close()
    return directory


def fresh(empty: Path, directory: Path, kind: str) -> Path:
    """A directory for a case, in which `kind` can be wanted."""
    shutil.copytree(empty, directory)
    store = open_store(url(directory), create=False)
    DESIRES[kind].before(store)
    store.close()
    return directory


def places(directory: Path) -> list[str]:
    path = directory / "places"
    return path.read_text().splitlines() if path.exists() else []


def check(directory: Path, kind: str, where: str) -> list[ActionRecord]:
    """What has to hold at the end, wherever an orchestrator was killed."""
    assert (directory / "reached").exists(), f"{where}: what was wanted was not reached"
    store = open_store(url(directory), create=False)
    rows = store.journal.actions()
    for row in rows:
        assert row.outcome is not OutcomeKind.PENDING, f"{where}: {row.kind} of {row.issued_at} has no outcome"
        assert row.sentence, where
    done = sum(row.outcome is OutcomeKind.DONE for row in rows)
    assert done >= 1 if kind in LEASED else done == 1, f"{where}: {[one.sentence for one in rows]}"
    assert store.wanted.reservations(START + 10_000) == [], f"{where}: a reservation without an end"
    machines = LastingHypervisors(directory / "machines", Killer(0, directory / "places")).machines
    assert tuple(sorted(machines)) == DESIRES[kind].machines, where
    names = [one.name for vip in store.inventory.virtual_ips() for one in vip.destinations]
    assert len(names) == len(set(names)), f"{where}: {names}"
    store.close()
    return rows


def life(kind: str) -> list[float]:
    return [START + n for n in range(1, DESIRES[kind].life + 1)]


def later(kind: str, since: float) -> list[float]:
    return [since + one for one in (range(6, 24) if kind in IN_STEPS else AFTER_S)]


@dataclass(frozen=True)
class Case:
    stage: Stage
    empty: Path
    tmp_path: Path
    kind: str


def killed_at(number: int, place: str, case: Case) -> None:
    """One orchestrator dies there, another takes over."""
    kind = case.kind
    directory = fresh(case.empty, case.tmp_path / str(number), kind)
    assert case.stage.live(Job(directory, kind, life(kind), number)) == -9
    assert places(directory)[-1] == place
    assert case.stage.live(Job(directory, kind, later(kind, life(kind)[-1]))) == 0
    check(directory, kind, f"killed at {number}: {place}")
    shutil.rmtree(directory)


@pytest.mark.parametrize("kind", sorted(DESIRES))
def test_a_successor_brings_every_action_to_an_end(kind: str, stage: Stage, empty: Path, tmp_path: Path) -> None:
    whole = fresh(empty, tmp_path / "whole", kind)
    assert stage.live(Job(whole, kind, life(kind))) == 0
    assert len(check(whole, kind, "nowhere")) == 1
    assert len(places(whole)) >= 5
    every = 3 if kind in IN_STEPS else 1  # the rest is left to the longer tests
    for number, place in list(enumerate(places(whole), 1))[::every]:
        killed_at(number, place, Case(stage, empty, tmp_path, kind))


@pytest.mark.long
@pytest.mark.parametrize("kind", IN_STEPS)
def test_the_same_at_every_single_step(kind: str, stage: Stage, empty: Path, tmp_path: Path) -> None:
    whole = fresh(empty, tmp_path / "whole", kind)
    assert stage.live(Job(whole, kind, life(kind))) == 0
    for number, place in enumerate(places(whole), 1):
        killed_at(number, place, Case(stage, empty, tmp_path, kind))


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(DESIRES))
def test_a_successor_may_be_killed_as_well(kind: str, stage: Stage, empty: Path, tmp_path: Path) -> None:
    killed = 0
    for first in range(1, 9):
        for second in (1, 3, 6):
            directory = fresh(empty, tmp_path / f"{first}-{second}", kind)
            stage.live(Job(directory, kind, life(kind), first))
            killed += (
                stage.live(Job(directory, kind, later(kind, life(kind)[-1]), len(places(directory)) and second)) != 0
            )
            (directory / "reached").unlink(missing_ok=True)
            assert stage.live(Job(directory, kind, later(kind, life(kind)[-1] + 60))) == 0
            check(directory, kind, f"killed at {first}, and its successor at {second}")
            shutil.rmtree(directory)
    assert killed > 4


def test_every_kind_of_action_is_killed() -> None:
    assert set(DESIRES) == set(KINDS)
