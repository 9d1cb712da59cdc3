"""What machines use beside their communications: what explains load is taken off, what was only given is not known."""

from pathlib import Path

import numpy as np
import pytest

from cpdb import Communication, Subject, SubjectKind, VmLoad, open_store
from predictor.data.sources import LoadSeries, destination_of, sums
from predictor.service.beside import BesideSeries

START, SECONDS, CORES_PER_REQUEST = 2_000_000, 150, 0.02


def backup(second: int) -> float:
    return 0.5 if second % 50 < 10 else 0.0


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> BesideSeries:
    """`busy` serves and has a backup each 50 s, `alone` serves nobody, `steady` is called the same in each second."""
    path: Path = tmp_path_factory.mktemp("beside")
    store, rng = open_store(f"sqlite:///{path}/beside.db"), np.random.default_rng(1)
    one = BesideSeries(LoadSeries((VmLoad,), 1.0, 300.0), sums(destination_of, 1.0, 300.0))
    for second in range(1, SECONDS + 1):
        t, requests = float(START + second), int(rng.poisson(25 if second % 37 < 8 else 5))
        wanted = 0.1 + CORES_PER_REQUEST * requests + backup(second)
        limit = 0.4 if 101 <= second <= 105 else 2.0
        store.facts.add_communications(
            [
                Communication("c1", "10.9.0.1", "busy", t, 1.0, 1000 * requests, requests, requests),
                Communication("c1", "10.9.0.2", "steady", t, 1.0, 1000, 10, 10),
            ]
        )
        loads = {"busy": wanted, "alone": backup(second), "steady": 0.3}
        store.facts.add_loads([VmLoad(name, "hA", t, "running", used, 2.0, 2, 1, 2) for name, used in loads.items()])
        store.facts.add_loads([VmLoad("held", "hA", t, "running", min(backup(second), limit), limit, 2, 1, 2)])
        one.read(store, t)
        one.view(t)
    store.close()
    return one


def told(series: BesideSeries, name: str) -> np.ndarray:
    """What it used beside its communications in each second."""
    place = list(series.subjects).index(Subject(SubjectKind.BESIDE, name))
    return series.window(START, SECONDS - 1, np.array([place]))[0, 0]


def test_what_requests_explain_is_taken_off_and_the_backup_stays(series: BesideSeries) -> None:
    found, truth = told(series, "busy"), np.array([backup(second) for second in range(1, SECONDS)])
    at_it, quiet = found[truth > 0], found[truth == 0]
    # The base is in it; of requests that come by chance up to three seconds' most is taken off, so it is no more.
    assert 0.4 < np.median(at_it) < 0.65
    assert np.nanquantile(quiet, 0.9) < 0.2


def test_who_serves_nobody_is_told_whole(series: BesideSeries) -> None:
    assert told(series, "alone") == pytest.approx([backup(second) for second in range(1, SECONDS)], abs=1e-6)


def test_where_no_line_explains_what_comes_nothing_is_known(series: BesideSeries) -> None:
    assert np.isnan(told(series, "steady")).all()


def test_what_was_wanted_at_a_limit_is_told_by_what_was_used_once_it_was_free(series: BesideSeries) -> None:
    # From second 100 on half a core is wanted; for five seconds it may use less.
    assert told(series, "held") == pytest.approx(told(series, "alone"))
