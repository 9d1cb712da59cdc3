"""`make fuzz`: the guard under coverage-guided fuzzing (atheris), or under plain mutation where atheris is missing.

    python tests/ryu_apps/fuzz_openflow.py SECONDS [SEED]

Ends with status 0 when nothing was found; otherwise the bytes that did it are in .fuzz/ and their name is printed.
"""

import contextlib
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

try:
    import atheris
except ImportError:
    atheris = None

# What is instrumented must be imported for the first time here.
with atheris.instrument_imports(include=["ryu_apps.openflow"]) if atheris else contextlib.nullcontext():
    from ryu_apps.openflow import MalformedMessage, Phase, check

import openflow_corpus as corpus  # noqa: E402
from bounded_steps import bounded  # noqa: E402

FOUND = ROOT / ".fuzz"
# One in so many messages that pass is also read by the framework, which is slow.
TO_THE_FRAMEWORK = 40
_seen = 0


def one(data: bytes) -> None:
    """What must hold for any bytes: the guard ends, with its own error or none, and protects the framework."""
    global _seen
    for phase in Phase:
        try:
            check(data, phase)
        except MalformedMessage:
            continue
        _seen += 1
        if _seen % TO_THE_FRAMEWORK == 0:
            with bounded(len(data)), contextlib.suppress(Exception):
                corpus.read_by_framework(data)
        return


def with_true_length(data: bytes) -> bytes:
    """Without this nearly everything would end at the header."""
    return data[:2] + min(len(data), 0xFFFF).to_bytes(2) + data[4:0xFFFF] if len(data) >= 8 else data


def guided(seconds: int, seed: int) -> None:
    """Fuzzes with atheris, which ends the process itself."""
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as seeds:
        for number, message in enumerate(corpus.corpus()):
            Path(seeds, str(number)).write_bytes(message)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-timeout=20"]
        options += [f"-artifact_prefix={FOUND}/", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, seeds], lambda data: one(with_true_length(data)))
        atheris.Fuzz()


def blind(seconds: int, seed: int) -> None:
    """Fuzzes by mutation alone."""
    sound, rng, end, count = corpus.corpus(), random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        mutant = corpus.spoil(sound[count % len(sound)], rng)
        try:
            one(mutant)
        except BaseException:
            FOUND.mkdir(exist_ok=True)
            (FOUND / f"seed{seed}-{count}").write_bytes(mutant)
            print(f"found: .fuzz/seed{seed}-{count}")
            raise
        count += 1
    print(f"{count} mutants, nothing found")


def main(words: list[str]) -> None:
    """Entry point."""
    logging.disable(logging.CRITICAL)
    seconds, seed = int(words[0]), int(words[1]) if len(words) > 1 else 1
    if atheris is None:
        print("atheris is not installed: mutating without coverage")
        blind(seconds, seed)
    else:
        guided(seconds, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
