"""Judges models on the past before they have a record, so that a restart or a new-found period costs no cycles."""

from collections.abc import Mapping

import numpy as np

from predictor.choice import Ledger
from predictor.models import Model
from predictor.models.base import Ask
from predictor.quantiles import lawful, pinball
from predictor.view import Floats, View

MOMENTS = 32
SPAN = 128
# A replay is a friendlier test than life: the parameters are today's. Its scores count half.
TRUST = 0.5


def replay(models: Mapping[str, Model], view: View, ask: Ask, into: Ledger) -> None:
    """Adds to `into` (fresh, of the view's size) what the replayable models would have lost at up to 32 past moments.

    Each moment sees only the cells before it. Models keep the parameters that they have now.
    """
    span = min(SPAN, view.cells // 2)
    stride = max(1, span // MOMENTS)
    for horizon in ask.horizons:
        view.targets(horizon)
    for cells in range(view.cells - span, view.cells - view.lead - ask.horizons[0], stride):
        past = view.until(cells)
        fans = {name: lawful(model.predict(past)) for name, model in models.items() if model.replayable}
        for number, horizon in enumerate(ask.horizons):
            begin = cells + view.lead
            if begin >= view.cells:
                continue
            truth = view.targets(horizon)[:, :, begin].T
            into.fade(number, 0.5 ** (stride / SPAN))
            into.add(number, _losses(into, fans, number, (truth, ask)), weight=TRUST * stride)


def _losses(into: Ledger, fans: Mapping[str, Floats], number: int, asked: tuple[Floats, Ask]) -> Floats:
    truth, ask = asked
    losses = np.full((len(into.models), *truth.shape), np.nan)
    for name, fan in fans.items():
        losses[into.models.index(name)] = pinball(fan[:, number], truth, ask.levels)
    return losses
