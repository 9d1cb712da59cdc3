"""`python -m tools.compute_page DATA PAGE`: writes what replays of recorded machines gave."""

import sys
from pathlib import Path
from typing import Any

from backtest import MachinePlan, read, replay_machines
from cpdb import ForepathError

FILE, STEP_S = "azure_v1_vmcpu_5min_a.csv.gz", 300.0
VARIANTS = (("peaks within 5 minutes", "*_max"), ("means of 5 minutes", "*_avg"))
HEAD = """# Machines: overload alarms and limits

Written by `make bench-compute DATA=DIR`. The recording is a public one of 50 virtual machines' CPU in percent, one row
every 5 minutes for 28 days. The first three quarters are for learning, the rest is the test; nothing was chosen on it.

* An **alarm** at a row says that one of the next 6 rows (30 minutes) will exceed 80 %. Rows that exceed it already do
  not count. Each rule's level is the one that gave the named rate of false alarms on the last quarter of the train
  rows; what it gave on the test rows is in the table. *Onsets* are excesses after 30 minutes without one; one is
  *warned of* when the alarm was on in the row before it, and *minutes ahead* is the median of how long it had been on
  by then (30 at most).
* A **limit** is set every 30 minutes and holds for the next 30. *Slack* is the mean share of it that lies idle,
  *throttled* the share of rows whose usage exceeds it. Each buys the other: compare rules of equal slack.

`forepath` is the blend of models that the live predictor uses, asked for the peak of the next 6 rows.
"""
NAMES = {
    "forepath": "forepath",
    "now": "usage now (reactive threshold)",
    "ewma": "EWMA .2",
    "recent_peak": "peak of the last 12 rows",
    "same_time_yesterday": "same 6 rows yesterday",
    "fixed": "train maximum (fixed provisioning)",
    "reactive": "1.1 x peak of the last 12 rows (reactive)",
    "last_day": "peak of the last day",
    "decaying_histogram": "decaying histogram, p90 + 15 %",
}


def main(words: list[str]) -> int:
    """Writes the page; 1 when the recording cannot be had."""
    if len(words) != 2:
        print("usage: python -m tools.compute_page DATA PAGE", file=sys.stderr)
        return 2
    try:
        parts = [_part(Path(words[0]) / FILE, about, pattern) for about, pattern in VARIANTS]
    except ForepathError as error:
        print(f"forepath: {error}", file=sys.stderr)
        return 1
    Path(words[1]).write_text("\n".join([HEAD, *parts]), encoding="utf-8")
    return 0


def _part(path: Path, about: str, pattern: str) -> str:
    report = replay_machines(read(path, STEP_S), MachinePlan(series=(pattern,)))
    limits = _limits(report) if "max" in pattern else []
    return "\n".join([f"## {about.capitalize()}\n", *_alarms(report), *limits])


def _alarms(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['origins']:,} test rows, {report['positive']:,} of them before an excess.\n"]
    for rate in next(iter(report["alarms"].values())):
        lines += [f"Level for {float(rate):.0%} false alarms:\n"]
        lines += ["| rule | true positive | false positive | precision | onsets warned of | minutes ahead |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, rates in report["alarms"].items():
            one = rates[rate]
            lines.append(
                f"| {NAMES[name]} | {one['true_positive_rate']:.3f} | {one['false_positive_rate']:.3f} | "
                f"{one['precision']:.3f} | {one['early_share']:.1%} of {one['onsets']:.0f} | "
                f"{5 * one['median_lead_rows']:.0f} |"
            )
        lines.append("")
    return lines


def _limits(report: dict[str, Any]) -> list[str]:
    lines = ["| limit | slack | throttled |", "|---|---|---|"]
    for name, one in sorted(report["limits"].items(), key=lambda item: item[1]["slack"]):
        level = name.removeprefix("forepath_q")
        shown = NAMES.get(name, f"**forepath**, {level} % quantile of the peak")
        lines.append(f"| {shown} | {one['slack']:.3f} | {one['throttle_rate']:.4f} |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
