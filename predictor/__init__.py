"""FORESEES: from the Communication Pattern Database alone, what each pair will say in the next seconds.

The door of the room. A `Predictor` makes one cycle at a time, `Lanes` are several of them, `run` is the loop of
`forepath predict`; a `Forecaster` is the same without a database, for backtests.
"""

from predictor.activity import rolling
from predictor.config import MODELS, PredictorConfig
from predictor.cycle import CycleReport, Predictor
from predictor.forecaster import Block, Forecaster, Options
from predictor.intake import Source, Talks
from predictor.lanes import FAST, SLOW, Lanes, SlowLane, lane_of
from predictor.loop import run
from predictor.models import BASELINES, Adopting, Model, build, known
from predictor.scoring import SAID, Record, records
from predictor.view import Ask, Target, View

__all__ = [
    "BASELINES",
    "FAST",
    "MODELS",
    "SAID",
    "SLOW",
    "Adopting",
    "Ask",
    "Block",
    "CycleReport",
    "Forecaster",
    "Lanes",
    "Model",
    "Options",
    "Predictor",
    "PredictorConfig",
    "Record",
    "SlowLane",
    "Source",
    "Talks",
    "Target",
    "View",
    "build",
    "known",
    "lane_of",
    "records",
    "rolling",
    "run",
]
