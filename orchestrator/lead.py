"""How long each kind of action takes here, learnt from outcomes: acting later than this is acting too late."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cpdb import ActionRecord, OutcomeKind, Seconds
from orchestrator.config import OrchestratorConfig

PRIORS_S: Mapping[str, Seconds] = {
    "reserve_bandwidth": 1.5,
    "release_bandwidth": 1.5,
    "set_weights": 1.5,
    "set_cpu_limit": 0.5,
    "set_vcpus": 2.0,
    "set_memory": 1.0,
    "migrate_vm": 4.0,
}
MIN_SAMPLES = 5
KEEP = 30


@dataclass(frozen=True, slots=True)
class LeadTimes:
    """Seconds from decision to effect by kind, newest first; few of them only ever lengthen the prior."""

    seen_s: Mapping[str, tuple[Seconds, ...]] = field(default_factory=dict)

    def p95(self, kind: str) -> Seconds:
        """The time that 95 % of actions of this kind need at most, in seconds."""
        seen = sorted(self.seen_s.get(kind, ()))
        if len(seen) < MIN_SAMPLES:
            return max([PRIORS_S[kind], *seen])
        return seen[min(len(seen) - 1, int(0.95 * len(seen)))]

    def needed(self, kind: str, config: OrchestratorConfig) -> Seconds:
        """p95 plus half a poll plus the time to decide: a horizon shorter than this is too short."""
        return self.p95(kind) + config.poll_s / 2 + config.decision_s

    def horizon_s(self, kind: str, config: OrchestratorConfig) -> int | None:
        """The shortest forecast horizon that still leaves time for this kind of action; None when there is none."""
        needed = self.needed(kind, config)
        return next((one for one in config.horizons_s if needed <= one), None)


def lead_times(records: Iterable[ActionRecord]) -> LeadTimes:
    """The ledger from the journal's records, newest first."""
    seen: dict[str, list[Seconds]] = {}
    for one in records:
        if one.outcome is OutcomeKind.DONE and one.ready_at is not None:
            times = seen.setdefault(one.kind, [])
            if len(times) < KEEP:
                times.append(max(0.0, one.ready_at - one.issued_at))
    return LeadTimes({kind: tuple(times) for kind, times in seen.items()})
