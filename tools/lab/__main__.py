"""`make lab`: a network that is there already, to try forepath on; in it a shell, or the command that is given.

Switches wait for a controller at 127.0.0.1:6653. Clients go on asking machines by their own addresses, and the virtual
IPs of the demo, for which nobody answers as long as none is declared. All of it is gone when the shell ends.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cpdb.errors import LabError
from tools.lab.lab import Lab

RUN_DIRECTORY = Path(".run/lab")
# A question each half second, in turn; who does not answer is not waited for.
ASK = """
import itertools, sys, time, urllib.request
for address in itertools.cycle(sys.argv[1:]):
    try:
        urllib.request.urlopen(f"http://{address}/work?spin=20000", timeout=0.5).read()
    except OSError:
        pass
    time.sleep(0.25)
"""


def start_talking(lab: Lab) -> None:
    """Every client but the last asks each interactive service: its first machine, and its virtual IP."""
    layout = lab.layout
    asked = [one for one in layout.services if one.priority > 0]
    addresses = [word for one in asked for word in (layout.vm(next(iter(one.weights))).address, one.address)]
    for client in layout.clients[:-1]:
        lab.client_popen(client.name, [sys.executable, "-c", ASK, *addresses])


def hypervisors_of(lab: Lab) -> str:
    """The words with which `forepath init` looks at the lab's hypervisors."""
    return " ".join(f"--libvirt {uri}" for uri in lab.uris.values())


def run_in_lab(argv: Sequence[str]) -> int:
    """Starts the lab, runs `argv` in it, and returns its exit code. HYPERVISORS holds the words for `forepath init`."""
    with Lab(run_directory=RUN_DIRECTORY) as lab:
        lab.start(lambda step, _share: print(f"lab: {step}", flush=True))
        start_talking(lab)
        words = hypervisors_of(lab)
        print(f"lab: switches look for a controller at {lab.layout.controller}; libvirt: {words}", flush=True)
        return subprocess.run(list(argv), env=os.environ | {"HYPERVISORS": words}, check=False).returncode


def main(argv: Sequence[str]) -> int:
    """Entry point of `python -m tools.lab.stage -- python -m tools.lab [COMMAND ...]`."""
    try:
        return run_in_lab(argv or [os.environ.get("SHELL", "/bin/bash")])
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
