"""Transformer: an attention network over patches of the past, one for all series, from the extra `deep`."""

from typing import ClassVar

from predictor.deep.model import DeepModel


class Transformer(DeepModel):
    """Two encoder layers over 13 patches of 4 steps that grow coarser with distance; see `predictor.deep`."""

    name: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "transformer"
