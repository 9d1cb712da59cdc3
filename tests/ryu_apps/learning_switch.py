"""Somebody's own application for os-ken, which brings none: forwards by MACs that it learnt, and floods the others."""

from os_ken.base.app_manager import OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser


class LearningSwitch(OSKenApp):
    """One rule for each MAC and port that it comes from."""

    OFP_VERSIONS = (ofproto.OFP_VERSION,)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ports = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_switch(self, event):
        to_us = parser.OFPActionOutput(ofproto.OFPP_CONTROLLER, ofproto.OFPCML_NO_BUFFER)
        self.add(event.msg.datapath, 0, parser.OFPMatch(), to_us)

    def add(self, datapath, priority, match, action):
        doing = [parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, [action])]
        datapath.send_msg(parser.OFPFlowMod(datapath, priority=priority, match=match, instructions=doing))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_frame(self, event):
        message, datapath, port = event.msg, event.msg.datapath, event.msg.match["in_port"]
        to, of = (":".join(f"{byte:02x}" for byte in message.data[at : at + 6]) for at in (0, 6))
        self.ports[datapath.id, of] = port
        action = parser.OFPActionOutput(self.ports.get((datapath.id, to), ofproto.OFPP_FLOOD))
        if action.port != ofproto.OFPP_FLOOD:
            self.add(datapath, 1, parser.OFPMatch(in_port=port, eth_dst=to, eth_src=of), action)
        sent = parser.OFPPacketOut(datapath, ofproto.OFP_NO_BUFFER, port, [action], message.data)
        datapath.send_msg(sent)
