"""The rule by which a soak says that something grows, and a short simulated one."""

import socket
import threading
from pathlib import Path
from random import Random

import psutil
import pytest

from tools.chaos import talker
from tools.soak.__main__ import main
from tools.soak.sampling import SoakSample, read_samples
from tools.soak.slopes import BOUNDS_PER_H, find_slopes, fit_slope

HOUR_S = 3600.0
AT_S = [10.0 * number for number in range(360)]


@pytest.mark.parametrize(("mb_per_h", "verdict"), [(0.0, "flat"), (0.5, "flat"), (20.0, "grows"), (-20.0, "flat")])
def test_a_slope_is_told_through_noise_and_a_saw(mb_per_h: float, verdict: str) -> None:
    rng = Random(3)
    values = [100 + mb_per_h * at / HOUR_S + rng.gauss(0, 0.2) + 1.0 * (at % 60 < 10) for at in AT_S]
    found = fit_slope("controller", "rss_mb", AT_S, values)
    assert found.verdict == verdict
    assert found.low_per_h <= mb_per_h + 0.5
    assert found.high_per_h >= mb_per_h - 0.5


def test_one_lost_handle_in_ten_minutes_is_a_leak() -> None:
    found = fit_slope("controller", "handles", AT_S, [20.0 + at // 600 for at in AT_S])
    assert found.verdict == "grows"
    assert BOUNDS_PER_H["handles"] < 6


def test_what_is_too_short_is_not_called_flat() -> None:
    rng = Random(5)
    at_s = AT_S[:12]
    assert fit_slope("predictor", "rss_mb", at_s, [rng.gauss(200, 3) for _ in at_s]).verdict == "unclear"


def test_the_first_third_is_not_judged_and_those_that_left_are_left_out() -> None:
    samples = [
        sample
        for at in AT_S
        for sample in (
            SoakSample(at, "controller", "threads", min(at, 1200.0)),
            *((SoakSample(at, "leaver", "threads", 1.0),) if at < 2000 else ()),
        )
    ]
    found = {(one.who, one.what): one for one in find_slopes(samples)}
    assert set(found) == {("controller", "threads"), ("all", "processes")}
    assert found["controller", "threads"].per_h == 0


def test_a_simulated_soak_samples_its_process_and_its_database(tmp_path: Path) -> None:
    file = tmp_path / "soak.csv"
    assert main(["--day", "--hours", "0.02", "--samples", str(file)]) == 1, "too short to tell is not flat"
    held = {(one.who, one.what) for one in read_samples(file)}
    assert {("day", "rss_mb"), ("day", "handles"), ("day", "threads"), ("database", "size_mb")} <= held


def test_what_takes_datagrams_keeps_none_of_them() -> None:
    """A soak found it to grow by 566 MB an hour."""
    sink, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender:
        threading.Thread(target=talker._drain, args=(sink,), daemon=True).start()
        payload = bytes(50_000)
        for _ in range(100):
            sender.send(payload)
        before = psutil.Process().memory_info().rss
        for _ in range(2000):
            sender.send(payload)
        assert psutil.Process().memory_info().rss - before < 50e6
