"""Real hypervisors and pools through libvirt: measured, changed and moved; nothing here decides anything."""

from orchestrator.act.libvirt.driver import LibvirtHypervisors
from orchestrator.act.libvirt.pool import LibvirtPool

__all__ = ["LibvirtHypervisors", "LibvirtPool"]
