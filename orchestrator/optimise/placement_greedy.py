"""Moves one guest at a time, the one that pays most, until no move pays: fast, and good enough to fall back on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.optimise.placement import Floats, Ints, Problem, loads, shortage

# Below this, rounding could make two moves take turns for ever.
LEAST_GAIN = 1e-9
LEAVING = 1e6


@dataclass(slots=True)
class _GreedyState:
    """An answer under construction with what follows from it."""

    problem: Problem
    where: Ints
    carried: Floats
    short: Floats
    memory: Floats
    crowd: dict[tuple[int, int], int]


def improve(problem: Problem, start: Ints | None = None, most_moves: int = 1000) -> Ints:
    """Guest -> host, never dearer than `start` (default: as it is now); guests on closed hosts leave if they can.

    Hosts are looked at in order of their trouble; one where no move pays is left alone until something changes there.
    """
    state = _begin(problem, problem.now if start is None else start)
    settled = np.zeros(problem.hosts, dtype=bool)
    for _ in range(most_moves):
        host = _most_troubled(state, settled)
        if host is None:
            break
        best = _best_move(state, host)
        if best is None:
            settled[host] = True
            continue
        settled[[host, best[1]]] = False
        _move(state, *best)
    return state.where


def _begin(problem: Problem, where: Ints) -> _GreedyState:
    carried = loads(problem, where)
    crowd: dict[tuple[int, int], int] = {}
    for guest in np.flatnonzero(problem.apart >= 0):
        key = int(problem.apart[guest]), int(where[guest])
        crowd[key] = crowd.get(key, 0) + 1
    memory = np.bincount(where, weights=problem.memory, minlength=problem.hosts).astype(float)
    return _GreedyState(problem, where.copy(), carried, shortage(problem, carried), memory, crowd)


def _most_troubled(state: _GreedyState, settled: NDArray[np.bool_]) -> int | None:
    """The host whose guests have most to gain elsewhere: closed ones first, then the shortest, then the farthest."""
    problem, where = state.problem, state.where
    rows = np.arange(problem.guests)
    detour = problem.moving[rows, where] - problem.moving.min(axis=1)
    trouble = state.short + np.bincount(where, weights=np.where(problem.movable, detour, 0.0), minlength=problem.hosts)
    trouble += LEAVING * (problem.closed & (np.bincount(where[problem.movable], minlength=problem.hosts) > 0))
    for (_, host), members in state.crowd.items():
        trouble[host] += LEAVING * (members > 1)
    trouble[settled] = 0.0
    host = int(np.argmax(trouble))
    return host if trouble[host] > LEAST_GAIN else None


def _best_move(state: _GreedyState, host: int) -> tuple[int, int] | None:
    best, move = LEAST_GAIN, None
    for guest in np.flatnonzero((state.where == host) & state.problem.movable):
        gains = _gains(state, int(guest))
        target = int(np.argmax(gains))
        if gains[target] > best:
            best, move = float(gains[target]), (int(guest), target)
    return move


def _gains(state: _GreedyState, guest: int) -> Floats:
    """What a move to each host (H) would save; minus infinity where it cannot go."""
    problem, here = state.problem, int(state.where[guest])
    need = problem.need[:, :, guest]
    left = np.maximum(state.carried[:, :, here] - need - problem.capacity[:, here], 0.0).mean(axis=0)
    relief = state.short[here] - problem.price @ left
    joined = np.maximum(state.carried + need[:, :, None] - problem.capacity, 0.0).mean(axis=0)
    burden = problem.price @ joined - state.short
    gains = relief - burden - (problem.moving[guest] - problem.moving[guest, here])
    gains += LEAVING * (problem.closed[here] + _rivals(state, guest, here, 1))
    blocked = (state.memory + problem.memory[guest] > problem.memory_capacity) | problem.closed
    blocked[here] = True
    if problem.apart[guest] >= 0:
        blocked |= np.array([_rivals(state, guest, host, 0) > 0 for host in range(problem.hosts)])
    return np.where(blocked, -np.inf, gains)


def _rivals(state: _GreedyState, guest: int, host: int, own: int) -> int:
    group = int(state.problem.apart[guest])
    return 0 if group < 0 else max(0, state.crowd.get((group, host), 0) - own)


def _move(state: _GreedyState, guest: int, host: int) -> None:
    problem, here = state.problem, int(state.where[guest])
    state.where[guest] = host
    group = int(problem.apart[guest])
    for place, sign in ((here, -1), (host, 1)):
        state.carried[:, :, place] += sign * problem.need[:, :, guest]
        state.memory[place] += sign * problem.memory[guest]
        over = np.maximum(state.carried[:, :, place] - problem.capacity[:, place], 0.0).mean(axis=0)
        state.short[place] = problem.price @ over
        if group >= 0:
            state.crowd[group, place] = state.crowd.get((group, place), 0) + sign
