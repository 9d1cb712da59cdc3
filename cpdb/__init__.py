"""REMEMBERS: the Communication Pattern Database, the one place where forepath's processes meet.

The door of the room: `open_store(url)` gives a `Store`; everything that goes in or out is a record.
"""

from dataclasses import dataclass, replace

from sqlalchemy import Engine

from cpdb.addresses import (
    Address,
    Dpid,
    Mac,
    MachineAddress,
    address_bytes,
    address_text,
    is_ipv6,
    is_loopback,
    read_mac,
    read_unicast,
)
from cpdb.backup import back_up, restore
from cpdb.engine import check_version, connect, database_file, database_problem, migrate, versions
from cpdb.errors import (
    DriverError,
    ForepathError,
    LabError,
    SettingsError,
    StoreError,
    StoreForbidden,
    StoreOutdated,
    StoreUnreachable,
)
from cpdb.exposition import (
    Durations,
    Figures,
    MetricSpec,
    MetricsSection,
    serve_metrics,
    serving_metrics,
)
from cpdb.forecasts import (
    NO_MODEL,
    UNTRUSTED,
    Forecast,
    ForecastBatch,
    HorizonMove,
    Score,
    ScoreBatch,
    Subject,
    SubjectForecast,
    SubjectKind,
    Trust,
    TrustArrays,
    nearest_level,
)
from cpdb.model import (
    GIB,
    MBIT,
    MIB,
    ActionRecord,
    ActionTiming,
    BytesPerS,
    Communication,
    Destination,
    DestinationHealth,
    HealthStatus,
    HostLoad,
    Json,
    Limit,
    Link,
    LinkLoad,
    Node,
    NodeKind,
    OutcomeKind,
    Pair,
    PlanRecord,
    Quantity,
    Reservation,
    Seconds,
    Standing,
    VirtualIp,
    VmLoad,
    WantedWeights,
    show_mebibytes,
    show_rate,
)
from cpdb.notify import ALIVE, READY, notify_systemd
from cpdb.observed import (
    CONTROLLER,
    BlendReport,
    EventCount,
    EvidenceReport,
    HealthReport,
    InstallReport,
    InstallStatus,
    LiveCount,
    MachineReport,
    OnsetReport,
    RefreshReport,
    ReplayedMinute,
    ReservationReport,
    SplitReport,
    SwitchReport,
    WeightsReport,
    Withdrawal,
    destination_key,
    read_health,
    show_record,
    split_key,
)
from cpdb.observed_record import ObservedKind, ObservedRecord
from cpdb.publisher import Publisher
from cpdb.roles import RIGHTS, Room, make_roles
from cpdb.settings import (
    BEHAVIOUR,
    DEFAULT_URL,
    FILE_VARIABLE,
    TABLES,
    URL_VARIABLE,
    AboveZero,
    Count,
    DatabaseSection,
    NotNegative,
    Section,
    ShareOf1,
    in_words,
    place_of,
    read_settings,
    read_tables,
    without_password,
)
from cpdb.state.inventory import DestinationChange, Inventory, effective
from cpdb.state.journal import (
    Alarm,
    Alarms,
    AuditRecord,
    Journal,
    ShortageKind,
    ShortageRecord,
    WorkflowLog,
    WorkflowStep,
)
from cpdb.state.leases import Fence, LeaseHolder, Leases, Pause, Pauses
from cpdb.state.masterships import ControlClaim, ControlPicture, Masterships
from cpdb.state.wanted import (
    FIRST_TAG,
    LABELS,
    LAST_TAG,
    BandwidthRequest,
    HeavyPair,
    Requests,
    RequestState,
    Wanted,
    WantedSplit,
    Watch,
)
from cpdb.tables import TableError, open_table, show_time
from cpdb.telemetry.batches import Facts
from cpdb.telemetry.columns import IMPLAUSIBLE, Batch, FlowKey, StoredBatch
from cpdb.telemetry.expiry import RetentionRunner
from cpdb.telemetry.forecast_archive import ForecastArchive
from cpdb.telemetry.names import Names
from cpdb.telemetry.retention import RetentionPolicy, RetentionResult, StorageUsage, read_usage
from cpdb.telemetry.series import QUANTITIES, Series, Window, tier_of
from cpdb.telemetry.spool import Spool, spool_in_use
from cpdb.telemetry.tenures import KeptCounts, tenure_mark


@dataclass(frozen=True, slots=True)
class Store:
    """The database by subject. Cheap to hold; safe to share between threads (each call takes its own connection)."""

    engine: Engine
    facts: Facts
    series: Series
    forecasts: ForecastArchive
    inventory: Inventory
    wanted: Wanted
    requests: Requests
    journal: Journal
    workflow: WorkflowLog
    alarms: Alarms
    pauses: Pauses
    leases: Masterships

    def fenced(self, fence: Fence) -> "Store":
        """The same for one who acts in a tenure: once that is over, it begins no action and changes nothing wanted."""
        wanted, journal = Wanted(self.engine, fence), Journal(self.engine, fence)
        return replace(self, wanted=wanted, inventory=self.inventory.fenced(fence), journal=journal)

    def retain(self, now: Seconds, policy: RetentionPolicy, budget_s: Seconds) -> RetentionResult:
        """Rolls up what waits and lets go of what is older than its time, for about `budget_s`, in short steps."""
        return RetentionRunner(self.engine).retain(now, policy, budget_s)

    def read_usage(self, now: Seconds, policy: RetentionPolicy) -> StorageUsage:
        """How large the memory is, and will be at the present rate."""
        return read_usage(self.engine, now, policy)

    def close(self) -> None:
        """Returns all connections."""
        self.engine.dispose()


def open_store(url: str = DEFAULT_URL, create: bool = True, read_only: bool = False) -> Store:
    """Opens the database at `url`; `create` brings the schema up to date first, else it must already be.

    With `read_only` every write raises StoreError. Raises StoreUnreachable or StoreOutdated, each with its mend.
    """
    engine = connect(url, read_only)
    try:
        (migrate if create and not read_only else check_version)(engine)
    except StoreError:
        engine.dispose()
        raise
    names = Names(engine)
    return Store(
        engine=engine,
        facts=Facts(engine, names),
        series=Series(engine, names),
        forecasts=ForecastArchive(engine, names),
        inventory=Inventory(engine, names),
        wanted=Wanted(engine),
        requests=Requests(engine),
        journal=Journal(engine),
        workflow=WorkflowLog(engine),
        alarms=Alarms(engine),
        pauses=Pauses(engine),
        leases=Masterships(engine),
    )


def schema_versions(url: str) -> tuple[str | None, str]:
    """The schema's version in the database at `url` (None: there is none) and the one needed. Makes nothing."""
    engine = connect(url)
    try:
        return versions(engine)
    finally:
        engine.dispose()


__all__ = [
    "ALIVE",
    "BEHAVIOUR",
    "CONTROLLER",
    "FILE_VARIABLE",
    "FIRST_TAG",
    "GIB",
    "IMPLAUSIBLE",
    "LABELS",
    "LAST_TAG",
    "MBIT",
    "MIB",
    "NO_MODEL",
    "QUANTITIES",
    "READY",
    "RIGHTS",
    "TABLES",
    "UNTRUSTED",
    "URL_VARIABLE",
    "AboveZero",
    "ActionRecord",
    "ActionTiming",
    "Address",
    "Alarm",
    "AuditRecord",
    "BandwidthRequest",
    "Batch",
    "BlendReport",
    "BytesPerS",
    "Communication",
    "ControlClaim",
    "ControlPicture",
    "Count",
    "DatabaseSection",
    "Destination",
    "DestinationChange",
    "DestinationHealth",
    "Dpid",
    "DriverError",
    "Durations",
    "EventCount",
    "EvidenceReport",
    "Fence",
    "Figures",
    "FlowKey",
    "Forecast",
    "ForecastBatch",
    "ForepathError",
    "HealthReport",
    "HealthStatus",
    "HeavyPair",
    "HorizonMove",
    "HostLoad",
    "InstallReport",
    "InstallStatus",
    "Json",
    "KeptCounts",
    "LabError",
    "LeaseHolder",
    "Leases",
    "Limit",
    "Link",
    "LinkLoad",
    "LiveCount",
    "Mac",
    "MachineAddress",
    "MachineReport",
    "Masterships",
    "MetricSpec",
    "MetricsSection",
    "Node",
    "NodeKind",
    "NotNegative",
    "ObservedKind",
    "ObservedRecord",
    "OnsetReport",
    "OutcomeKind",
    "Pair",
    "Pause",
    "PlanRecord",
    "Publisher",
    "Quantity",
    "RefreshReport",
    "ReplayedMinute",
    "RequestState",
    "Reservation",
    "ReservationReport",
    "RetentionPolicy",
    "RetentionResult",
    "Room",
    "Score",
    "ScoreBatch",
    "Seconds",
    "Section",
    "Series",
    "SettingsError",
    "ShareOf1",
    "ShortageKind",
    "ShortageRecord",
    "SplitReport",
    "Spool",
    "Standing",
    "Store",
    "StoreError",
    "StoreForbidden",
    "StoreOutdated",
    "StoreUnreachable",
    "StoredBatch",
    "Subject",
    "SubjectForecast",
    "SubjectKind",
    "SwitchReport",
    "TableError",
    "Trust",
    "TrustArrays",
    "VirtualIp",
    "VmLoad",
    "WantedSplit",
    "WantedWeights",
    "Watch",
    "WeightsReport",
    "Window",
    "Withdrawal",
    "WorkflowStep",
    "address_bytes",
    "address_text",
    "back_up",
    "database_file",
    "database_problem",
    "destination_key",
    "effective",
    "in_words",
    "is_ipv6",
    "is_loopback",
    "make_roles",
    "nearest_level",
    "notify_systemd",
    "open_store",
    "open_table",
    "place_of",
    "read_health",
    "read_mac",
    "read_settings",
    "read_tables",
    "read_unicast",
    "restore",
    "schema_versions",
    "serve_metrics",
    "serving_metrics",
    "show_mebibytes",
    "show_rate",
    "show_record",
    "show_time",
    "split_key",
    "spool_in_use",
    "tenure_mark",
    "tier_of",
    "without_password",
]
