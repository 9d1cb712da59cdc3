"""The demo's result: one document for programs, two tables for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table

from cpdb import ActionRecord, OutcomeKind
from forepath.demo.cpu_need import CpuAccount, Price
from forepath.demo.schedule import JudgedWindow
from forepath.output import on_one_line, table

POLICIES = ("static", "reactive", "predictive", "oracle")
# From this many columns on there is room for each action's reason; else `forepath explain NUMBER` tells it.
WIDE = 140


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """What one policy delivered during the surges of its segment; `competing_share` is the other service's share.

    `cpu` is about the whole segment: where the CPU that was needed exceeded what a machine might use, and what it cost.
    """

    offered_bytes: int
    delivered_bytes: int
    p95_latency_s: float | None
    short_bandwidth_s: float
    short_cpu_s: float
    competing_share: float | None = None
    cpu: CpuAccount = field(default_factory=CpuAccount)


@dataclass(frozen=True, slots=True)
class ReplayedTrial:
    """The same traffic in a replay: figures by policy, the oracle's too, and the document of `forepath whatif`."""

    policies: dict[str, PolicyFigures]
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """Everything that a demo measured. `windows` are the surges, in Unix seconds, of all segments.

    `price` is what requests cost in CPU, of their nominal work; `replayed` what a replay makes of the traffic.
    """

    seed: int
    scenario: str
    simulated: bool
    policies: dict[str, PolicyFigures]
    actions: tuple[ActionRecord, ...]
    windows: tuple[JudgedWindow, ...] = field(default_factory=tuple)
    price: Price = field(default_factory=Price)
    replayed: ReplayedTrial | None = None


def document(result: TrialResult) -> dict[str, Any]:
    """The result as one JSON object."""
    return {
        "seed": result.seed,
        "scenario": result.scenario,
        "simulated": result.simulated,
        "cpu_price": {"factor": result.price.factor, "measured": result.price.measured},
        "policies": {name: _figures(one) for name, one in result.policies.items()},
        "actions": [action_row(action, result.windows) for action in taken(result.actions)],
        "whatif": None if result.replayed is None else result.replayed.document,
    }


def _figures(one: PolicyFigures) -> dict[str, Any]:
    return {
        "offered_bytes": one.offered_bytes,
        "delivered_bytes": one.delivered_bytes,
        "p95_latency_s": one.p95_latency_s,
        "short_bandwidth_s": one.short_bandwidth_s,
        "short_cpu_s": one.short_cpu_s,
        "competing_share": one.competing_share,
        "shortage_s": one.cpu.total_shortage_s,
        "shortage_s_by_vm": one.cpu.shortage_s,
        "shortage_beyond_host_s": one.cpu.total_beyond_s,
        "held_back_s_by_vm": one.cpu.held_back_s,
        "vcpu_seconds": one.cpu.vcpu_seconds,
        "cpu_seconds": one.cpu.cpu_seconds,
    }


def taken(actions: Iterable[ActionRecord]) -> list[ActionRecord]:
    """Actions that were carried out or tried, oldest first; advice and refusals are in the journal only."""
    tried = (OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.PENDING, OutcomeKind.REVERTED, OutcomeKind.NOT_REVERTED)
    return sorted((one for one in actions if one.outcome in tried), key=lambda one: one.issued_at)


def action_row(action: ActionRecord, windows: Sequence[JudgedWindow]) -> dict[str, Any]:
    """One action beside the surge it was for: `lead_s` is how long before (+) or after (-) its start it was ready."""
    surge = surge_for(action, windows)
    ready = action.timing.ready_at if action.outcome is OutcomeKind.DONE else None
    return {
        "policy": action.policy,
        "kind": action.kind,
        "target": action.target,
        "issued_at": action.issued_at,
        "ready_at": ready,
        "surge_at": surge.start_s if surge else None,
        "lead_s": surge.start_s - ready if surge and ready is not None else None,
        "outcome": action.outcome.value,
        "why": action.why,
    }


def surge_for(action: ActionRecord, windows: Sequence[JudgedWindow]) -> JudgedWindow | None:
    """The surge under way when the action was issued, else the next one; None for giving something back."""
    if gives_back(action):
        return None
    ahead = sorted((one for one in windows if one.end_s > action.issued_at), key=lambda one: one.start_s)
    return ahead[0] if ahead else None


def gives_back(action: ActionRecord) -> bool:
    """Whether the action returns what a surge needed: a release, or a lower limit."""
    before, after = action.body.get("from"), action.body.get("to")
    lower = isinstance(before, (int, float)) and isinstance(after, (int, float)) and after < before
    return action.kind == "release_bandwidth" or lower


def tables(result: TrialResult, width: int) -> Group:
    """The two tables: what each policy delivered, and how early each action was ready; reasons where `width` allows."""
    made = "SIMULATED switches and machines" if result.simulated else "measured in the lab"
    title = f"during surges, {made} (seed {result.seed}, {result.scenario})"
    return Group(_policy_table(title, result.policies, width), *_price_line(result), "", _action_table(result, width))


def whatif_lines(result: TrialResult, width: int) -> Iterator[Table | str]:
    """What a replay says of the same traffic; beside measured figures also those that it simulates."""
    if (replayed := result.replayed) is None:
        return
    yield ""
    if not result.simulated:
        yield _policy_table(
            "what if: the same traffic, replayed on simulated switches and machines", replayed.policies, width
        )
    found = replayed.document
    costs = ", ".join(f"{name} {one['cost']:.4g}" for name, one in found["policies"].items())
    yield f"what it costs in a replay: {costs}; no schedule could cost less than {found['bound']['cost']:.4g}"
    yield found["verdict"]
    yield f"$ forepath whatif {found['recording']} --settings {found['settings']} --warm-up {found['warm_up_s']}"


def _price_line(result: TrialResult) -> list[str]:
    """How fast the machine was: a surge may need more than its host has on a slow one."""
    if result.simulated or not result.policies:
        return []
    if not result.price.measured:
        return ["too slow a machine to measure what a request costs: VM shortage is the least that it can have been"]
    return [f"each request cost {result.price.factor:.2f} times its nominal CPU"]


def _policy_table(title: str, policies: Mapping[str, PolicyFigures], width: int) -> Table:
    rows: Sequence[Sequence[str]] = [_policy_row(name, policies[name]) for name in POLICIES if name in policies]
    columns = [
        "policy", "delivered of offered", "p95 latency", "short of bandwidth", "short of CPU", "competing service",
        "VM shortage", "vCPU-seconds",
    ]  # fmt: skip
    if width < WIDE:  # a line a figure, a column a policy
        columns, *rows = ([str(one) for one in line] for line in zip(columns, *rows, strict=True))
    return table(title, columns, rows)


def _policy_row(name: str, one: PolicyFigures) -> tuple[str, ...]:
    share = f"{one.delivered_bytes / one.offered_bytes:.1%}" if one.offered_bytes else "-"
    return (
        name,
        f"{share} of {one.offered_bytes / 1e6:.2f} MB",
        "-" if one.p95_latency_s is None else f"{one.p95_latency_s:.2f} s",
        f"{one.short_bandwidth_s:.0f} s",
        f"{one.short_cpu_s:.0f} s",
        "-" if one.competing_share is None else f"{one.competing_share:.0%}",
        _short(one.cpu),
        f"{one.cpu.vcpu_seconds:.1f}",
    )


def _short(cpu: CpuAccount) -> str:
    beyond = f" ({cpu.total_beyond_s:.0f} beyond host)" if cpu.total_beyond_s >= 0.5 else ""
    return f"{cpu.total_shortage_s:.0f} s{beyond}"


def _action_table(result: TrialResult, width: int) -> Table:
    wide, rows = width >= WIDE, []
    for action in taken(result.actions):
        row = action_row(action, result.windows)
        lead = "-" if row["lead_s"] is None else f"{row['lead_s']:+.1f} s"
        shown = (str(action.id or "-"), row["policy"], row["kind"], row["target"], row["outcome"], lead)
        rows.append((*shown, row["why"]) if wide else shown)
    title = "actions: seconds ready before (+) or after (-) the surge" if rows else "actions: none were taken"
    columns = ["no.", "policy", "action", "target", "outcome", "ready"]
    shown_rows = rows if wide else on_one_line(columns, rows, columns.index("target"), width)
    return table(title, [*columns, "why"] if wide else columns, shown_rows, texts=(1, 2, 3, 4, 6))
