"""A million spoilt messages: the guard ends on each, and what it lets through cannot make a parser loop."""

import logging
import random
from collections import Counter

import openflow_corpus as corpus
import pytest
from bounded_steps import TooManySteps, bounded

from ryu_apps.openflow import MalformedMessage, Phase, check

MUTANTS = 1_000_000
FOR_THE_FRAMEWORK = 1500
SEED = 20


def guarded(message: bytes) -> str:
    phase = Phase.HELLO if message[1:2] == b"\0" else Phase.OPEN
    try:
        check(message, phase)
    except MalformedMessage as error:
        return error.reason
    return "passed"


def test_the_guard_ends_on_a_million_mutants() -> None:
    sound, rng, seen = corpus.corpus(), random.Random(SEED), Counter[str]()
    for number in range(MUTANTS):
        seen[guarded(corpus.spoil(sound[number % len(sound)], rng))] += 1
    # Both ways are walked: a corpus that is always refused, or never, tests nothing.
    assert seen["passed"] > MUTANTS / 10
    assert seen["length"] > MUTANTS / 10
    assert set(seen) >= {"passed", "length", "value", "type", "version"}


def test_what_passes_cannot_make_the_framework_loop() -> None:
    logging.disable(logging.CRITICAL)
    sound, rng, read = corpus.corpus(), random.Random(SEED), Counter[str]()
    try:
        for number in range(FOR_THE_FRAMEWORK):
            mutant = corpus.spoil(sound[number % len(sound)], rng)
            if guarded(mutant) == "passed":
                read[_read(mutant)] += 1
    finally:
        logging.disable(logging.NOTSET)
    # Most are read; the rest are values that the framework does not know, which is an error and no loop.
    assert read["read"] > 10 * (read.total() - read["read"]) > 0


def _read(message: bytes) -> str:
    try:
        with bounded(len(message)):
            corpus.read_by_framework(message)
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return "read"


def turn_for_ever() -> None:
    while True:
        pass


def test_the_bound_itself_stops_a_loop() -> None:
    with pytest.raises(TooManySteps), bounded(10):
        turn_for_ever()
