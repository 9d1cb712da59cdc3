"""os-ken, which goes on where Ryu ended: the same names and green threads, and the manager that it left out."""

import logging
import os
from importlib.metadata import version
from pathlib import Path

# By itself it gives each connection a thread of its own; applications that share state rely on one loop.
os.environ["OSKEN_HUB_TYPE"] = "eventlet"

from os_ken import cfg as options
from os_ken import log
from os_ken.base.app_manager import AppManager
from os_ken.base.app_manager import OSKenApp as FrameworkApp
from os_ken.controller import controller as stock
from os_ken.controller import handler, ofp_event
from os_ken.lib import hub
from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

__all__ = ["FrameworkApp", "ProtocolDesc", "handler", "hub", "ofp_event", "ofproto", "options", "parser", "stock"]

_FILE = Path("/usr/local/etc/os_ken/os_ken.conf")


def run_manager() -> None:
    """Runs the applications of the command line until they end, with the words of Ryu's manager."""
    log.early_init_log(logging.DEBUG)
    # Declares --observe-links and the like, as Ryu's manager does.
    import os_ken.topology.switches  # noqa: F401

    conf, cfg = options.CONF, options
    conf.register_cli_opts(
        [
            cfg.ListOpt("app-lists", default=[], help="application module name to run"),
            cfg.MultiStrOpt("app", positional=True, default=[], help="application module name to run"),
            cfg.StrOpt("pid-file", help="pid file name"),
        ]
    )
    files = [str(_FILE)] if _FILE.is_file() else None
    conf(project="os_ken", version=f"ryu-manager on os-ken {version('os-ken')}", default_config_files=files)
    log.init_log()
    if conf.pid_file:
        Path(conf.pid_file).write_text(str(os.getpid()), encoding="utf-8")
    AppManager.run_apps(conf.app_lists + conf.app or ["os_ken.controller.ofp_handler"])
