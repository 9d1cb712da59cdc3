"""How a process tells Prometheus its figures: each described once, and read only when somebody asks."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

import structlog
from pydantic import Field

from cpdb.addresses import Address
from cpdb.model import Seconds
from cpdb.settings import Count, Section

PREFIX = "forepath_"
PROCESSES = ("controller", "predictor", "orchestrator", "metrics")
# Upper bounds of what is counted, in seconds: from an answer of a switch to a large machine on its way.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
log = structlog.get_logger(__name__)


class MetricsSection(Section):
    """Where processes tell Prometheus how they are: `port` and the three after it; 0 is nowhere.

    Of metrics with a pair, link or host in their labels, at most `top` series each.
    """

    listen: Address = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_532)] = 9571
    top: Count = 20

    def port_of(self, process: str) -> int:
        """The port of one of PROCESSES; 0 where it serves none."""
        return self.port and self.port + PROCESSES.index(process)


@dataclass(slots=True)
class Durations:
    """How many durations there were up to each of BOUNDS_S, and their sum. One thread adds, others may read."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: Seconds = 0.0

    def add(self, seconds: Seconds) -> None:
        """Counts one more."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


class MetricSpec(NamedTuple):
    """One metric: its name without prefix, what it says, and its labels. Counters are exposed with `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return f"{PREFIX}{self.name}{'_total' * (self.kind == 'counter')}"


Figures = Mapping[MetricSpec, Mapping[tuple[str, ...], float | Durations]]


@dataclass(frozen=True, slots=True)
class FiguresCollector:
    """What prometheus-client asks at each scrape."""

    read: Callable[[], Figures]

    def describe(self) -> list[Any]:
        """Nothing is read while it is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """All figures as families of the library."""
        for spec, values in self.read().items():
            yield _family(spec, values)


def _family(spec: MetricSpec, values: Mapping[tuple[str, ...], float | Durations]) -> Any:
    from prometheus_client import core

    kinds = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    family: Any = kinds[spec.kind](f"{PREFIX}{spec.name}", spec.help, labels=spec.labels)
    for labels, value in values.items():
        if isinstance(value, Durations):
            names = [*map(str, BOUNDS_S), "+Inf"]
            buckets = list(zip(names, accumulate(value.counts), strict=True))
            family.add_metric(labels, buckets, value.total_s)
        else:
            family.add_metric(labels, value)
    return family


def serve_metrics(section: MetricsSection, process: str, read: Callable[[], Figures]) -> Any | None:
    """Serves them from a thread beside the process, with what the system knows of it; returns the server.

    None where no port is set. An address that cannot be had is a line in the log: the process goes on.
    """
    if not (port := section.port_of(process)):
        return None
    from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server

    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(FiguresCollector(read))
    ProcessCollector(registry=registry)
    try:
        server, _ = start_http_server(port, section.listen, registry)
    except OSError as error:
        log.warning("no metrics are served", listen=section.listen, port=port, reason=error.strerror)
        return None
    log.debug("metrics", listen=section.listen, port=port)
    return server


@contextmanager
def serving_metrics(section: MetricsSection, process: str, read: Callable[[], Figures]) -> Iterator[bool]:
    """The same for as long as the block lasts; whether they are served."""
    server = serve_metrics(section, process, read)
    try:
        yield server is not None
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
