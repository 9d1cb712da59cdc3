"""The laws of the alphabet: undoing twice changes nothing, and the journal gives back what was written."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator
from cpdb import Limit, Pair, SettingsError
from orchestrator import (
    Action,
    MigrateVm,
    ReleaseBandwidth,
    ReserveBandwidth,
    ScaleIn,
    ScaleOut,
    SetCpuLimit,
    SetMemory,
    SetVcpus,
    SetWeights,
    from_json,
)

NAMES = st.text("abcdefgh123", min_size=1, max_size=8)
RATES = st.floats(0, 1e9, allow_nan=False)
PAIRS = st.builds(Pair, NAMES, NAMES)
LIMITS = st.lists(st.builds(Limit, PAIRS, RATES), max_size=3).map(tuple)
MARKS = st.none() | st.integers(0, 63)
WEIGHTS = st.dictionaries(NAMES, st.integers(0, 100), max_size=3).map(lambda one: tuple(one.items()))
HOWS = st.sampled_from(("paused", "saved", "defined", "image"))
ACTIONS = st.one_of(
    st.builds(ReserveBandwidth, NAMES, PAIRS, RATES, LIMITS, st.floats(1, 60), MARKS),
    st.builds(ReleaseBandwidth, NAMES, PAIRS, RATES, LIMITS, st.floats(1, 60), MARKS),
    st.builds(SetCpuLimit, NAMES, RATES, RATES),
    st.builds(SetVcpus, NAMES, st.integers(1, 64), st.integers(1, 64)),
    st.builds(SetMemory, NAMES, st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    st.builds(MigrateVm, NAMES, NAMES, NAMES),
    st.builds(SetWeights, NAMES, WEIGHTS, WEIGHTS),
    st.builds(ScaleOut, NAMES, NAMES, NAMES, HOWS),
    st.builds(ScaleIn, NAMES, NAMES, NAMES, HOWS),
)


@given(ACTIONS)
def test_the_inverse_of_the_inverse_is_the_action(action: Action) -> None:
    assert action.inverse().inverse() == action
    assert action.inverse().target == action.target


@given(ACTIONS)
def test_the_journal_gives_back_the_same_action(action: Action) -> None:
    assert from_json(action.kind, json.loads(json.dumps(action.to_json()))) == action
    assert action.describe() == from_json(action.kind, action.to_json()).describe()


@pytest.mark.parametrize(
    ("kind", "body"), [("fly", {}), ("migrate_vm", {"vm": "a"}), ("reserve_bandwidth", {"key": 1})]
)
def test_what_cannot_be_read_is_refused_in_one_line(kind: str, body: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        from_json(kind, body)
    assert kind in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_journal_from_before_there_were_queues_is_still_read() -> None:
    action = ReserveBandwidth("k", Pair("a", "b"), 1.0, (Limit(Pair("c", "d"), 2.0),), 8.0)
    body = {key: value for key, value in action.to_json().items() if key != "dscp"}
    assert from_json(action.kind, body) == action


MOST_TOLD_APART = 20


def test_what_differs_between_actions_stands_with_them() -> None:
    """Actions are asked what they are only where something is known of one kind alone."""
    room = Path(orchestrator.__file__).parent
    places = [
        f"{path.relative_to(room)}:{line} {name}"
        for path in sorted(room.rglob("*.py"))
        for line, name in _told_apart(ast.parse(path.read_text()))
    ]
    assert len(places) <= MOST_TOLD_APART, "\n".join(places)


def _told_apart(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and classes of each `isinstance`, `of_kind` and `case` that tells actions apart."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
                asked = kinds
            case ast.Call(func=ast.Name(id="of_kind"), args=[kinds, _]):
                asked = kinds
            case ast.MatchClass(cls=kinds):
                asked = kinds
            case _:
                continue
        names = {name.id for name in ast.walk(asked) if isinstance(name, ast.Name)} & _names_of_actions()
        if names:
            yield asked.lineno, ", ".join(sorted(names))


def _names_of_actions() -> set[str]:
    kinds, found = [Action], {"VmAction", "ScaleAction", "MachineAction"}
    while kinds:
        kind = kinds.pop()
        found.add(kind.__name__)
        kinds += kind.__subclasses__()
    return found
