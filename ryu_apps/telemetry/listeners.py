"""Where samples come in: sFlow, NetFlow v9 and IPFIX, each at its own port, as the settings say."""

import socket
from collections.abc import Iterator
from functools import partial

from cpdb import Batch
from ryu_apps.framework import spawn
from ryu_apps.settings import ControllerSection, SflowSection
from ryu_apps.telemetry.netflow import NetflowDecoder
from ryu_apps.telemetry.sampling import Decoder, Sampling, TalkOf, bound, receive
from ryu_apps.telemetry.sflow import SflowDecoder

Seconds = float


class Listeners:
    """A bound socket and what it brought, for each that is set."""

    def __init__(self, settings: ControllerSection) -> None:
        """Raises SettingsError when one cannot listen."""
        netflow = settings.netflow
        kinds: list[tuple[str, SflowSection, Decoder]] = [
            ("sflow", settings.sflow, SflowDecoder()),
            ("netflow", netflow, NetflowDecoder(netflow.sampling)),
        ]
        self._found: list[tuple[Sampling, socket.socket]] = [
            (Sampling(section.by_address(), decoder, kind), bound(section.listen, kind))
            for kind, section, decoder in kinds
            if section.listen
        ]

    def start(self, talk_of: TalkOf) -> None:
        """Receives for ever."""
        for sampling, receiver in self._found:
            spawn(receive, receiver, partial(_take, sampling, talk_of))

    def make_batches(self, now: Seconds) -> list[Batch]:
        """What was sampled since last time, where rows are made of it."""
        return [batch for sampling, _ in self._found for batch in sampling.make_batches(now)]

    def counts(self) -> dict[tuple[str, str], int]:
        """What went wrong so far, by kind and reason."""
        return dict(self._counts())

    def _counts(self) -> Iterator[tuple[tuple[str, str], int]]:
        for sampling, _ in self._found:
            yield from sampling.counts().items()


def _take(sampling: Sampling, talk_of: TalkOf, data: bytes, peer: str, now: Seconds) -> None:
    sampling.take(data, peer, talk_of, now)
