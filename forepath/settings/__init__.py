"""The one settings file: what it may say, how it is read, and what each process is told of it."""

from forepath.settings.places import Claim, place_problems
from forepath.settings.specs import (
    declare,
    declared_links,
    declared_nodes,
    declared_virtual_ips,
    host_specs,
    pool_specs,
    vm_specs,
)
from forepath.settings.tree import Settings, load_settings

__all__ = [
    "Claim",
    "Settings",
    "declare",
    "declared_links",
    "declared_nodes",
    "declared_virtual_ips",
    "host_specs",
    "load_settings",
    "place_problems",
    "pool_specs",
    "vm_specs",
]
