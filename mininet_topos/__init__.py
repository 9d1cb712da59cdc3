"""TRIES IT: topologies, seeded traffic, and the lab of real switches and virtual machines on one machine.

Most names are loaded on first use: the lab itself needs Mininet and libvirt, which a machine without a lab may lack,
and `stage` and `assets` are programs as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mininet_topos.fluid import Flow, Fluid, Job, Second
from mininet_topos.layout import LabLayout
from mininet_topos.schedule import (
    Phases,
    Request,
    Schedule,
    Segment,
    Stream,
    Window,
    make_schedule,
    request_cpu_s,
)

if TYPE_CHECKING:
    from mininet_topos.assets import Assets, default_directory, ensure_assets, load_assets
    from mininet_topos.cpu_need import CpuAccount, Price, Work, account, offered, price, rooms
    from mininet_topos.lab import Lab
    from mininet_topos.results import at_unix, delivered_share, read_played, shortage, summarise
    from mininet_topos.sampler import Sample, Sampler, read_samples
    from mininet_topos.stage import on_stage, run_on_stage, why_not
    from mininet_topos.traffic import Played

__all__ = [
    "Assets",
    "CpuAccount",
    "Flow",
    "Fluid",
    "Job",
    "Lab",
    "LabLayout",
    "Phases",
    "Played",
    "Price",
    "Request",
    "Sample",
    "Sampler",
    "Schedule",
    "Second",
    "Segment",
    "Stream",
    "Window",
    "Work",
    "account",
    "at_unix",
    "default_directory",
    "delivered_share",
    "ensure_assets",
    "load_assets",
    "make_schedule",
    "offered",
    "on_stage",
    "price",
    "read_played",
    "read_samples",
    "request_cpu_s",
    "rooms",
    "run_on_stage",
    "shortage",
    "summarise",
    "why_not",
]
_LATER = {
    "Assets": "assets",
    "default_directory": "assets",
    "ensure_assets": "assets",
    "load_assets": "assets",
    "CpuAccount": "cpu_need",
    "Price": "cpu_need",
    "Work": "cpu_need",
    "account": "cpu_need",
    "offered": "cpu_need",
    "price": "cpu_need",
    "rooms": "cpu_need",
    "Lab": "lab",
    "Sample": "sampler",
    "Sampler": "sampler",
    "read_samples": "sampler",
    "Played": "traffic",
    "at_unix": "results",
    "delivered_share": "results",
    "read_played": "results",
    "shortage": "results",
    "summarise": "results",
    "on_stage": "stage",
    "run_on_stage": "stage",
    "why_not": "stage",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mininet_topos.{_LATER[name]}"), name)
