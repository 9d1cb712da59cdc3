"""An application beside others that notes how long the event loop kept everybody waiting, each second, to a file."""

import json
import os
from pathlib import Path
from typing import Any

from ryu_apps.framework import FrameworkApp, sleep, spawn
from tools.bench.collect_app import Heartbeat

# The file to write to
FILE = "FOREPATH_BENCH_HEARTBEAT"
_EVERY_S = 1.0


class HeartbeatApp(FrameworkApp):
    """Writes one JSON line a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        spawn(self._note)

    def _note(self) -> None:
        heart = Heartbeat()
        with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
            while True:
                sleep(_EVERY_S)
                file.write(json.dumps({"stall_s": heart.longest_s, "stall_cpu_s": heart.longest_cpu_s}) + "\n")
                file.flush()
                heart.longest_s = heart.longest_cpu_s = 0.0
