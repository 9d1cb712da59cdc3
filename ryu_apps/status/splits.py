"""What became of each wanted split, told once per change: installed, on its way, or why it cannot be."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from cpdb import Observed, WantedSplit
from ryu_apps.knowledge import Knowledge
from ryu_apps.paths.routing import Progress, Routes
from ryu_apps.paths.splits import Ends, Lane, transit_rule, transit_rules
from ryu_apps.rules import RuleKey

Seconds = float
Refused = Callable[[int, RuleKey], str | None]

KIND = "split"


def split_key(ends: Ends) -> str:
    """Name of a split in observed state."""
    return f"{ends[0]}>{ends[1]}"


@dataclass(slots=True)
class SplitReports:
    """Remembers what was said about each split."""

    _said: dict[str, Observed] = field(default_factory=dict)

    def news(self, network: Knowledge, routes: Routes, refused: Refused, now: Seconds) -> list[Observed]:
        """Rows for what changed since last time; `refused` tells why a switch does not hold a rule."""
        if not (self._said or network.declared.splits):
            return []
        rows = {row.key: row for row in _rows(network, routes, refused, now)}
        for key in self._said.keys() - rows.keys():
            rows[key] = replace(self._said[key], status="removed", detail="withdrawn or expired", observed_at=now)
        said = {key: replace(row, observed_at=now) for key, row in self._said.items()}
        self._said = {key: row for key, row in rows.items() if row.status != "removed"}
        return [row for row in rows.values() if said.get(row.key) != row]


def _rows(network: Knowledge, routes: Routes, refused: Refused, now: Seconds) -> Iterable[Observed]:
    alive = [one for one in network.declared.splits if one.expires_at is None or one.expires_at > now]
    for one in alive:
        ends = one.from_switch, one.to_switch
        status, detail = _word(one, network, routes, refused)
        yield Observed(KIND, split_key(ends), one.from_switch, one.generation, status, detail, now)


def _word(wanted: WantedSplit, network: Knowledge, routes: Routes, refused: Refused) -> tuple[str, str]:
    ends = wanted.from_switch, wanted.to_switch
    own, progress = routes.in_force.get(ends, ()), routes.progress.get(ends)
    if progress is None:
        return "refused", "none of its paths can be used now: links are down or unknown, or their tags are taken"
    for lane in progress.unready:
        reason = _refusal(lane, network, refused)
        if reason is not None:
            return "refused", reason
    shares = ", ".join(f"{' > '.join(lane.hops)} {lane.ratio:.0%}" for lane in own)
    if progress.unready or progress.away:
        return "waiting", f"{shares}; {_pending(progress)}"
    left = sum(ratio > 0 for ratio in wanted.ratios) - len(own)
    broken = f"; {left} of its paths cannot be used now" if left > 0 else ""
    return "installed", f"{shares}; {progress.journeys} pairs' directions{broken}"


def _pending(progress: Progress) -> str:
    rules = f"{len(progress.unready)} paths' rules are not confirmed" if progress.unready else ""
    pairs = f"{progress.away} of {progress.journeys} pairs are still on another path" if progress.away else ""
    return ", ".join(one for one in (rules, pairs) if one)


def _refusal(lane: Lane, network: Knowledge, refused: Refused) -> str | None:
    for switch, one in transit_rules(lane, network.picture.topology).items():
        dpid = network.picture.dpids.get(switch)
        if dpid is None or dpid not in network.connected:
            return f"{switch} is not connected"
        reason = refused(dpid, transit_rule(one).key)
        if reason is not None:
            return f"{switch} answered {reason}"
    return None
