"""Tells how much arrives at each machine, so far and foreseen: at a VM as a destination, at a host through its VMs."""

from collections.abc import Mapping

import numpy as np

from cpdb import Quantity, SubjectKind
from predictor.asking import windows
from predictor.cycle import Predictor
from predictor.intake import Source
from predictor.models.communications import Arrivals
from predictor.view import Floats, View

# What costs a machine work: requests, and bytes.
FEATURES = (Quantity.CONNECTIONS_MEAN, Quantity.BYTES_MEAN)


class AtMachines:
    """Looks up, for the machines of one predictor, what another one knows and foresees about destinations."""

    def __init__(self, destinations: Predictor, machines: Source, host_of: Mapping[str, str]) -> None:
        self._destinations = destinations
        self._machines = machines
        self._host_of = host_of

    def __call__(self, view: View) -> Arrivals | None:
        """Arrivals on the cells of the machines' view; None while there are none."""
        source = self._destinations.source
        channels = [source.quantities.index(quantity) // 2 for quantity in FEATURES]
        cells = source.window(view.start, view.cells)[channels]
        links = self._links(view.series, cells.shape[1])
        if not links.any():
            return None
        past = np.einsum("md,fdc->fmc", links, np.nan_to_num(cells))
        known: Floats = np.asarray(links @ np.isnan(cells[0]).astype(np.float32) == 0)
        idle = np.flatnonzero(links.sum(axis=1) == 0)
        past[:, idle] = np.nan
        past = np.where(known, past, np.nan)
        final = self._destinations.final
        ahead = self._ahead(final, links[:, : len(final)])
        return Arrivals(past, ahead)

    def _links(self, machines: int, destinations: int) -> Floats:
        """Machines x destinations: 1 where what a destination gets arrives at a machine."""
        named = [subject.a for subject in self._destinations.source.subjects[:destinations]]
        links = np.zeros((machines, destinations), dtype=np.float32)
        for row, subject in enumerate(self._machines.subjects[:machines]):
            for column, name in enumerate(named):
                at = self._host_of.get(name) if subject.kind is SubjectKind.HOST else name
                links[row, column] = at == subject.a
        return links

    def _ahead(self, final: Floats, links: Floats) -> Floats:
        """Features x machines x targets x levels. Sums of quantiles are quantiles of sums that move together."""
        quantities, asked = self._destinations.source.quantities, self._destinations.forecaster.ask
        ask = windows(self._destinations.config.horizons, len(self._machines.quantities) // 2, asked.levels)
        ahead = np.full((len(FEATURES), len(links), len(ask.targets), len(ask.levels)), np.nan, dtype=np.float32)
        if not len(final):
            return ahead
        theirs = {(one.channel, one.length, one.peak): n for n, one in enumerate(asked.targets)}
        for number, quantity in enumerate(FEATURES):
            channel = quantities.index(quantity) // 2
            for place, target in enumerate(ask.targets):
                found = theirs[channel, target.length, target.peak]
                summed = links @ np.nan_to_num(final[:, found])
                told: Floats = np.asarray(links @ np.isnan(final[:, found, 0]).astype(np.float32) == 0)
                told &= links.any(axis=1)
                ahead[number, told, place] = summed[told]
        return ahead
