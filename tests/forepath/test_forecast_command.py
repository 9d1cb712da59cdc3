"""`forepath forecast` on what a real predictor has said about made-up traffic that goes on to the present."""

import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from lab_on_paper import BACKUP, SHOP, Forepath, Said

from cpdb import Communication, HostLoad, LinkLoad, Store, VmLoad
from predictor import PredictorConfig, SlowTier, Tiers

CONFIG = PredictorConfig(models=("naive", "ewma", "train_mean"))
SECONDS = 120
MIB = 1 << 20


class Lab:
    """c1 sends to shop all the time, c2 only now and then, c4 has fallen silent; cores and links follow.

    Before each command it goes on to the present, so that no forecast is too old however slow this machine is.
    """

    def __init__(self, store: Store, forepath: Forepath) -> None:
        self._store, self._forepath, self._rng = store, forepath, np.random.default_rng(1)
        self._begin, self._second = time.time() - SECONDS, 0
        slow = SlowTier(horizons_s=(60,), history_s=240, step_s=5.0)
        self._tiers = Tiers(CONFIG.tuned(slow=slow), background=False)

    def __call__(self, *words: str) -> Said:
        while self._begin + self._second + 1 <= time.time():
            self._second += 1
            self._live(self._begin + self._second)
        return self._forepath(*words)

    def _live(self, t: float) -> None:
        steady, cores = 100_000 + int(self._rng.integers(20_000)), 0.2 + 0.01 * float(self._rng.random())
        now_and_then = 40_000 if self._rng.random() < 1 / 9 else 0
        ended = 200_000 if self._second < 20 else 0
        self._store.facts.add_communications(
            [
                Communication("c1", SHOP, "shop1", t, 1.0, steady, 100, 4),
                Communication("c2", SHOP, "shop1", t, 1.0, now_and_then, now_and_then // 1000, int(now_and_then > 0)),
                Communication("c4", BACKUP, "backup1", t, 1.0, ended, ended // 1000, 0),
            ]
        )
        self._store.facts.add_loads(
            [
                LinkLoad("leaf2", "hA", t, 1.0, 120_000, 100),
                HostLoad("hA", t, cores, 4.0, 512 * MIB, 2048 * MIB),
                VmLoad("shop1", "hA", t, "running", cores, 0.5, 1, 128 * MIB, 256 * MIB),
            ]
        )
        self._tiers.cycle(self._store, t)

    def close(self) -> None:
        self._tiers.close()


@pytest.fixture
def lab(forepath: Forepath, empty: Store) -> Iterator[Lab]:
    found = Lab(empty, forepath)
    yield found
    found.close()


def test_who_will_talk_likeliest_first(lab: Lab) -> None:
    told = lab("forecast", "--who", "--horizon", "5", "--json", "-").json()
    who = told["who"]
    assert [one["source"] for one in who] == ["c1", "c2", "c4"]
    # How likely c2 is to speak depends on when it spoke last, which differs from run to run.
    assert who[0]["probability"] > max(0.9, who[1]["probability"]) and who[1]["probability"] > who[2]["probability"]
    assert who[2]["probability"] < 0.2
    assert (who[0]["service"], who[0]["destination"]) == ("shop", "shop1")
    assert who[0]["bytes_per_s"] == pytest.approx(110_000, rel=0.2)
    assert who[0]["connections_per_s"] == pytest.approx(4, rel=0.1)
    assert len(lab("forecast", "--who", "--top", "1", "--json", "-").json()["who"]) == 1
    text = lab("forecast", "--who").out
    assert "who will be active within 15 s" in text and "shop1" in text


def test_one_pair_with_horizon_and_moves(lab: Lab) -> None:
    told = lab("forecast", "c1", "shop", "--json", "-").json()
    (horizon,) = told["horizons"]
    assert horizon["pair"] == {"source": "c1", "virtual_ip": SHOP}
    assert horizon["horizon_s"] in (5, 15, 30)
    moves = [one for one in horizon["moves"] if one["reason"].startswith("bytes_per_s: ")]
    assert moves[-1]["to_s"] == horizon["horizon_s"]
    # The second command looks a moment later, at errors of its own.
    text, trusted = lab("forecast", "c1", "shop").out, r"trusted \d+ s ahead: error 0\.\d\d of 0\.25 allowed"
    assert re.fullmatch(trusted, horizon["trust"]["fast"]["sentence"])
    assert re.search(rf"\(fast\): {trusted}", text)
    assert "q95" in text and "measured" in text


def test_sums_links_and_machines(lab: Lab) -> None:
    for kind, name, quantity, value in (
        ("virtual_ip", SHOP, "bytes_per_s_mean", 114_000),
        ("destination", "shop1", "connections_per_s_mean", 4),
        ("link", "leaf2", "packets_per_s_peak", 100),
        ("host", "hA", "memory_bytes_mean", 512 * MIB),
        ("vm", "shop1", "cpu_cores_peak", 0.21),
    ):
        found = lab("forecast", "--subject", kind, "--json", "-").json()["subjects"]
        assert {one["subject"]["kind"] for one in found} == {kind}
        wanted = (name, quantity, 15)
        (one,) = (one for one in found if (one["subject"]["a"], one["quantity"], one["horizon_s"]) == wanted)
        assert one["quantiles"]["0.5"] == pytest.approx(value, rel=0.3)
        assert name in lab("forecast", "--subject", kind).out


def test_minutes_ahead(lab: Lab) -> None:
    found = lab("forecast", "--tier", "slow", "--json", "-").json()["subjects"]
    assert {one["horizon_s"] for one in found} == {60}
    assert {one["subject"]["a"] for one in found} >= {"c1"}
    hosts = lab("forecast", "--subject", "host", "--tier", "slow", "--json", "-").json()["subjects"]
    assert {one["subject"]["a"] for one in hosts} == {"hA"}


def test_scores_tell_each_model_beside_ewma(lab: Lab) -> None:
    told = lab("forecast", "--scores", "--json", "-").json()
    scores, shares = told["scores"], told["shares"]
    assert set(shares) == {"naive", "ewma", "train_mean"} and sum(shares.values()) == pytest.approx(1.0, abs=0.01)
    heaviest = max(shares, key=lambda name: shares[name])
    assert f"models fast    {heaviest} {shares[heaviest]:.0%}" in lab("status").out
    assert {one["model"] for one in scores} == {"naive", "ewma", "train_mean", "auto"}
    assert all(one["relative"] == pytest.approx(1.0) for one in scores if one["model"] == "ewma" and one["pinball"])
    assert all(0 <= one["covered_q90"] <= 1 and one["count"] > 0 for one in scores)
    assert "in units of EWMA's" in lab("forecast", "--scores").out
    assert lab("forecast", "--scores", "--subject", "vm", "--json", "-").json()["scores"]


def test_before_anything_is_said_and_with_contradictory_wishes(forepath: Forepath, empty: Store) -> None:
    for words, key in ((("--who",), "who"), (("--scores",), "scores"), (("--subject", "vm"), "subjects")):
        assert forepath("forecast", *words, "--json", "-").json()[key] == []
        assert forepath("forecast", *words).code == 0
    assert forepath("forecast", "--who", "--scores").code == 2
    assert forepath("forecast", "--subject", "cloud").code == 2
