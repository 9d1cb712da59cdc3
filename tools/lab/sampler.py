"""Writes down the ground truth of a running lab once a second: what the kernel's queues and control groups counted."""

import json
import threading
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

from cpdb.errors import LabError
from forepath.demo.results import Sample
from tools.lab.lab import Lab
from tools.lab.machines import read_host_cpu, read_vm_cpu


def take(lab: Lab, now: float) -> Sample:
    """Read all counters of `lab`."""
    links = {f"{a}>{b}": astuple(counters) for (a, b), counters in lab.link_counters().items()}
    if not lab.vms:
        return Sample(now, links)
    return Sample(
        now,
        links,
        {
            vm: (c.cpu_seconds, c.throttled_seconds, c.vcpu_limit_cores, c.host, c.limit_cores)
            for vm, c in read_vm_cpu(lab.machines).items()
        },
        {h: (c.cpu_seconds, c.throttled_seconds, c.limit_cores) for h, c in read_host_cpu(lab.machines).items()},
    )


class Sampler:
    """Samples `lab` into the JSON lines file `path` from `start` to `stop`."""

    def __init__(self, lab: Lab, path: Path, interval_s: float = 1.0) -> None:
        self.lab = lab
        self.path = path
        self.interval_s = interval_s
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current sample."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        due = time.monotonic()
        with self.path.open("w", buffering=1) as out:
            while not self._stop.is_set():
                self._write_one(out)
                due += self.interval_s
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _write_one(self, out: Any) -> None:
        try:
            sample = take(self.lab, time.time())
        except (LabError, OSError, KeyError):
            self.failures += 1  # something is just being moved; the next second will do
            return
        row = {"t": sample.t, "links": sample.links, "vms": sample.vms, "hosts": sample.hosts}
        # "Infinity" is how Python's JSON writes and reads a missing limit.
        out.write(json.dumps(row) + "\n")
