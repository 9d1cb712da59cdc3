"""Which controller framework a process uses: Ryu, or os-ken, its living heir. A file each brings the same names."""

import os
from collections.abc import Collection
from importlib.util import find_spec

from cpdb import SettingsError

VARIABLE = "FOREPATH_FRAMEWORK"
# As packages are named -> as they are imported; the first that is installed is used where nobody chose.
FRAMEWORKS = {"ryu": "ryu", "os-ken": "os_ken"}


def choose_framework(asked: str, installed: Collection[str]) -> str:
    """The framework that is asked for, or the first that is installed. Raises SettingsError where there is none."""
    if asked and asked not in FRAMEWORKS:
        raise SettingsError(f"{VARIABLE} = {asked!r}: there are {' and '.join(FRAMEWORKS)}")
    if asked and asked not in installed:
        raise SettingsError(f"{VARIABLE} = {asked!r}: it is not installed; run make setup FRAMEWORK={asked}")
    if not installed:
        raise SettingsError(
            "no controller framework is installed; run pip install 'forepath[ryu]' or 'forepath[os-ken]'"
        )
    return asked or next(name for name in FRAMEWORKS if name in installed)


def framework_name() -> str:
    """The framework of this process and of those that it starts. Raises SettingsError."""
    installed = [name for name, module in FRAMEWORKS.items() if find_spec(module) is not None]
    return choose_framework(os.environ.get(VARIABLE, ""), installed)
