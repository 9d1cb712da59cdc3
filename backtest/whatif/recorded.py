"""Offered load out of a database of forepath: what pairs said and machines used, and whether it was held back."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from backtest.reading import RecordingError
from backtest.whatif.recording import BYTES, CONNECTIONS, CORES, Column, DeclaredNames, GridLoad, TimeSpan, fill_load
from backtest.whatif.records import Flags, Floats, OfferedLoad, ReplayScene, RequestCost
from cpdb import LinkLoad, OutcomeKind, Pair, RetentionPolicy, Seconds, Store, VmLoad, Window

# A machine that used this share of its limit, or a link that carried this share of its capacity, may have wanted more.
HELD_CORES, HELD_LINK = 0.95, 0.85
HOLDS_BACK = ("reserve_bandwidth", "set_network_rate")
NAMED = 3


def recorded_load(
    store: Store, scene: ReplayScene, span: TimeSpan = TimeSpan(), say: Callable[[int], None] | None = None
) -> OfferedLoad:
    """What is in the database within `span` (Unix seconds), at the finest step that reaches back so far.

    What was held back - machines at their limits, full links, pairs under limits - is a lower bound and said to be one.
    Raises RecordingError where nothing is stored, StoreError.
    """
    window = _window(store, span)
    names = DeclaredNames.of(scene)
    pairs, strangers = _pairs(store, window, names)
    columns = [Column(f"{pair}", quantity, pair) for quantity in (BYTES, CONNECTIONS) for pair in pairs.values()]
    values = np.concatenate(
        [_rates(store, replace(window, quantity=quantity), pairs, say) for quantity in (BYTES, CONNECTIONS)], axis=1
    )
    cores, machines = _cores(store, window, names, values.shape[0])
    columns += [Column(f"vm:{vm}:cores", CORES, vm=vm) for vm in machines]
    nobody = np.all(np.isnan(values), axis=1, keepdims=True)[:, 0] if pairs else np.zeros(len(values), dtype=np.bool_)
    values = np.concatenate([values, _beside_requests(scene, pairs, values, cores, machines)], axis=1)
    values[nobody] = math.nan
    held = tuple(_held_back(store, scene, window))
    notes = (*_notes(nobody, window, strangers), *held)
    return fill_load(GridLoad(tuple(columns), window.step_s, values, notes, bool(held)), names)


def recorded_durations(store: Store) -> Mapping[str, tuple[Seconds, ...]]:
    """How long actions that were done took, by kind: seconds from decision to effect."""
    found: dict[str, list[Seconds]] = defaultdict(list)
    for action in store.journal.actions():
        if action.outcome is OutcomeKind.DONE and action.timing.ready_at is not None:
            found[action.kind].append(max(0.0, action.timing.ready_at - action.issued_at))
    return {kind: tuple(lasted) for kind, lasted in found.items()}


def _window(store: Store, span: TimeSpan) -> Window:
    """The finest resolution that holds the beginning of the span; without one, the finest that holds anything."""
    newest = store.facts.span()
    tiers = [tier for tier in store.read_usage(newest[1] if newest else 0.0, RetentionPolicy()).tiers if tier.since]
    if not tiers:
        raise RecordingError("the database holds no communications; name one that forepath has written to")
    for tier in tiers:
        first, end = float(tier.since or 0.0) - tier.step_s, float(tier.until or 0.0)
        bounds = span.bounds(first, end)
        since, until = max(float(bounds.since or 0.0), first), min(float(bounds.until or 0.0), end)
        if span.since is None or float(bounds.since or 0.0) >= first or tier is tiers[-1]:
            break
    if until - since < tier.step_s:
        raise RecordingError(f"nothing is stored within --from and --to; there is {first:.0f} to {end:.0f} (Unix time)")
    return Window(tier.step_s, math.floor(since / tier.step_s) * tier.step_s, until)


def _pairs(store: Store, window: Window, names: DeclaredNames) -> tuple[dict[Pair, Pair], list[str]]:
    """Stored pairs by declared ones, and those that the settings do not declare."""
    found, strangers = {}, []
    for stored in store.series.pairs(window):
        pair = names.pair(stored.source, stored.virtual_ip)
        if pair is None:
            strangers.append(f"{stored.source}>{stored.virtual_ip}")
        else:
            found[stored] = pair
    return found, strangers


def _rates(store: Store, window: Window, pairs: Mapping[Pair, Pair], say: Callable[[int], None] | None) -> Floats:
    """Rates per second, cells x pairs, NaN where nobody looked."""
    rows = []
    for t, rates in store.series.rows(window):
        rows.append([rates.get(stored, math.nan) for stored in pairs])
        if say and len(rows) % 500 == 0:
            say(t - round(window.since))
    return np.array(rows, dtype=np.float64).reshape(-1, len(pairs))


def _cores(store: Store, window: Window, names: DeclaredNames, cells: int) -> tuple[Floats, tuple[str, ...]]:
    """Mean cores that machines used, cells x machines, NaN where nobody looked."""
    sums: dict[str, Floats] = {}
    for load in store.facts.loads(VmLoad, window.since, window.until):
        if load.vm in names.vms:
            cell = min(math.ceil((load.t - window.since) / window.step_s), cells) - 1
            sums.setdefault(load.vm, np.zeros((2, cells)))[:, cell] += load.cpu_cores_used, 1.0
    means = [np.where(count > 0, total / np.maximum(count, 1.0), math.nan) for total, count in sums.values()]
    return np.array(means, dtype=np.float64).reshape(-1, cells).T, tuple(sums)


def _beside_requests(
    scene: ReplayScene, pairs: Mapping[Pair, Pair], rates: Floats, cores: Floats, machines: tuple[str, ...]
) -> Floats:
    """Without what requests cost: their share of a machine by declared weights, its prices by the settings."""
    result = cores.copy()
    known = np.nan_to_num(rates)
    for number, pair in enumerate(pairs.values()):
        vip = next(vip for vip in scene.virtual_ips if vip.address == pair.virtual_ip)
        for name, share in vip.shares({}, {}).items():
            price = scene.costs.get(name, RequestCost())
            work = known[:, len(pairs) + number] * price.cpu_ms_per_connection
            work += known[:, number] * price.cpu_ms_per_mb / 1e6
            if name in machines:
                result[:, machines.index(name)] -= share * work / 1e3
    return np.maximum(result, 0.0)


def _held_back(store: Store, scene: ReplayScene, window: Window) -> Iterator[str]:
    """What shows that more may have been wanted than was measured, a sentence each."""
    at_limit: dict[str, int] = defaultdict(int)
    for load in store.facts.loads(VmLoad, window.since, window.until):
        at_limit[load.vm] += 0 < HELD_CORES * load.cpu_cores_limit <= load.cpu_cores_used
    if full := {name: count for name, count in at_limit.items() if count}:
        yield f"a lower bound of CPU: at their limits were {_counted(full)}"
    capacities = {
        ends: link.capacity_bytes_per_s for link in scene.links for ends in ((link.a, link.b), (link.b, link.a))
    }
    filled: dict[str, int] = defaultdict(int)
    for link in store.facts.loads(LinkLoad, window.since, window.until):
        most = capacities.get((link.from_node, link.to_node)) or math.inf
        filled[f"{link.from_node}>{link.to_node}"] += link.bytes / link.interval_s > HELD_LINK * most
    if full := {name: count for name, count in filled.items() if count}:
        yield f"a lower bound of traffic: {100 * HELD_LINK:.0f} % full or more were {_counted(full)}"
    limiting = sum(
        action.kind in HOLDS_BACK and action.outcome is OutcomeKind.DONE and action.issued_at <= window.until
        for action in store.journal.actions(since=window.since)
    )
    if limiting:
        yield f"a lower bound of traffic: competitors were limited by {limiting} actions while it was recorded"


def _counted(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(largest) - NAMED} more" if len(largest) > NAMED else ""
    return ", ".join(f"{name} ({count} times)" for name, count in largest[:NAMED]) + more


def _notes(nobody: Flags, window: Window, strangers: list[str]) -> Iterator[str]:
    if window.step_s > 1:
        yield f"stored in steps of {window.step_s} s: each is taken as the rate of all its {window.step_s} seconds"
    if nobody.any():
        yield f"{int(nobody.sum()) * window.step_s} s in which nobody counted: not judged"
    if strangers:
        more = f" and {len(strangers) - NAMED} more" if len(strangers) > NAMED else ""
        yield f"not declared in the settings, left out: {', '.join(strangers[:NAMED])}{more}"
