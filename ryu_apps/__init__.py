"""SEES, TOUCHES: the only room that knows OpenFlow.

The door: pure parts that others may use. The applications themselves (`ryu_apps.controller`, `ryu_apps.flow_mirror`)
are run by `ryu-manager`; importing this package loads no framework.
"""

from ryu_apps.fakes.fake_packets import Packet
from ryu_apps.fakes.fake_switch import FakeSwitch
from ryu_apps.frameworks import FRAMEWORKS, framework_name
from ryu_apps.paths.splits import Routed, SplitPath, choose_path, find_split_paths
from ryu_apps.pipeline import PairShare, Rewrite, Share, desired
from ryu_apps.rules import Desired, Match, Meter, Output, Rule, SetField, virtual_mac
from ryu_apps.services.pairs import choose
from ryu_apps.settings import ControllerSection, ControllerSettings, listen_problem
from ryu_apps.status.metrics import CONTROLLER_METRICS
from ryu_apps.switch.reconcile import Holding, difference
from ryu_apps.telemetry.foreign import HIDDEN, UNREACHED
from ryu_apps.tls import NO_TLS, LiveContext, TlsFiles, TlsSection, make_context, revoked_serials
from ryu_apps.topology.paths import Attachment, Topology

__all__ = [
    "CONTROLLER_METRICS",
    "FRAMEWORKS",
    "HIDDEN",
    "NO_TLS",
    "UNREACHED",
    "Attachment",
    "ControllerSection",
    "ControllerSettings",
    "Desired",
    "FakeSwitch",
    "Holding",
    "LiveContext",
    "Match",
    "Meter",
    "Output",
    "Packet",
    "PairShare",
    "Rewrite",
    "Routed",
    "Rule",
    "SetField",
    "Share",
    "SplitPath",
    "TlsFiles",
    "TlsSection",
    "Topology",
    "choose",
    "choose_path",
    "desired",
    "difference",
    "find_split_paths",
    "framework_name",
    "listen_problem",
    "make_context",
    "revoked_serials",
    "virtual_mac",
]
