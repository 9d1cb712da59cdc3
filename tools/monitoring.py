"""`python -m tools.monitoring`: writes the tables of docs/monitoring.md, and the dashboard of deploy/grafana.

Both follow from the descriptions beside the code that counts; a test tells when they are old.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cpdb import MetricSpec
from forepath.metrics.loops import ORCHESTRATOR_METRICS, PREDICTOR_METRICS, RUN_METRICS
from forepath.metrics.stored import STORED_METRICS
from ryu_apps import CONTROLLER_METRICS

ROOT = Path(__file__).parent.parent
PAGE, DASHBOARD = ROOT / "docs" / "monitoring.md", ROOT / "deploy" / "grafana" / "forepath.json"
CATALOGUE: Mapping[str, tuple[MetricSpec, ...]] = {
    "controller": CONTROLLER_METRICS,
    "predictor": PREDICTOR_METRICS,
    "orchestrator": ORCHESTRATOR_METRICS,
    "metrics: what the database knows": STORED_METRICS,
    "metrics, under `forepath run`": RUN_METRICS,
}
NAME = re.compile(r"forepath_\w+")


class PanelSpec(NamedTuple):
    """One panel: its title, Grafana's unit, and expressions by legend; `kind` is Grafana's type of panel."""

    title: str
    unit: str
    queries: Mapping[str, str]
    kind: str = "timeseries"
    width: int = 8


def slowest(histogram: str, by: str, over: str) -> str:
    """The expression for what 95 % of a histogram's durations do not exceed."""
    return f"histogram_quantile(0.95, sum by ({by}, le) (rate({histogram}_bucket[{over}])))"


# The dashboard, row by row.
ROWS: Mapping[str, tuple[PanelSpec, ...]] = {
    "What forepath does": (
        PanelSpec("Acts", "none", {"{{mode}}": "forepath_orchestrator_mode == 1"}, "stat", 4),
        PanelSpec("Paused", "none", {"paused": "forepath_paused"}, "stat", 4),
        PanelSpec("Switches", "none", {"connected": "forepath_switches_connected"}, "stat", 4),
        PanelSpec("Reservations", "none", {"held": "forepath_reservations"}, "stat", 4),
        PanelSpec("Alarms open", "none", {"{{kind}}": "forepath_alarms_open"}, "stat", 4),
        PanelSpec("Settings in force", "none", {"loaded": "forepath_settings_loaded"}, "stat", 4),
        PanelSpec("Actions by outcome", "none", {
            "{{kind}} {{outcome}}": 'increase(forepath_actions_total{outcome!="issued"}[5m])',
        }),
        PanelSpec("Promises", "none", {"{{kind}} {{verdict}}": "increase(forepath_promises_total[1h])"}),
        PanelSpec("From decision to effect, 95 %", "s", {
            "{{kind}}": slowest("forepath_action_lead_seconds", "kind", "1h"),
        }),
        PanelSpec("Shortage: measured", "s", {
            "{{kind}}, foreseen: {{foreseen}}": "increase(forepath_shortage_seconds_total[1h])",
        }),
        PanelSpec("Shortage: expected without acting, and spared", "s", {
            "{{kind}} expected": "increase(forepath_shortage_predicted_seconds_total[1h])",
            "{{kind}} spared": "delta(forepath_shortage_spared_seconds[1h])",
        }),
        PanelSpec("What a kind has earned", "s", {"{{kind}}": "forepath_kind_gain_seconds"}),
    ),
    "What is foreseen": (
        PanelSpec("Error, in units of EWMA's", "none", {
            "{{tier}} {{horizon}} s": 'forepath_forecast_error_ratio{quantity="bytes_per_s_peak"}',
        }),
        PanelSpec("Below the 0.9 quantile", "percentunit", {
            "{{tier}} {{horizon}} s": 'forepath_forecast_coverage_ratio{quantity="bytes_per_s_peak"}',
        }),
        PanelSpec("Models' shares", "percentunit", {"{{model}}": 'forepath_model_share_ratio{tier="fast"}'}),
        PanelSpec("Pairs trusted", "none", {
            "{{tier}} forecast": "forepath_forecast_pairs", "{{tier}} trusted": "forepath_forecast_trusted_pairs",
        }),
        PanelSpec("Fullest links in 15 s", "percentunit", {"{{from}} > {{to}}": "forepath_link_predicted_ratio"}),
        PanelSpec("Busiest pairs", "Bps", {
            "{{source}} > {{service}}": "forepath_pair_bytes_per_second",
            "{{source}} > {{service}} in {{horizon}} s": "forepath_pair_expected_bytes_per_second",
        }),
    ),
    "Whether it is well": (
        PanelSpec("Age of samples and forecasts", "s", {
            "samples": "forepath_last_sample_age_seconds", "{{tier}} forecasts": "forepath_last_forecast_age_seconds",
        }),
        PanelSpec("Cycles, 95 %", "s", {
            "{{process}}": slowest("forepath_cycle_duration_seconds", "process", "5m"),
        }),
        PanelSpec("A switch's answer, 95 %", "s", {
            "answer": slowest("forepath_poll_duration_seconds", "instance", "5m"),
        }),
        PanelSpec("Rows", "none", {
            "written/s": "rate(forepath_rows_written_total[1m])", "samples/s": "rate(forepath_flow_samples_total[1m])",
        }),
        PanelSpec("What waits for the database", "none", {
            "rows in memory": "forepath_queue_rows", "batches on disk": "forepath_spool_batches",
        }),
        PanelSpec("Refused, lost, failed", "none", {
            "refused: {{reason}}": "increase(forepath_messages_refused_total[5m])",
            "lost: {{sort}}": "increase(forepath_rows_lost_total[5m])",
            "failed cycles: {{process}}": "increase(forepath_cycles_failed_total[5m])",
            "{{kind}}: {{reason}}": "increase(forepath_controller_problems_total[5m])",
        }),
        PanelSpec("Hosts' CPU", "percentunit", {
            "{{host}}": "forepath_host_cpu_used_cores / forepath_host_cpu_capacity_cores",
        }),
        PanelSpec("Hosts' memory", "percentunit", {
            "{{host}}": "forepath_host_memory_used_bytes / forepath_host_memory_capacity_bytes",
        }),
        PanelSpec("Programs", "none", {
            "{{program}} up": "forepath_program_up",
            "{{program}} restarts": "increase(forepath_program_restarts_total[1h])",
        }),
    ),
}  # fmt: skip
COLUMNS, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def metric_table() -> str:
    """The metrics of every process as tables in Markdown."""
    parts = []
    for process, metrics in CATALOGUE.items():
        rows = [f"| `{one.full_name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |" for one in metrics]
        parts.append("\n".join([f"### {process}\n", "| metric | type | labels | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def with_part(page: str, name: str, part: str) -> str:
    """The page with this between the marks of that name."""
    begin, end = (f"<!-- {name}: {word} -->\n" for word in ("begin", "end"))
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n{part}\n{end}{rest.partition(end)[2]}"


def page_text(before: str) -> str:
    """The page with the tables as they are now."""
    return with_part(before, "metrics", metric_table())


def expressions() -> Iterator[str]:
    """Every expression of the dashboard."""
    return (query for panels in ROWS.values() for panel in panels for query in panel.queries.values())


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; it asks for its data source."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})  # fmt: skip
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            place = {"h": HEIGHT, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, place))
            x += panel.width
        y += HEIGHT
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}
    return {
        "uid": "forepath",
        "title": "forepath",
        "tags": ["forepath"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }


def _panel(panel: PanelSpec, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for at, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def dashboard_text() -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main() -> int:
    """Writes both."""
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    DASHBOARD.write_text(dashboard_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
