"""Reads offered load from a CSV onto whole seconds: mends what is safe to mend and names it, refuses the rest."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtest.reading import JITTER, SPARSEST, Cells, RecordingError, read_cells
from backtest.whatif.records import Flags, Floats, OfferedLoad, ReplayScene
from cpdb import NodeKind, Pair, Seconds

BYTES, CONNECTIONS, CORES = "bytes", "connections", "cores"
# A blank cell takes the value before it for so long; a pair of which nobody knows more is taken as silent.
KEEPS_S = 5.0
# So many like distances in a row that are no single step apart are another step, not gaps.
MIXED_RUN = 6
# The finest step that is told apart from jitter.
FINEST_S = 1e-3


@dataclass(frozen=True, slots=True)
class Column:
    """What a column is about: `quantity` of a pair, or the cores of a machine."""

    name: str
    quantity: str
    pair: Pair | None = None
    vm: str = ""


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """What to read of a recording, in its own seconds: since <= t < until; below 0: before its end; None: all."""

    since: Seconds | None = None
    until: Seconds | None = None

    def bounds(self, first: Seconds, end: Seconds) -> "TimeSpan":
        """The same in absolute seconds of a recording that goes from `first` to `end`."""
        since, until = (
            default if given is None else end + given if given < 0 else given
            for given, default in ((self.since, first), (self.until, end))
        )
        return TimeSpan(since, until)


@dataclass(frozen=True, slots=True)
class GridLoad:
    """Columns on a regular grid of whole seconds: `values` cells x columns, NaN where nothing is known."""

    columns: tuple[Column, ...]
    step_s: int
    values: Floats
    notes: tuple[str, ...] = ()
    lower_bound: bool = False


@dataclass(frozen=True, slots=True)
class DeclaredNames:
    """Who may be named: sources and virtual IPs by name or address, machines by name."""

    sources: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    vms: tuple[str, ...] = ()
    streams: frozenset[str] = frozenset()

    @classmethod
    def of(cls, scene: ReplayScene) -> "DeclaredNames":
        """Those of a scene; machines of pools are among its machines."""
        sources = {key: node.name for node in scene.nodes if node.kind is not NodeKind.SWITCH
                   for key in (node.address, node.name) if key}  # fmt: skip
        services = {key: vip.address for vip in scene.virtual_ips for key in (vip.address, vip.name)}
        members = [member.vm for pool in scene.orchestrator.declared.pools for member in pool.members]
        machines = dict.fromkeys([*(vm.name for vm in scene.vms), *members])
        return cls(sources, services, tuple(machines), scene.streams)

    def pair(self, source: str, virtual_ip: str) -> Pair | None:
        """The pair that these names mean, None where one of them is not declared."""
        known = source in self.sources and virtual_ip in self.services
        return Pair(self.sources[source], self.services[virtual_ip]) if known else None


def read_load(
    path: Path, scene: ReplayScene, span: TimeSpan = TimeSpan(), say: Callable[[int], None] | None = None
) -> OfferedLoad:
    """Offered load of a CSV: `t`, SOURCE>VIP (bytes/s), SOURCE>VIP:connections (1/s), vm:NAME:cores.

    `say` is told the number of rows read. Raises RecordingError with one line: what, where and the mend.
    """
    names = DeclaredNames.of(scene)
    cells = read_cells(path, say=say)
    columns = tuple(_column(path, name, names) for name in cells.names)
    seen: dict[tuple[str, Pair | None, str], str] = {}
    for column in columns:
        key = column.quantity, column.pair, column.vm
        if key in seen:
            raise RecordingError(f"{path}:1: {seen[key]} and {column.name} mean the same; leave one of them out")
        seen[key] = column.name
    return fill_load(_on_whole_seconds(path, columns, _chosen(path, cells, span)), names)


def _column(path: Path, name: str, names: DeclaredNames) -> Column:
    where = f"{path}:1: column {name!r}"
    if name.startswith("vm:") and name.endswith(":cores"):
        vm = name.removeprefix("vm:").removesuffix(":cores")
        if vm not in names.vms:
            raise RecordingError(f"{where}: {vm!r} is no declared machine; there are {_some(names.vms)}")
        return Column(name, CORES, vm=vm)
    pair_name = name.removesuffix(f":{CONNECTIONS}")
    source, mark, service = pair_name.partition(">")
    if not mark:
        raise RecordingError(f"{where} is unknown; columns are SOURCE>VIP, SOURCE>VIP:connections or vm:NAME:cores")
    pair = names.pair(source, service)
    if pair is None and source not in names.sources:
        raise RecordingError(f"{where}: {source!r} is no declared node; add [[node]], or rename the column")
    if pair is None:
        known = [name for name, address in names.services.items() if name != address]
        raise RecordingError(f"{where}: {service!r} is no declared virtual IP; there are {_some(known)}")
    return Column(name, BYTES if pair_name == name else CONNECTIONS, pair)


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:6], f"... ({len(names)} in all)"] if len(names) > 6 else names) or "none"


def _chosen(path: Path, cells: Cells, span: TimeSpan) -> Cells:
    if not len(cells.times):
        raise RecordingError(f"{path}: has no rows; write one line a second below the header")
    bounds = span.bounds(float(cells.times.min()), math.nextafter(float(cells.times.max()), math.inf))
    within = (cells.times >= bounds.since) & (cells.times < bounds.until)
    if not within.any():
        first, last = cells.times.min(), cells.times.max()
        raise RecordingError(f"{path}: no row lies within --from and --to; its t goes from {first:g} to {last:g}")
    negative = np.argwhere(within[:, None] & (cells.values < 0))
    if len(negative):
        row, column = negative[0]
        where = f"{cells.place(str(path), int(row))}, column {cells.names[column]}"
        raise RecordingError(f"{where}: {cells.values[row, column]:g} is below 0; leave blank what is not known")
    return Cells(cells.names, cells.times[within], cells.values[within], cells.lines[within])


def _on_whole_seconds(path: Path, columns: tuple[Column, ...], cells: Cells) -> GridLoad:
    notes = []
    backwards = int(np.count_nonzero(np.diff(cells.times) < 0))
    order = np.argsort(cells.times, kind="stable")
    if backwards:
        at = cells.times[1:][np.diff(cells.times) < 0][0]
        notes.append(f"rows out of order in {backwards} places (the first at t = {at:.10g}): sorted by t")
    times = cells.times[order]
    step_s, places = _grid(path, times)
    values = np.full((int(places[-1]) + 1, len(columns)), np.nan)
    values[places] = cells.values[order]
    if step_s > 1:
        notes.append(f"rows are {step_s} s apart: each is taken as the rate of all its {step_s} seconds")
    notes += _named_gaps(places, times, step_s)
    notes += _named_blanks(columns, cells.values[order], times)
    return GridLoad(columns, step_s, values, tuple(notes))


def _grid(path: Path, times: Floats) -> tuple[int, NDArray[np.int64]]:
    """The step, and the cell of each row. Raises RecordingError for what is no grid of whole seconds."""
    apart = np.round(np.diff(times) / FINEST_S).astype(np.int64)
    if len(apart) == 0:
        return 1, np.zeros(1, dtype=np.int64)
    if (apart == 0).any():
        twice = times[1:][apart == 0][0]
        raise RecordingError(f"{path}: t = {twice:.10g} stands in two rows; leave one of them")
    kinds, counts = np.unique(np.maximum(np.round(apart * FINEST_S, 1), FINEST_S), return_counts=True)
    step_s = float(kinds[np.argmax(counts)])
    if step_s < 1 or abs(step_s - round(step_s)) > FINEST_S:
        raise RecordingError(f"{path}: rows are {step_s:g} s apart; give one row for each whole second, its mean rates")
    exact = (times - times[0]) / step_s
    places = np.round(exact).astype(np.int64)
    mend = f"rows are {step_s:g} s apart elsewhere: two steps are mixed; bring all rows onto one step"
    beside = np.flatnonzero((np.abs(exact - places) > JITTER) | (np.diff(places, prepend=-1) < 1))
    if len(beside):
        raise RecordingError(f"{path}: t = {times[beside[0]]:.10g} is not on the grid; {mend}")
    at = 0
    for distance, group in groupby(np.diff(places).tolist()):
        length = len(list(group))
        if distance > 1 and length >= MIXED_RUN:
            raise RecordingError(f"{path}: from t = {times[at]:.10g} on rows are {distance * step_s:g} s apart; {mend}")
        at += length
    if places[-1] + 1 > SPARSEST * len(times):
        raise RecordingError(f"{path}: {len(times)} rows for {times[-1] - times[0]:g} s; is t in seconds?")
    return round(step_s), places


def _named_gaps(places: NDArray[np.int64], times: Floats, step_s: int) -> Iterator[str]:
    jumps = np.flatnonzero(np.diff(places) > 1)
    if len(jumps):
        lost_s = int((np.diff(places)[jumps] - 1).sum()) * step_s
        yield (
            f"{lost_s} s without rows in {len(jumps)} gaps (the first after t = {times[jumps[0]]:.10g}): "
            "nothing is offered then and they are not judged"
        )


def _named_blanks(columns: tuple[Column, ...], values: Floats, times: Floats) -> Iterator[str]:
    empty = np.all(np.isnan(values), axis=1, keepdims=True)[:, 0]
    if empty.any():
        yield f"{int(empty.sum())} rows without any value (the first at t = {times[empty][0]:.10g}): not judged"
    blank = np.isnan(values) & ~empty[:, None]
    if blank.any():
        row, column = np.argwhere(blank)[0]
        yield (
            f"{int(blank.sum())} blank cells in {int(blank.any(axis=0).sum())} columns (the first: "
            f"{columns[column].name} at t = {times[row]:.10g}): the value before holds for {KEEPS_S:g} s, then 0"
        )


def fill_load(grid: GridLoad, names: DeclaredNames) -> OfferedLoad:
    """The load in every second: cells become seconds, what is missing is filled, what nobody knew is not judged."""
    known: Flags = ~np.all(np.isnan(grid.values), axis=1, keepdims=True)[:, 0]
    values = _filled(grid.values, grid.step_s)
    values[~known] = 0.0
    values, known = values.repeat(grid.step_s, axis=0), known.repeat(grid.step_s)
    pairs = tuple(dict.fromkeys(column.pair for column in grid.columns if column.pair is not None))
    load = OfferedLoad(
        pairs,
        np.zeros((len(known), len(pairs))),
        np.zeros((len(known), len(pairs))),
        names.vms,
        np.zeros((len(known), len(names.vms))),
        known,
        left_out=grid.notes,
        lower_bound=grid.lower_bound,
        streams=frozenset(pair for pair in pairs if pair.virtual_ip in names.streams),
    )
    pair_places = {pair: place for place, pair in enumerate(pairs)}
    for number, column in enumerate(grid.columns):
        if column.pair is None:
            load.cores[:, names.vms.index(column.vm)] = values[:, number]
        else:
            target = load.bytes_per_s if column.quantity == BYTES else load.connections_per_s
            target[:, pair_places[column.pair]] = values[:, number]
    return load


def _filled(values: Floats, step_s: int) -> Floats:
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, rows), axis=0)
    fresh = (last >= 0) & ((rows - last) * step_s <= KEEPS_S)
    held = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(fresh, held, 0.0)


def show_pair(pair: Pair, scene: ReplayScene) -> str:
    """SOURCE>VIP with the names of the settings file."""
    names = {vip.address: vip.name for vip in scene.virtual_ips}
    return f"{pair.source}>{names.get(pair.virtual_ip, pair.virtual_ip)}"
