"""What page and API tell of the network: the topology and its use ahead, a pair, a link, a machine, a service."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from cpdb import (
    HostLoad,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    Pair,
    Quantity,
    Reservation,
    SettingsError,
    Subject,
    SubjectForecast,
    SubjectKind,
    VmLoad,
    WantedSplit,
)
from forepath import forecasts, views
from forepath.paths import LinkView, PathFinder, links
from forepath.web.reader import StoreMoment
from orchestrator import described
from predictor import FAST, SLOW

HISTORY_S = 120.0
LONGEST_STEP_S = 60
DOING_S, DOING_MOST = 60.0, 8
ABOUT_S, ABOUT_MOST = 86_400.0, 2_000
MOVES_S = 3600.0
FORESEEN_EVERY_S = 5.0
USUAL_HORIZONS_S = (5, 15, 30)
MOST_ROWS = 200
Json = dict[str, Any]


class Slice(NamedTuple):
    """Which rows of many: at most `limit`, after the first `offset`."""

    limit: int
    offset: int

    def of(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Those rows."""
        return rows[self.offset : self.offset + self.limit]


def tell_topology(at: StoreMoment, ahead_s: float) -> Json:
    """Nodes and links with their use now and `ahead_s` seconds ahead, and what forepath is doing about it."""
    foreseen, note = _ahead(at, ahead_s)
    finder = PathFinder.of(at.store, at.now, ahead_s)
    found = links(at.store, at.now, foreseen, finder.path)
    nodes, wires = at.store.inventory.nodes(), at.store.inventory.links()
    machines = {one.vm: one for one in views.newest_vm_loads(at.store, at.now)}
    needs = _cpu_needs(at, foreseen.horizon_s, foreseen.tier)
    return {
        "now": at.now,
        "ahead_s": ahead_s,
        "horizon_s": foreseen.horizon_s if ahead_s else 0,
        "tier": foreseen.tier,
        "issued_at": foreseen.issued_at,
        "note": note,
        "horizons_s": [0, *_horizons(at)],
        "nodes": [_node(one, machines.get(one.name), needs) for one in _shown(nodes, wires, machines)],
        "links": [tell_link_use(one, ahead_s) for one in found],
        "hosts": [_host(one, needs) for one in views.newest_host_loads(at.store, at.now)],
        "doing": tell_doing(at),
        "shortage": next_shortage(at),
    }


def _ahead(at: StoreMoment, ahead_s: float) -> tuple[forecasts.Ahead, str]:
    """What is foreseen, and what is to be said about it; nothing is where no forecast reaches so far."""
    try:
        foreseen = forecasts.ahead(at.store, at.now, ahead_s)
    except SettingsError as error:
        return forecasts.Ahead(ahead_s, round(ahead_s), FAST, None, {}, {}), f"{error}; shown is what is measured"
    if foreseen.issued_at is None and ahead_s:
        return foreseen, "no fresh forecast (is forepath predict running?): what is measured is taken to go on"
    return foreseen, ""


def _horizons(at: StoreMoment) -> list[int]:
    issues = (forecasts.issue(at.store, at.now, SubjectKind.PAIR, tier) for tier in (FAST, SLOW))
    return sorted({far for one in issues if one for far in one.horizons_s}) or list(USUAL_HORIZONS_S)


def _shown(nodes: Iterable[Node], wires: Sequence[Link], machines: dict[str, VmLoad]) -> Iterator[Node]:
    ends = {end for one in wires for end in (one.a, one.b)}
    return (one for one in nodes if one.name in ends or one.name in machines or one.attached_to)


def _cpu_needs(at: StoreMoment, horizon_s: int, tier: str) -> dict[str, SubjectForecast]:
    """The peak of CPU foreseen of each machine and host within the horizon, where something is."""
    found: dict[str, SubjectForecast] = {}
    for kind in (SubjectKind.VM, SubjectKind.HOST):
        batch = forecasts.issue(at.store, at.now, kind, tier)
        rows = batch.rows(horizons_s=(horizon_s,), quantities=(Quantity.CPU_PEAK,)) if batch else ()
        found |= {row.subject.a: row for row in rows if row.subject.kind is kind}
    return found


def _node(one: Node, load: VmLoad | None, needs: dict[str, SubjectForecast]) -> Json:
    row: Json = {"name": one.name, "kind": one.kind.value, "address": one.address, "attached_to": one.attached_to}
    if load is None:
        return row
    need = needs.get(one.name)
    return row | {
        "host": load.host,
        "state": load.state,
        "cpu_cores_used": load.cpu_cores_used,
        "cpu_cores_limit": load.cpu_cores_limit,
        "cpu_cores_q90": need.at(0.9) if need else None,
        "share": _share(load.cpu_cores_used, load.cpu_cores_limit),
        "share_q90": _share(need.at(0.9), load.cpu_cores_limit) if need else None,
    }


def _host(one: HostLoad, needs: dict[str, SubjectForecast]) -> Json:
    need = needs.get(one.host)
    return asdict(one) | {
        "cpu_cores_q90": need.at(0.9) if need else None,
        "share": _share(one.cpu_cores_used, one.cpu_cores_capacity),
        "share_q90": _share(need.at(0.9), one.cpu_cores_capacity) if need else None,
    }


def _share(amount: float, of: float) -> float | None:
    return amount / of if of > 0 else None


def tell_link_use(view: LinkView, ahead_s: float) -> Json:
    """One direction of a link; `share` is of the moment that is looked at: measured now, or the 0.9 quantile ahead."""
    return {
        "from": view.from_node,
        "to": view.to_node,
        "capacity_bytes_per_s": view.capacity_bytes_per_s,
        "bytes_per_s": view.bytes_per_s,
        "predicted": asdict(view.predicted),
        "share_now": view.share(view.bytes_per_s),
        "share_q50": view.share(view.predicted.q50),
        "share_q90": view.share(view.predicted.q90),
        "share": view.share(view.predicted.q90) if ahead_s else view.share(view.bytes_per_s),
        "pairs": len(view.parts),
    }


def tell_doing(at: StoreMoment) -> list[Json]:
    """What forepath does or has just done or advised, newest first."""
    found = at.store.journal.actions(since=at.now - DOING_S, until=at.now, limit=DOING_MOST)
    return [tell_action(one) for one in found]


def tell_action(one: Any) -> Json:
    """One action in short."""
    return {
        "id": one.id,
        "what": described(one),
        "kind": one.kind,
        "target": one.target,
        "outcome": one.outcome.value,
        "why": one.why,
        "issued_at": one.issued_at,
        "needed_at": one.timing.needed_at,
    }


def next_shortage(at: StoreMoment) -> Json | None:
    """The need that comes first of those that planning has named in the last minute, beyond what is there."""
    recent = at.store.journal.actions(since=at.now - DOING_S, until=at.now)
    ahead = (one for one in recent if (one.timing.needed_at or 0.0) > at.now and _lacks(one.reason))
    first = min(ahead, key=lambda one: one.timing.needed_at or 0.0, default=None)
    if first is None:
        return None
    kept = {name: first.reason.get(name) for name in ("need", "available", "capacity", "unit", "where")}
    return tell_action(first) | kept


def _lacks(reason: Mapping[str, Any]) -> bool:
    return "need" in reason and reason["need"] > reason.get("available", inf)


def tell_pairs(at: StoreMoment, part: Slice) -> Json:
    """All pairs that spoke or are expected to, busiest expectation first."""
    found = views.pairs(at.store, at.now)
    shown = [asdict(one) for one in part.of(found)]
    return {"now": at.now, "total": len(found), **part._asdict(), "pairs": shown}


def tell_pair(at: StoreMoment, source: str, virtual_ip: str) -> Json:
    """One pair: what it did, what is expected, how far that is trusted, and what had been expected of the past.

    Raises SettingsError when nobody has ever heard of it.
    """
    vip = next((one for one in at.store.inventory.virtual_ips() if virtual_ip in (one.name, one.address)), None)
    pair = Pair(source, vip.address if vip else virtual_ip)
    keys = at.store.facts.flow_keys().values()
    destinations = [key.destination for key in keys if (key.source, key.virtual_ip) == (source, pair.virtual_ip)]
    subject = Subject(SubjectKind.PAIR, source, pair.virtual_ip)
    fans = tell_fans(at, subject, Quantity.BYTES_PEAK)
    if not destinations and not fans:
        raise SettingsError(f"{source} has never spoken to {virtual_ip}; the list of pairs shows who has")
    trusts = forecasts.trust(at.store, at.now, subject, at.now - MOVES_S)
    return {
        "now": at.now,
        "pair": asdict(pair),
        "service": vip.name if vip else pair.virtual_ip,
        "destinations": sorted(filter(None, set(destinations))),
        "history": at.store.series.history(pair, at.now - _history_s(at), at.now),
        "fans": fans,
        "foreseen": _foreseen(at, subject, Quantity.BYTES_PEAK),
        "trust": {tier: asdict(one) | {"sentence": one.describe()} for tier, one in trusts.tiers.items()},
        "moves": [{name: getattr(one, name) for name in ("t", "from_s", "to_s", "reason")} for one in trusts.moves],
        "path": _path(at, source, pair.virtual_ip),
        "reservations": [asdict(one) for one in at.store.wanted.reservations_at(at.now) if one.pair == pair],
    }


def _history_s(at: StoreMoment) -> float:
    """How far back history is shown: farther where it is only known in longer steps."""
    return HISTORY_S if at.live else HISTORY_S * min(at.store.series.step_at(at.now), LONGEST_STEP_S)


def tell_fans(at: StoreMoment, subject: Subject, quantity: Quantity) -> Json:
    """By tier: what is expected of a subject within each horizon, as quantiles, and which model has most say."""
    issues = {tier: forecasts.issue(at.store, at.now, subject.kind, tier) for tier in (FAST, SLOW)}
    found = {tier: list(one.rows((subject,), None, (quantity,))) for tier, one in issues.items() if one}
    return {
        tier: [{"horizon_s": one.horizon_s, "model": one.model, "quantiles": dict(one.quantiles)} for one in rows]
        for tier, rows in found.items()
        if rows
    }


def _foreseen(at: StoreMoment, subject: Subject, quantity: Quantity) -> list[Json]:
    """What issues of the last minutes had said of windows that are over by now: of the shortest horizon."""
    found = []
    for step in range(int(HISTORY_S // FORESEEN_EVERY_S), 0, -1):
        issued = at.store.forecasts.batch(at.now - step * FORESEEN_EVERY_S, FORESEEN_EVERY_S)
        horizon_s = issued.horizons_s[0] if issued else 0
        said = issued.said(subject, horizon_s, quantity) if issued else None
        if issued and said and issued.issued_at + horizon_s <= at.now:
            band = {f"q{round(100 * level)}": said.at(level) for level in (0.1, 0.5, 0.9)}
            found.append({"t": issued.issued_at + horizon_s, "horizon_s": horizon_s, **band})
    return found


def _path(at: StoreMoment, source: str, to: str) -> Json | None:
    try:
        return asdict(PathFinder.of(at.store, at.now).to_service(source, to, at.now))
    except SettingsError:
        return None


def tell_link(at: StoreMoment, from_node: str, to_node: str, ahead_s: float) -> Json:
    """One direction of a link: who loads it now and ahead, what is reserved across it, which splits use it.

    Raises SettingsError when there is no such link.
    """
    foreseen, note = _ahead(at, ahead_s)
    finder = PathFinder.of(at.store, at.now, ahead_s)
    found = links(at.store, at.now, foreseen, finder.path)
    view = next((one for one in found if (one.from_node, one.to_node) == (from_node, to_node)), None)
    if view is None:
        raise SettingsError(f"no link from {from_node} to {to_node} is known")
    hop = (from_node, to_node)
    held = at.store.wanted.reservations_at(at.now)
    loads = at.store.facts.loads(LinkLoad, at.now - _history_s(at), at.now)
    return tell_link_use(view, ahead_s) | {
        "now": at.now,
        "ahead_s": ahead_s,
        "horizons_s": [0, *_horizons(at)],
        "note": note,
        "parts": [asdict(one) for one in view.parts[:MOST_ROWS]],
        "others_bytes_per_s": view.others_bytes_per_s,
        "by_link": asdict(view.by_link) if view.by_link else None,
        "history": [_rate_point(one) for one in loads if (one.from_node, one.to_node) == hop],
        "fans": tell_fans(at, Subject(SubjectKind.LINK, *hop), Quantity.BYTES_PEAK),
        "reservations": [asdict(one) for one in held if hop in _hops(finder, one)],
        "splits": [asdict(one) for one in at.store.wanted.splits() if hop in _split_hops(one)],
    }


def _rate_point(one: LinkLoad) -> Json:
    return {"t": one.t, "bytes_per_s": one.bytes / one.interval_s if one.interval_s else 0.0, "drops": one.drops}


def _hops(finder: PathFinder, one: Reservation) -> set[tuple[str, str]]:
    return set(pairwise(finder.path(one.pair.source, one.pair.virtual_ip)))


def _split_hops(one: WantedSplit) -> set[tuple[str, str]]:
    return {hop for path in one.paths for hop in pairwise(path)}


def tell_machines(at: StoreMoment, part: Slice) -> Json:
    """Every host and machine as it was measured last."""
    hosts, machines = views.newest_host_loads(at.store, at.now), views.newest_vm_loads(at.store, at.now)
    return {
        "now": at.now,
        "total": max(len(hosts), len(machines)),
        **part._asdict(),
        "hosts": [asdict(one) for one in part.of(hosts)],
        "machines": [asdict(one) for one in part.of(machines)],
    }


def tell_machine(at: StoreMoment, name: str) -> Json:
    """A machine or a host: CPU and memory against its limit, what is expected of it, and what was done about it.

    Raises SettingsError when nothing of that name was ever measured or declared.
    """
    node = next((one for one in at.store.inventory.nodes() if one.name == name), None)
    is_host = node is not None and node.kind is NodeKind.HYPERVISOR
    since = at.now - _history_s(at)
    loads: list[Any] = at.store.facts.loads(HostLoad if is_host else VmLoad, since, at.now)
    history = [one for one in loads if name == (one.host if is_host else one.vm)]
    if node is None and not history:
        raise SettingsError(f"no machine or host {name} is known")
    subject = Subject(SubjectKind.HOST if is_host else SubjectKind.VM, name)
    return {
        "now": at.now,
        "name": name,
        "kind": "host" if is_host else "machine",
        "history": [asdict(one) for one in history],
        "cpu": tell_fans(at, subject, Quantity.CPU_PEAK),
        "memory": tell_fans(at, subject, Quantity.MEMORY_PEAK),
        "machines": [asdict(one) for one in views.newest_vm_loads(at.store, at.now) if is_host and one.host == name],
        "actions": _about(at, name),
    }


def _about(at: StoreMoment, name: str) -> list[Json]:
    """What was done or advised about a machine or a host, newest first."""
    past = at.store.journal.actions(since=at.now - ABOUT_S, until=at.now, limit=ABOUT_MOST)
    about = (one for one in past if name in (one.target, one.body.get("from"), one.body.get("to")))
    return [tell_action(one) for one in about][:DOING_MOST]


def tell_services(at: StoreMoment) -> Json:
    """Every declared virtual IP with its destinations, as `forepath vip` tells it."""
    return {"now": at.now, "services": [one.to_json() for one in views.services(at.store, at.now)]}


def tell_service(at: StoreMoment, name: str) -> Json:
    """One virtual IP: destinations with health and weights, and who speaks to it. Raises SettingsError."""
    known = views.services(at.store, at.now)
    found = next((one for one in known if name in (one.name, one.address)), None)
    if found is None:
        raise SettingsError(f"{name} is no declared virtual IP; there are: {', '.join(one.name for one in known)}")
    own = [asdict(one) for one in views.pairs(at.store, at.now) if one.pair.virtual_ip == found.address]
    fans = tell_fans(at, Subject(SubjectKind.VIRTUAL_IP, found.address), Quantity.BYTES_PEAK)
    weights = [asdict(one) for one in at.store.wanted.weights() if one.virtual_ip == found.address]
    return {"now": at.now, **found.to_json(), "pairs": own[:MOST_ROWS], "fans": fans, "weights": weights}
