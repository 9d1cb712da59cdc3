"""FORESEES: from the Communication Pattern Database alone, what each pair will say in the next seconds.

The door of the room: a `Predictor` makes one cycle at a time, `run` is the loop of `forepath predict`.
"""

from predictor.config import MODELS, PredictorConfig
from predictor.cycle import CycleReport, Predictor
from predictor.loop import run

__all__ = ["MODELS", "CycleReport", "Predictor", "PredictorConfig", "run"]
