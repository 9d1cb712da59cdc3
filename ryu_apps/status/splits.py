"""What became of each wanted split, told once per change: installed, on its way, or why it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cpdb import InstallStatus, Publisher, SplitReport, WantedSplit, split_key
from ryu_apps.network import Network
from ryu_apps.paths.routing import Routes, SplitProgress
from ryu_apps.paths.splits import Lane, transit_rule, transit_rules
from ryu_apps.rules import RuleKey

Seconds = float
Refused = Callable[[int, RuleKey], str | None]


@dataclass(slots=True)
class SplitReports:
    """What was said about each split."""

    _publisher: Publisher[str, SplitReport] = field(default_factory=Publisher)

    def news(self, network: Network, routes: Routes, refused: Refused, now: Seconds) -> list[SplitReport]:
        """Rows for what changed since last time; `refused` tells why a switch does not hold a rule."""
        alive = [one for one in network.declared.splits if one.expires_at is None or one.expires_at > now]
        reports = {}
        for one in alive:
            key, word = split_key(one.from_switch, one.to_switch), _word(one, network, routes, refused)
            reports[key] = SplitReport(key, one.from_switch, one.generation, *word, now)
        news = self._publisher.publish(reports, now)
        return [*news.said.values(), *(report.removed("withdrawn or expired", now) for report in news.gone.values())]


def _word(wanted: WantedSplit, network: Network, routes: Routes, refused: Refused) -> tuple[InstallStatus, str]:
    ends = wanted.from_switch, wanted.to_switch
    own, progress = routes.in_force.get(ends, ()), routes.progress.get(ends)
    if progress is None:
        return (
            InstallStatus.REFUSED,
            "none of its paths can be used now: links are down or unknown, or their tags are taken",
        )
    for lane in progress.unready:
        reason = _refusal(lane, network, refused)
        if reason is not None:
            return InstallStatus.REFUSED, reason
    shares = ", ".join(f"{' > '.join(lane.hops)} {lane.ratio:.0%}" for lane in own)
    if progress.unready or progress.away:
        return InstallStatus.WAITING, f"{shares}; {_pending(progress)}"
    left = sum(ratio > 0 for ratio in wanted.ratios) - len(own)
    broken = f"; {left} of its paths cannot be used now" if left > 0 else ""
    return InstallStatus.INSTALLED, f"{shares}; {progress.journeys} pairs' directions{broken}"


def _pending(progress: SplitProgress) -> str:
    rules = f"{len(progress.unready)} paths' rules are not confirmed" if progress.unready else ""
    pairs = f"{progress.away} of {progress.journeys} pairs are still on another path" if progress.away else ""
    return ", ".join(one for one in (rules, pairs) if one)


def _refusal(lane: Lane, network: Network, refused: Refused) -> str | None:
    for switch, one in transit_rules(lane, network.topology.snapshot.topology).items():
        dpid = network.topology.snapshot.dpids.get(switch)
        if dpid is None or dpid not in network.topology.connected:
            return f"{switch} is not connected"
        reason = refused(dpid, transit_rule(one).key)
        if reason is not None:
            return f"{switch} answered {reason}"
    return None
