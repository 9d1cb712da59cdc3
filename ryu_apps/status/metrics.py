"""What the controller tells Prometheus: counters that it keeps anyway, read when somebody asks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpdb import Figures, MetricSpec

if TYPE_CHECKING:  # the framework is not loaded by who only wants to know what there is
    from ryu_apps.telemetry.collector import Collector
    from ryu_apps.telemetry.writer import Writer

SWITCHES = MetricSpec("switches_connected", "gauge", "Switches that are connected now.")
SAMPLES = MetricSpec("flow_samples", "counter", "Flow entries whose counters a switch has answered with.")
ROWS = MetricSpec("rows_written", "counter", "Rows that the database has taken.")
LOST = MetricSpec("rows_lost", "counter", "What was measured and never reached the database, by sort.", ("sort",))
QUEUE = MetricSpec("queue_rows", "gauge", "Rows that wait in memory for the database.")
SPOOL = MetricSpec("spool_batches", "gauge", "Batches that wait on disk for the database.")
POLL = MetricSpec("poll_duration_seconds", "histogram", "From the question to the last part of a switch's answer.")
REFUSED = MetricSpec("messages_refused", "counter", "Messages that were not believed, by reason.", ("reason",))
PROBLEMS = MetricSpec(
    "controller_problems", "counter", "What else went wrong in the controller, by kind and reason.", ("kind", "reason")
)
CONTROLLER_METRICS = (SWITCHES, SAMPLES, ROWS, LOST, QUEUE, SPOOL, POLL, REFUSED, PROBLEMS)


def controller_figures(
    wires: Mapping[int, Any], writer: "Writer", collector: "Collector", counts: Mapping[tuple[str, str], int]
) -> Figures:
    """All of CONTROLLER_METRICS; `counts` is what went wrong so far, by kind and reason."""
    told: dict[str, dict[tuple[str, ...], float]] = {"refused": {}, "lost": {}}
    others: dict[tuple[str, ...], float] = {}
    for (kind, reason), count in counts.items():
        if kind in told:
            told[kind][(reason,)] = float(count)
        else:
            others[kind, reason] = float(count)
    return {
        SWITCHES: {(): len(wires)},
        SAMPLES: {(): collector.samples},
        ROWS: {(): writer.written},
        LOST: told["lost"],
        QUEUE: {(): writer.waiting},
        SPOOL: {(): writer.spool.waiting if writer.spool is not None else 0},
        POLL: {(): collector.polls},
        REFUSED: told["refused"],
        PROBLEMS: others,
    }
