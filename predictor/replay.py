"""Judges models on the past before they have a record, so that a restart or a new-found period costs no cycles."""

from collections.abc import Mapping

import numpy as np

from predictor.choice import Ledger
from predictor.models import Model
from predictor.quantiles import lawful, pinball
from predictor.view import ALL, Ask, View

MOMENTS = 32
SPAN = 128


def replay(models: Mapping[str, Model], view: View, ask: Ask, into: Ledger) -> None:
    """Adds to `into` (fresh, of the view's size) what the replayable models would have lost at up to 32 past moments.

    Each moment sees only the cells before it. Models keep the parameters that they have now.
    """
    span = min(SPAN, view.cells // 2)
    stride = max(1, span // MOMENTS)
    origins = np.arange(view.cells - span - 1, view.cells - 1 - view.lead, stride)
    if not len(origins):
        return
    fans = np.full((len(into.contest.models), len(origins), view.series, *_shape(ask)), np.nan, dtype=np.float32)
    for number, name in enumerate(into.contest.models):
        if models[name].replayable:
            fans[number] = lawful(models[name].predict(view, origins))
    for number, origin in enumerate(origins.tolist()):
        for reach in sorted({target.reach for target in ask.targets}):
            if origin + view.lead + reach < view.cells:
                which = np.flatnonzero([target.reach == reach for target in ask.targets])
                actual = view.truth(ask.targets, which, origin)
                losses = pinball(fans[:, number][:, :, which], actual[None], ask.levels)
                into.add(losses, which, ALL, view.start + origin + reach)


def _shape(ask: Ask) -> tuple[int, int]:
    return len(ask.targets), len(ask.levels)
