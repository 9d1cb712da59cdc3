"""What predictor and orchestrator tell Prometheus: sums over cycles, read by another thread."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from cpdb import Durations, Figures, MetricSpec, OutcomeKind
from orchestrator import CycleReport, KindStanding, sum_up
from predictor import PredictorReport

CYCLE = MetricSpec("cycle_duration_seconds", "histogram", "How long a cycle of this process took.", ("process",))
FAILED = MetricSpec("cycles_failed", "counter", "Cycles that ended with an error.", ("process",))
ROWS = MetricSpec("rows_read", "counter", "Rows that the predictor has read.")
SERIES = MetricSpec("series", "gauge", "Pairs that the predictor watches.")
FORECASTS = MetricSpec("forecasts", "counter", "Forecasts of pairs written, by the model heard most.", ("model",))
FITS = MetricSpec("model_fits_failed", "counter", "Fits of models in the background that failed.")
DRIFTS = MetricSpec("series_drifted", "counter", "Series found to behave otherwise than before.")
PREDICTOR_METRICS = (CYCLE, FAILED, ROWS, SERIES, FORECASTS, FITS, DRIFTS)

STANDBY = MetricSpec("standby", "gauge", "1 while another orchestrator is on duty.")
MODE = MetricSpec("orchestrator_mode", "gauge", "1 for what it may do: act, act where earned, advise.", ("mode",))
ACTIONS = MetricSpec("actions", "counter", "Actions and advice by kind and outcome.", ("kind", "outcome"))
RENEWED = MetricSpec("leases_renewed", "counter", "Reservations that were kept alive.")
REFUSALS = MetricSpec("refusals", "gauge", "What the last cycle refused, by code.", ("code",))
LEAD = MetricSpec("action_lead_seconds", "histogram", "From the decision until an action was in effect.", ("kind",))
PROMISES = MetricSpec("promises", "counter", "Promises judged, by kind and what came of them.", ("kind", "verdict"))
SHORT = MetricSpec(
    "shortage_predicted_seconds", "counter", "Seconds that would have been short without what was promised.", ("kind",)
)
SPARED = MetricSpec("shortage_spared_seconds", "gauge", "Of those: spared, since the start; below 0: harm.", ("kind",))
WASTE = MetricSpec("idle_seconds", "counter", "Seconds of what was given that nobody used.", ("kind",))
MARGIN = MetricSpec("margin_ratio", "gauge", "What verdicts have made of the margin, by kind.", ("kind",))
KEEPS = MetricSpec("kind_keeps", "gauge", "1 while a kind's promises hold, 0: it fell back to advice.", ("kind",))
EARNED = MetricSpec("kind_earned", "gauge", "1 while acting is measured to pay.", ("kind",))
GAIN = MetricSpec("kind_gain_seconds", "gauge", "Net shortage seconds spared lately.", ("kind",))
ORCHESTRATOR_METRICS = (
    CYCLE, FAILED, STANDBY, MODE, ACTIONS, RENEWED, REFUSALS, LEAD, PROMISES, SHORT, SPARED, WASTE,
    MARGIN, KEEPS, EARNED, GAIN,
)  # fmt: skip


MODES: Mapping[bool | str, str] = {True: "act", "earned": "earned", False: "advise"}

LOADED = MetricSpec("settings_loaded", "gauge", "1 where the settings file as it was last read is in force.")
RUNNING = MetricSpec("program_up", "gauge", "1 while a program of `forepath run` runs.", ("program",))
RESTARTS = MetricSpec("program_restarts", "counter", "How often it was started again.", ("program",))
RUN_METRICS = (LOADED, RUNNING, RESTARTS)


@dataclass(slots=True)
class CycleTimes:
    """How long the cycles of one process took, and how many failed."""

    process: str
    durations: Durations = field(default_factory=Durations)
    failed: int = 0

    def figures(self) -> Figures:
        """Of CYCLE and FAILED."""
        return {CYCLE: {(self.process,): self.durations}, FAILED: {(self.process,): self.failed}}


@dataclass(slots=True)
class PredictorTally:
    """Sums over the predictor's cycles."""

    times: CycleTimes = field(default_factory=lambda: CycleTimes("predictor"))
    counts: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    newest: PredictorReport = field(default_factory=lambda: PredictorReport(0.0))

    def add(self, report: PredictorReport | None, ended_at: float) -> None:
        """One cycle more; None: it failed."""
        if report is None:
            self.times.failed += 1
            return
        self.times.durations.add(max(0.0, ended_at - report.now))
        self.counts["rows"] += report.rows
        self.chosen.update(report.chosen)
        self.newest = report

    def figures(self) -> Figures:
        """All of PREDICTOR_METRICS."""
        return {
            **self.times.figures(),
            ROWS: {(): self.counts["rows"]},
            SERIES: {(): self.newest.pairs},
            FORECASTS: {(model,): count for model, count in self.chosen.copy().items()},
            FITS: {(): self.newest.failed_fits},
            DRIFTS: {(): self.newest.drifted},
        }


@dataclass(slots=True)
class OrchestratorTally:
    """Sums over the orchestrator's cycles; `act` is what it may do."""

    act: bool | str
    times: CycleTimes = field(default_factory=lambda: CycleTimes("orchestrator"))
    actions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    promises: Counter[tuple[str, ...]] = field(default_factory=Counter)
    seconds: dict[tuple[MetricSpec, str], float] = field(default_factory=lambda: defaultdict(float))
    leads: dict[str, Durations] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    standings: Mapping[str, KindStanding] = field(default_factory=dict)
    renewed: int = 0
    standby: bool = False

    def add(self, report: CycleReport | None, standings: Mapping[str, KindStanding], ended_at: float) -> None:
        """One cycle more; None: it failed."""
        if report is None:
            self.times.failed += 1
            return
        self.times.durations.add(max(0.0, ended_at - report.now))
        self.standings, self.standby = standings, report.standby
        self.renewed += report.renewed
        self.refusals = Counter(one.code for one in report.refused)
        self.actions.update((one.kind, "issued") for one in report.issued)
        self.actions.update((one.kind, one.outcome.value) for one in (*report.advised, *report.finished))
        for one in report.finished:
            if one.outcome is OutcomeKind.DONE and one.timing.ready_at is not None:
                self.leads.setdefault(one.kind, Durations()).add(max(0.0, one.timing.ready_at - one.issued_at))
        for kind in sum_up(report.judged, ()).kinds:
            counts = {"kept": kind.kept, "broken": kind.broken, "unneeded": kind.unneeded, "unknown": kind.unknown}
            self.promises.update({(kind.kind, verdict): count for verdict, count in counts.items()})
            for spec, seconds in ((SHORT, kind.short_s), (SPARED, kind.spared_s), (WASTE, kind.cost_s)):
                self.seconds[spec, kind.kind] += seconds

    def figures(self) -> Figures:
        """All of ORCHESTRATOR_METRICS."""
        standings, seconds = self.standings, list(self.seconds.items())
        return {
            **self.times.figures(),
            STANDBY: {(): self.standby},
            MODE: {(mode,): mode == MODES[self.act] for mode in MODES.values()},
            ACTIONS: {**self.actions.copy()},
            RENEWED: {(): self.renewed},
            REFUSALS: {(code,): count for code, count in self.refusals.items()},
            LEAD: {(kind,): found for kind, found in self.leads.copy().items()},
            PROMISES: {**self.promises.copy()},
            **{spec: {(kind,): sum_ for (of, kind), sum_ in seconds if of is spec} for spec in (SHORT, SPARED, WASTE)},
            MARGIN: {(kind,): one.margin for kind, one in standings.items()},
            KEEPS: {(kind,): one.keeps for kind, one in standings.items()},
            EARNED: {(kind,): one.earned for kind, one in standings.items()},
            GAIN: {(kind,): one.earnings.gain_s for kind, one in standings.items()},
        }
