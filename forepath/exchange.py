"""Between the database and CSV: first column t (Unix seconds), then one column a series, blank where it is missing."""

import csv
import hashlib
import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from cpdb import QUANTITIES, Batch, FlowKey, Store, TableError, VmLoad, Window, open_table, show_time

OBSERVER = "import"
BATCHES_AT_ONCE = 200
# Clocks differ; what is later than this was not measured yet.
FUTURE_S = 86_400.0
MOST_COUNTED = 2.0**63
Told = Callable[[float], None]


# Every quantity that a replay is made of, in one file: bytes, connections, and CPU of machines.
ALL, CONNECTIONS = "all", "connections"


def export(store: Store, window: Window, target: TextIO, told: Told) -> tuple[int, int]:
    """Writes rates per second, a column a pair named source>virtual_ip. Returns (rows, series).

    A window of ALL adds source>virtual_ip:connections and vm:NAME:cores: a recording for `forepath whatif`.
    `told` hears the share that is done. Raises StoreError.
    """
    everything = window.quantity == ALL
    windows = [replace(window, quantity=name) for name in ("bytes", CONNECTIONS)] if everything else [window]
    suffixes = ["", f":{CONNECTIONS}"] if everything else [""]
    cores = _mean_cores(store, window) if everything else {}
    pairs, vms = store.series.pairs(windows[0]), sorted({vm for used in cores.values() for vm in used})
    writer = csv.writer(target, lineterminator="\n")
    names = [f"{pair.source}>{pair.virtual_ip}{suffix}" for suffix in suffixes for pair in pairs]
    writer.writerow(["t", *names, *(f"vm:{vm}:cores" for vm in vms)])
    count, span_s = 0, max(window.until - window.since, 1.0)
    for rows in zip(*(store.series.rows(one) for one in windows), strict=True):
        t, used = rows[0][0], cores.get(rows[0][0], {})
        rates = [_number(row.get(pair)) for _, row in rows for pair in pairs]
        writer.writerow([t, *rates, *(_number(used.get(vm)) for vm in vms)])
        count += 1
        told(min(1.0, (t - window.since) / span_s))
    return count, len(names) + len(vms)


def _mean_cores(store: Store, window: Window) -> dict[int, dict[str, float]]:
    """Mean cores that machines used, by the end of each bucket."""
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for load in store.facts.loads(VmLoad, window.since, window.until):
        found[math.ceil(load.t / window.step_s) * window.step_s][load.vm].append(load.cpu_cores_used)
    return {t: {vm: sum(used) / len(used) for vm, used in machines.items()} for t, machines in found.items()}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if value < 1e6 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class Wish:
    """How to read a CSV: rates of which quantity, their step (None: from t), and what to shift times by.

    `virtual_ip` is taken for columns that do not name one. Nothing may be later than `now`, where that is given.
    """

    quantity: str = "bytes"
    step_s: float | None = None
    virtual_ip: str | None = None
    ending_at: float | None = None
    now: float | None = None


@dataclass(frozen=True, slots=True)
class SeriesColumn:
    """One of QUANTITIES of a pair, per second."""

    flow_key: FlowKey
    quantity: str


def load(store: Store, path: Path, wish: Wish, told: Told) -> tuple[int, int]:
    """Reads a CSV into batches, each row one; read twice, it is stored once. Returns (rows, values).

    Raises TableError with file, line and what is wrong, before anything of a wrong row is written; StoreError.
    """
    times = [t for t, _ in _rows(path, wish)]
    step_s, shift_s = _spacing(path, times, wish), 0.0
    if wish.ending_at is not None:
        shift_s = math.floor(wish.ending_at - times[-1])
    identity = f"{OBSERVER}/{_digest(path)}/{wish.quantity}/{shift_s:.0f}"
    columns = _columns(path, wish)
    values, waiting = 0, []
    for number, (t, cells) in enumerate(_rows(path, wish), 1):
        known = {column: cell for column, cell in zip(columns, cells, strict=True) if column and cell is not None}
        values += len(known)
        if any(cell * step_s >= MOST_COUNTED for cell in known.values()):
            raise TableError(f"{path}: t = {show_time(t)}: more than any counter holds in {step_s:g} s; leave it blank")
        waiting.append(replace(_batch(t + shift_s, step_s, known), writer=identity, seq=number))
        if len(waiting) == BATCHES_AT_ONCE or number == len(times):
            store.facts.add_batches(waiting)
            waiting = []
            told(number / len(times))
    return len(times), values


def _batch(t: float, step_s: float, known: Mapping[SeriesColumn, float]) -> Batch:
    flow_keys = list(dict.fromkeys(column.flow_key for column in known))
    places = {flow_key: place for place, flow_key in enumerate(flow_keys)}
    counts = {name: array("q", bytes(8 * len(flow_keys))) for name in QUANTITIES}
    for column, value in known.items():
        counts[column.quantity][places[column.flow_key]] = round(value * step_s)
    sizes, packets, connections = (counts[name] for name in QUANTITIES)
    return Batch(OBSERVER, t, step_s, flow_keys, sizes, packets, connections)


def _spacing(path: Path, times: Sequence[float], wish: Wish) -> float:
    if wish.step_s is not None:
        return wish.step_s
    gaps = sorted(after - before for before, after in pairwise(times))
    if not gaps:
        raise TableError(f"{path}: a single row does not tell its step; give --step SECONDS")
    return gaps[len(gaps) // 2]


def _columns(path: Path, wish: Wish) -> list[SeriesColumn | None]:
    """What each column holds; None for CPU of machines, which is measured where they run and not read in."""
    with open_table(path) as table:
        names = table.names
    found: list[SeriesColumn | None] = []
    unclear = []
    for name in names:
        if name.startswith("vm:") and name.endswith(":cores"):
            found.append(None)
            continue
        pair, connections = name.removesuffix(f":{CONNECTIONS}"), name.endswith(f":{CONNECTIONS}")
        source, mark, virtual_ip = pair.partition(">")
        if not mark and wish.virtual_ip is None:
            unclear.append(name)
        flow_key = FlowKey(source, virtual_ip or wish.virtual_ip or "", None)
        found.append(SeriesColumn(flow_key, CONNECTIONS if connections else wish.quantity))
    if unclear:
        shown = ", ".join(unclear[:3]) + ("..." if len(unclear) > 3 else "")
        raise TableError(f"{path}: {shown}: not source>virtual_ip; rename the columns or give --virtual-ip ADDRESS")
    if any(len(word) > 64 for column in found if column for word in column.flow_key[:2] if word):
        raise TableError(f"{path}: a source or virtual IP has more than 64 letters; rename the column")
    return found


def _rows(path: Path, wish: Wish) -> Iterator[tuple[float, list[float | None]]]:
    before = -math.inf
    with open_table(path) as table:
        for line in table.lines:
            where = f"{path}:{line.number}"
            if line.t <= before:
                raise TableError(f"{where}: t = {show_time(line.t)} does not come after the line before; sort by t")
            if line.t < 0:
                raise TableError(f"{where}: t = {show_time(line.t)} is before 1970")
            if wish.ending_at is None and wish.now is not None and line.t > wish.now + FUTURE_S:
                raise TableError(f"{where}: t = {show_time(line.t)} lies in the future; --ending-now shifts all times")
            for name, value in zip(table.names, line.values, strict=True):
                if value is not None and value < 0:
                    raise TableError(
                        f"{where}: column {name}: {value:g} is below 0; leave it blank where it is missing"
                    )
            before = line.t
            yield line.t, line.values
    if before == -math.inf:
        raise TableError(f"{path}: no rows below the header")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]
