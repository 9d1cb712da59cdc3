"""Commands need no more than they use: no libvirt and Mininet to look, nothing that takes long to import to begin."""

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


def test_no_command_waits_for_what_few_of_them_use() -> None:
    code = """import sys, forepath.cli
print([name for name in ("scipy", "networkx", "sklearn", "statsmodels", "nicegui") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
