"""Builds linear and mixed-integer programs block by block and has HiGHS solve them: the one place that speaks to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cpdb import Seconds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
UNLIMITED = np.inf
Manner = Mapping[str, Any]
# As HiGHS likes best
USUAL: Manner = {}
# By the simplex method, from where it was: best where little has to change, for then presolve costs more than it saves.
ONWARDS: Manner = {"presolve": "off", "simplex_scale_strategy": 0}
# By an interior point without crossover: the middle of all cheapest values, where a simplex ends in a corner of them.
MIDDLE: Manner = {"solver": "ipm", "run_crossover": "off"}


class Term(NamedTuple):
    """A part of rows: `coefficients` (rows x len(columns), sparse or dense) times the variables `columns`."""

    columns: Ints
    coefficients: Any


@dataclass(frozen=True, slots=True)
class Solution:
    """Values of all variables, what they cost, a bound that no values can beat, and each row's shadow price.

    `proven`: best within the gap that was asked for. `prices` are 0 for programs with integers.
    """

    values: Floats
    cost: float
    bound: float
    proven: bool
    prices: Floats


class _VariableBlock(NamedTuple):
    cost: Floats
    lower: Floats
    upper: Floats
    integer: Bools


class _RowBlock(NamedTuple):
    lower: Floats
    upper: Floats
    row: Ints
    column: Ints
    value: Floats


class LinearProgram:
    """Minimises cost @ x over lower <= x <= upper, so that each row's terms add up to what is between its limits."""

    def __init__(self) -> None:
        self._variables: list[_VariableBlock] = []
        self._rows: list[_RowBlock] = []
        self._columns = 0
        self._height = 0
        self._highs: highspy.Highs | None = None
        self._passed = 0

    def add_variables(
        self, cost: Floats, lower: float | Floats = 0.0, upper: float | Floats = UNLIMITED, integer: bool = False
    ) -> Ints:
        """New variables, one for each entry of `cost`; returns their columns."""
        count = len(cost)
        self._variables.append(
            _VariableBlock(cost, _spread(lower, count), _spread(upper, count), np.full(count, integer, dtype=bool))
        )
        self._columns += count
        return np.arange(self._columns - count, self._columns)

    def add_rows(self, lower: float | Floats, upper: float | Floats, terms: Sequence[Term]) -> Ints:
        """New rows: lower <= the sum of all terms <= upper, as many as the terms have; returns their numbers."""
        count = terms[0].coefficients.shape[0]
        low, high = _spread(lower, count), _spread(upper, count)
        nothing = np.empty(0)
        for term in terms:
            part = sparse.coo_array(term.coefficients)
            row, column = part.coords
            self._rows.append(_RowBlock(low, high, row + self._height, term.columns[column], part.data))
            low, high = nothing, nothing
        self._height += count
        return np.arange(self._height - count, self._height)

    def solve(self, limit_s: Seconds = UNLIMITED, gap: float = 0.0, manner: Manner = USUAL) -> Solution | None:
        """The cheapest values; None where there are none, or none were found within `limit_s`.

        `gap`: an answer with integers that is so near to the bound, in shares of its cost, is good enough. Solved
        ONWARDS again with more rows, it goes on from where it was.
        """
        mixed = any(part.integer.any() for part in self._variables)
        highs = self._highs if manner is ONWARDS else None
        if highs is None:
            highs = self._highs = highspy.Highs()
            options = {"output_flag": False, "time_limit": float(limit_s), "mip_rel_gap": gap, **manner}
            for option, value in options.items():
                highs.setOptionValue(option, value)
            highs.passModel(self._model(mixed))
        else:
            self._pass_new_rows(highs)
        self._passed = len(self._rows)
        highs.run()
        info, found = highs.getInfo(), highs.getSolution()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        cost = float(info.objective_function_value)
        return Solution(
            np.asarray(found.col_value, dtype=np.float64),
            cost,
            float(info.mip_dual_bound) if mixed else cost,
            highs.getModelStatus() == highspy.HighsModelStatus.kOptimal,
            np.asarray(found.row_dual, dtype=np.float64) if found.dual_valid else np.zeros(self._height),
        )

    def _pass_new_rows(self, highs: highspy.Highs) -> None:
        rows = _RowBlock(*map(np.concatenate, zip(*self._rows[self._passed :], strict=True)))
        first, count = self._height - len(rows.lower), len(rows.lower)
        shape = (count, self._columns)
        matrix = sparse.csr_array((rows.value, (rows.row - first, rows.column)), shape=shape)
        starts = matrix.indptr[:-1].astype(np.int32)
        highs.addRows(count, rows.lower, rows.upper, matrix.nnz, starts, matrix.indices.astype(np.int32), matrix.data)

    def _model(self, mixed: bool) -> highspy.HighsLp:
        variables = _VariableBlock(*map(np.concatenate, zip(*self._variables, strict=True)))
        rows = _RowBlock(*map(np.concatenate, zip(*self._rows, strict=True)))
        matrix = sparse.csc_array((rows.value, (rows.row, rows.column)), shape=(self._height, self._columns))
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self._columns, self._height
        model.col_cost_, model.col_lower_, model.col_upper_ = variables.cost, variables.lower, variables.upper
        model.row_lower_, model.row_upper_ = rows.lower, rows.upper
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_, model.a_matrix_.index_ = matrix.indptr, matrix.indices
        model.a_matrix_.value_ = matrix.data
        if mixed:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[whole] for whole in variables.integer.astype(int)]
        return model


def _spread(values: float | Floats, count: int) -> Floats:
    return np.broadcast_to(np.asarray(values, dtype=np.float64), count)


def sums_of(group: Ints, weights: Floats | None = None, groups: int | None = None) -> Any:
    """Coefficients (groups x variables) of one row for each group: the sum of its variables, each by its weight."""
    count = len(group)
    rows = int(group.max(initial=-1)) + 1 if groups is None else groups
    values = np.ones(count) if weights is None else weights
    return sparse.csr_array((values, (group, np.arange(count))), shape=(rows, count))
