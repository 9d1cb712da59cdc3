"""The simulator: cases computed by hand, and what holds under every policy."""

import numpy as np
import pytest
from replay_scenes import BACKUP, NARROW, PAIRS, SHOP, offered, two_hosts

from backtest.whatif.policies import replay
from backtest.whatif.records import PolicyRun, ReplayPolicy
from cpdb import Pair

SHOP1, BACKUP1, SHOP2, SPARE1 = range(4)


def test_a_full_link_is_shared_and_what_waits_is_given_up_after_four_seconds() -> None:
    # 1 MB/s for two pairs: c1 asks for 0.2 MB/s and gets it, c2 for 1.3 MB/s and gets the other 0.8.
    pairs = {Pair("c1", SHOP): 2e5, Pair("c2", BACKUP): 1.3e6}
    run = replay(two_hosts(), offered(6, pairs), ReplayPolicy.STATIC, 1)
    assert run.pairs.used[:, 0] == pytest.approx(2e5)
    assert run.pairs.used[:, 1] == pytest.approx(8e5)
    assert run.pairs.need[:, 1] == pytest.approx(1.3e6)
    assert run.pairs.allowed[:, 1] == pytest.approx(8e5)
    # Nobody needs the rest of what c1 was left: 1 - 0.8.
    assert run.pairs.allowed[:, 0] == pytest.approx(2e5)
    # 0.5 MB more each second; after 4 s what is left of the first second's 1.3 MB has long been sent, nothing goes.
    assert run.waiting_bytes[:, 1] == pytest.approx([5e5, 1e6, 1.5e6, 2e6, 2.5e6, 3e6])
    link = run.links.names.index("s1>hA")
    assert run.links.need[:, link] == pytest.approx(1.5e6)
    assert run.links.used[:, link] == pytest.approx(NARROW)


@pytest.mark.parametrize("policy", list(ReplayPolicy))
def test_every_policy_returns_complete_series(policy: ReplayPolicy) -> None:
    rates = {pair: (1e5 if pair.virtual_ip == SHOP else 2.5e5) for pair in PAIRS}
    run = replay(two_hosts(), offered(20, rates, {"spare1": 0.25}), policy, 1)
    check_series(run, 20)
    assert run.vms.need[:, SPARE1] == pytest.approx(0.25)
    # 10 connections a second and client, of 10 ms each
    assert run.vms.need[:, SHOP1] == pytest.approx(0.3)
    assert (policy is ReplayPolicy.STATIC) == (run.actions == ())


def check_series(run: PolicyRun, seconds: int) -> None:
    """No object takes more than it may, and no link or host more than it has."""
    for series in (run.vms, run.pairs, run.links, run.hosts):
        assert series.need.shape == series.allowed.shape == series.used.shape == (seconds, len(series.names))
        assert np.isfinite(series.allowed).all()
        assert (series.used <= series.allowed * (1 + 1e-9) + 1e-6).all()
    assert run.waiting_bytes.shape == run.delivered_bytes.shape == (seconds, len(run.pairs.names))
