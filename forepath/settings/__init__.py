"""The one settings file: what it may say, how it is read, and what each process is told of it."""

from forepath.settings.specs import declare, host_specs, pool_specs, vm_specs
from forepath.settings.tree import Settings, load_settings

__all__ = [
    "Settings",
    "declare",
    "host_specs",
    "load_settings",
    "pool_specs",
    "vm_specs",
]
