"""The fluid model keeps its books: nothing is created, capacity is never exceeded, shortage shows."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpdb import Pair
from forepath.demo.fluid import TIMEOUT_S, Flow, Fluid, FluidJob, Second

PAIR, STREAM = Pair("c1", "shop"), Pair("c4", "backup")
WHERE = {"vm": "hA", "sink": "hA"}
CAPACITY = 1.5e6


def grant_all(limit: float) -> object:
    def grant(wanted: Mapping[str, float]) -> Mapping[str, float]:
        return {vm: min(cores, limit) for vm, cores in wanted.items()}

    return grant


def play(
    rate: int, size: int, cpu_s: float, stream: float = 0.0, limit: float = float("inf"), cores: float = 1.0
) -> list[Second]:
    fluid = Fluid({"hA": CAPACITY})
    seconds = []
    for start in range(15):
        jobs = [FluidJob(PAIR, "vm", start + n / rate, size, cpu_s, True) for n in range(rate if start < 10 else 0)]
        flows = [Flow(STREAM, "sink", stream, limit)]
        seconds.append(fluid.advance(float(start), jobs, flows, WHERE, grant_all(cores)))  # type: ignore[arg-type]
    return seconds


def served(seconds: list[Second]) -> float:
    ended = [job for second in seconds for job in second.ended]
    return sum(job.latency_s is not None for job in ended) / len(ended)


@given(st.integers(1, 40), st.integers(1000, 100_000), st.floats(0.001, 0.05), st.floats(0, 3e6))
def test_every_request_ends_once_and_links_never_carry_more_than_they_can(
    rate: int, size: int, cpu_s: float, stream: float
) -> None:
    seconds = play(rate, size, cpu_s, stream)
    ended = [job for second in seconds for job in second.ended]
    assert len(ended) == rate * 10 == len({id(job) for job in ended})
    assert all(second.link_bytes["hA"] <= CAPACITY + 10 for second in seconds)
    assert all(second.used_cores["vm"] <= 1.0 + 1e-6 for second in seconds)
    assert all(job.latency_s is None or job.latency_s <= TIMEOUT_S + 0.11 for job in ended)


def test_enough_of_everything_serves_all() -> None:
    assert served(play(rate=20, size=30_000, cpu_s=0.02, stream=0.5e6)) == 1.0


def test_a_flood_starves_and_a_meter_on_it_cures() -> None:
    flooded = served(play(rate=20, size=30_000, cpu_s=0.001, stream=1.4e6))
    assert flooded < 0.7
    assert served(play(rate=20, size=30_000, cpu_s=0.001, stream=1.4e6, limit=0.5e6)) == 1.0


def test_too_little_cpu_loses_requests() -> None:
    assert served(play(rate=20, size=1000, cpu_s=0.02, cores=0.2)) < 0.8


def test_the_books_of_bytes_balance() -> None:
    seconds = play(rate=20, size=30_000, cpu_s=0.001)
    assert sum(second.sent_bytes.get(PAIR, 0) for second in seconds) == pytest.approx(200 * 30_000, abs=200)
