"""The `ryu-manager` command, on Ryu and on os-ken: Ryu's own cannot start on Python 3.11, and os-ken has none."""

import gc
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches as find_close

warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(ryu|os_ken)\..*")

import eventlet

# Before anything else is imported: what was imported unpatched would block all switches while it waits.
eventlet.monkey_patch()
# An answer of 50,000 entries makes as many short-lived objects, and none of them a cycle: at Python's own setting the
# collector would look through them some seventy times.
gc.set_threshold(50_000, 20, 20)
# Ryu logs at DEBUG until it has read its settings; the database's schema tool would tell its life there.
logging.getLogger("alembic").setLevel(logging.WARNING)

from cpdb import ForepathError
from forepath.logs import set_up_logs

APPLICATIONS = ("ryu_apps.controller", "ryu_apps.flow_mirror")


def main() -> int:
    """Runs the framework's manager with the words of the command line; a wrong setting is one line and exit code 2."""
    set_up_logs()
    try:
        # Now, not before: that no framework is there is a line as well.
        importlib.import_module("ryu_apps.framework").run_manager()
    except ForepathError as error:
        print(f"ryu-manager: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if (line := _unknown_module(sys.argv[1:], error)) is None:
            raise
        print(f"ryu-manager: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _unknown_module(words: Sequence[str], error: ImportError) -> str | None:
    """A line when the module itself that was to be run is not there; None when it is, and something else is wrong."""
    missing = error.name or ""
    asked = next((word for word in words if word == missing or word.startswith(f"{missing}.")), None)
    if not missing or asked is None:
        return None
    known = find_close(asked, APPLICATIONS, n=1, cutoff=0.5) or APPLICATIONS
    return f"there is no module {asked}; run e.g. ryu-manager {known[0]}, or name a file with its .py"


if __name__ == "__main__":
    sys.exit(main())
