"""Traffic that recurs, and what to look for in the journal: for tests in which forecasts lead the live processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpdb import ActionRecord, OutcomeKind, Store, open_store
from forepath.demo.schedule import Request, Schedule, Stream
from forepath.settings import load_settings
from tools.lab.lab import Lab

HEAD_START_S = 8.0
BULK = "10.77.0.109"  # what streams are sent to


@dataclass(frozen=True)
class Surges:
    """A client asks a service `rate` times a second for `surge_s` of each period from `phase_s` on, else once."""

    name: str
    address: str
    client: str
    period_s: float
    phase_s: float
    surge_s: float
    rate: float
    size: int
    cpu_ms: float = 0.0

    def requests(self, periods: int) -> Iterator[Request]:
        for second in range(int(periods * self.period_s)):
            busy = (second - self.phase_s) % self.period_s < self.surge_s
            rate = self.rate if busy else 1.0
            for number in range(int(rate)):
                yield Request(second + number / rate, self.name, self.size, self.cpu_ms, busy)


@dataclass(frozen=True)
class Played:
    """The whole product on the settings in `directory`, at first only advising, and everybody's traffic."""

    lab: Lab
    directory: Path
    store: Store
    supervisor: "subprocess.Popen[bytes]"
    start_at: float

    def let_act(self) -> None:
        """As its operator does who has seen enough: changes the settings file and has it read again."""
        file = self.directory / "forepath.toml"
        file.write_text("orchestrator.act = true\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
        self.supervisor.send_signal(signal.SIGHUP)

    def led(self) -> set[str]:
        """The kinds of action that forecasts led to; of more machines also how they came."""
        rows = [one for one in self.store.journal.actions() if ahead(one)]
        return {" ".join((one.kind, *([one.body["how"]] if one.kind == "scale_out" else []))) for one in rows}

    def moved(self) -> set[str]:
        """The machines that forecasts led to migrate."""
        return {one.target for one in self.store.journal.actions() if one.kind == "migrate_vm" and ahead(one)}

    def told(self) -> str:
        """What happened, for whoever looks at a failure."""
        rows = (
            f"{one.issued_at - self.start_at:.1f} {one.kind} {one.target} {one.outcome.value} "
            f"{(one.reason.get('forecast') or {}).get('horizon_s')} {one.verdict.get('code')} {one.why[:150]}"
            for one in reversed(self.store.journal.actions())
        )
        return "\n".join((str(self.led()), *rows))


def play(lab: Lab, directory: Path, surges: Sequence[Surges], periods: int, streams: Sequence[Stream] = ()) -> Played:
    """Starts the product, then the traffic of so many periods."""
    settings, plan = directory / "forepath.toml", directory / "schedule.json"
    # Tests that run under nohup ignore a hangup, and whoever they start would, too.
    words = ["env", "--default-signal=HUP", sys.executable, "-m", "forepath", "run", "--settings", str(settings)]
    supervisor = lab.popen("run", words)
    period_s = surges[0].period_s
    Schedule(
        seed=0, scenario="surge", period_s=period_s, duration_s=periods * period_s,
        addresses={one.name: one.address for one in surges} | {one.service: BULK for one in streams},
        requests={one.client: tuple(one.requests(periods)) for one in surges},
        streams=tuple(streams), windows=(), segments=(),
    ).save(plan)  # fmt: skip
    start_at = time.time() + HEAD_START_S
    for client in sorted({one.client for one in (*surges, *streams)}):
        words = [
            "-m", "tools.lab.traffic", "--schedule", str(plan), "--client", client, "--start-at", repr(start_at),
            "--spins-per-ms", repr(lab.spins_per_ms or 1.0), "--out", str(directory / client),
        ]  # fmt: skip
        lab.client_popen(client, [sys.executable, *words])
    store = open_store(load_settings(settings).database.url)
    return Played(lab, directory, store, supervisor, start_at)


def ahead(row: ActionRecord) -> bool:
    """Whether it was decided on a forecast, was ready before the need, and held; what goes back is no answer."""
    proof, back = row.reason.get("forecast") or {}, row.kind == "set_weights" and not row.body["to"]
    kept = row.verdict.get("code") == "kept" and row.verdict.get("in_time") is not False
    return row.outcome is OutcomeKind.DONE and bool(proof.get("horizon_s")) and kept and not back


def wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def eventually(check: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not (found := check()) and time.monotonic() < end:
        time.sleep(1.0)
    return found
