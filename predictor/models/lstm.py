"""LSTM: a recurrent network that reads the past cell by cell, one for all series, from the extra `deep`."""

from typing import ClassVar

from predictor.deep.model import DeepModel


class Lstm(DeepModel):
    """One LSTM layer of 48 units over 52 steps that grow coarser with distance; see `predictor.deep`."""

    name: ClassVar[str] = "lstm"
    kind: ClassVar[str] = "lstm"
