"""The settings of the demo: what an operator of the lab would declare. Nothing here knows when a surge comes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from cpdb import MBIT, MIB
from forepath.demo.layout import LabLayout, LabVm
from forepath.settings import Settings

# An interactive VM may grow to three times its base; a batch VM keeps what it has.
GROWTH = 3.0
NO_COST: Mapping[str, float] = MappingProxyType({})


def scene(
    layout: LabLayout,
    database: Path,
    uris: dict[str, str],
    migration_uris: dict[str, str],
    cost_ms: Mapping[str, float] = NO_COST,
) -> Settings:
    """Settings for the lab: its switches, links, virtual IPs, hosts and VMs; behaviour is left at its defaults.

    `cost_ms` says what requests of its interactive services cost, where that is known.
    """
    return Settings.model_validate(
        {
            "database": {"url": f"sqlite:///{database}"},
            "node": _nodes(layout),
            "link": _links(layout),
            "virtual_ip": _virtual_ips(layout),
            "host": [
                {
                    "name": host.name,
                    "uri": uris[host.name],
                    "migration_uri": migration_uris.get(host.name),
                    "cpu_cores": host.cpu_cores,
                    "memory_mib": host.memory_bytes // MIB,
                }
                for host in layout.hypervisors
            ],
            "vm": [
                _vm(vm) | (dict(cost_ms) if vm.service is not None and vm.priority > 0 else {}) for vm in layout.vms
            ],
        }
    )


def _vm(vm: LabVm) -> dict[str, Any]:
    return {
        "name": vm.name,
        "priority": vm.priority,
        "cpu_cores_base": vm.quota_cores,
        "cpu_cores_max": vm.quota_cores * (GROWTH if vm.priority > 0 else 1.0),
        "vcpus_max": vm.max_vcpus,
        "movable": vm.service is None,
        "host": vm.host,
    }


def _nodes(layout: LabLayout) -> list[dict[str, Any]]:
    switches = [{"name": one.name, "kind": "switch", "dpid": one.dpid} for one in layout.switches]
    clients = [{"name": one.name, "kind": "client", "address": one.address, "mac": one.mac} for one in layout.clients]
    machines = [{"name": one.name, "kind": "vm", "address": one.address, "mac": one.mac} for one in layout.vms]
    return switches + clients + machines


def _links(layout: LabLayout) -> list[dict[str, Any]]:
    fabric = [
        {"a": a, "a_port": a_port, "b": b, "b_port": b_port, "capacity_mbit_per_s": layout.fabric_bytes_per_s / MBIT}
        for a, a_port, b, b_port in layout.fabric_ports()
    ]
    clients = [
        {"a": one.switch, "a_port": one.port, "b": one.name, "capacity_mbit_per_s": one.capacity_bytes_per_s / MBIT}
        for one in layout.clients
    ]
    hosts = [
        {"a": one.switch, "a_port": one.port, "b": one.name, "capacity_mbit_per_s": one.access_bytes_per_s / MBIT}
        for one in layout.hypervisors
    ]
    return fabric + clients + hosts


def _virtual_ips(layout: LabLayout) -> list[dict[str, Any]]:
    return [
        {
            "name": service.name,
            "address": service.address,
            "priority": service.priority,
            # What is copied at low priority are datagrams: they yield to nobody.
            "streams": service.priority == 0,
            "destination": [
                {"name": name, "address": layout.vm(name).address, "mac": layout.vm(name).mac, "weight": weight}
                for name, weight in service.weights.items()
            ],
        }
        for service in layout.services
    ]


def pooled(declared: Settings, layout: LabLayout) -> Settings:
    """The same where machines that stand by for a service are those of a pool: they rest until they are needed."""
    tables = as_tables(declared)
    bases = {one["name"]: one for one in tables["vm"]}
    tables["pool"] = []
    for service in tables["virtual_ip"]:
        weights = layout.service(service["name"]).weights
        resting = [layout.vm(name) for name, weight in weights.items() if not weight]
        if resting:
            names = {one.name for one in resting}
            service["destination"] = [one for one in service["destination"] if one["name"] not in names]
            service["affinity"] = "connection"
            tables["pool"].append(_pool(service["name"], resting, bases[resting[0].name]))
            for table in ("vm", "node"):
                tables[table] = [one for one in tables[table] if one["name"] not in names]
    return Settings.model_validate(tables)


def _pool(service: str, resting: Sequence[LabVm], base: Mapping[str, Any]) -> dict[str, Any]:
    machine = {name: base[name] for name in ("cpu_cores_base", "cpu_cores_max")}
    return {
        "virtual_ip": service,
        "max_destinations": 1 + len(resting),
        "machine": machine | {"memory_mib": resting[0].memory_bytes // MIB},
        "member": [{"name": one.name, "address": one.address, "mac": one.mac, "host": one.host} for one in resting],
        "departure": {"cooldown_s": 1.0},
    }


def as_tables(settings: Settings) -> dict[str, Any]:
    """The tables that a person would write; defaults are left out."""
    return settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


def as_toml(settings: Settings) -> str:
    """The settings as the file that a person would write."""
    return tomli_w.dumps(as_tables(settings))
