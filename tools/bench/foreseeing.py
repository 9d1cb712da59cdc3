"""One cycle of the predictor with every model fitted, which must fit into the second that it is for."""

import random
import tempfile
from collections.abc import Iterator

from cpdb import Communication, Store, open_store
from predictor import Predictor, PredictorConfig, WorkLimits
from tools.bench.figures import BenchTarget, Result, Size, cpu_s, median

PAIRS = (20, 200)
HISTORY_S = 300
CYCLE_S = 1.0
START_S = 1_700_000_000.0
# Fitted once, in the first cycle; it runs in a process of its own otherwise and is no part of a cycle.
NEVER_AGAIN_S = 1e9


def measure(size: Size) -> Result:
    """CPU of a cycle at 20 and at 200 pairs with 300 s of history; limit: the length of a cycle."""
    figures: dict[str, float] = {}
    targets = []
    for pairs in PAIRS:
        first, later = _cycles(size.of(pairs), max(70, size.of(HISTORY_S)), size.repetitions)
        figures |= {f"first_cycle_with_fits_{pairs}_pairs_cpu_s": first, f"cycle_{pairs}_pairs_cpu_s": later}
        targets.append(BenchTarget(f"predictor cycle, {pairs} pairs, CPU s", later, CYCLE_S, "lower"))
    return Result(figures, targets)


def _cycles(pairs: int, history_s: int, repetitions: int) -> tuple[float, float]:
    predictor = Predictor(PredictorConfig(limits=WorkLimits(refit_every_s=NEVER_AGAIN_S)), background=False)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/foreseeing.db")
        try:
            rng = random.Random(1)
            for second in range(history_s):
                store.facts.add_communications(list(talk(rng, pairs, second)))
            first = cpu_s(lambda: predictor.cycle(store, START_S + history_s))
            return first, median(_later(predictor, store, pairs, range(history_s, history_s + repetitions)))
        finally:
            predictor.close()
            store.close()


def _later(predictor: Predictor, store: Store, pairs: int, seconds: range) -> Iterator[float]:
    rng = random.Random(2)
    for second in seconds:
        store.facts.add_communications(list(talk(rng, pairs, second)))
        now = START_S + second + 1
        yield cpu_s(lambda now=now: predictor.cycle(store, now))  # type: ignore[misc]


def talk(rng: random.Random, pairs: int, second: int) -> Iterator[Communication]:
    """What each pair says in a second: noise, and four times as much in 10 of every 30 s for every other pair."""
    for n in range(pairs):
        surge = 4 if n % 2 == 0 and (second + 3 * n) % 30 < 10 else 1
        count = surge * rng.randrange(1, 5)
        size = count * rng.randrange(20_000, 40_000)
        yield Communication(
            f"c{n}", f"10.9.0.{n % 4 + 1}", f"vm{n % 20}", START_S + second + 1, 1.0, size, size // 1000 + 1, count
        )
