"""A machine without libvirt and Mininet can still look, decide and run the simulated demo."""

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["libvirt"] = None
sys.modules["mininet"] = None
import forepath.cli
import forepath.demo.simulated
"""


def test_the_command_line_and_the_simulation_need_neither_libvirt_nor_mininet() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
