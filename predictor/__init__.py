"""FORESEES: from the Communication Pattern Database alone, what each pair will say in the next seconds.

The door of the room. A `Predictor` makes one cycle at a time, `Tiers` are several of them, `run` is the loop of
`forepath predict`; a `Forecaster` is the same without a database, for backtests.
"""

from predictor.config import MODELS, PredictorConfig, WorkLimits
from predictor.data.sources import Source, Talks
from predictor.data.view import Ask, Target, View
from predictor.ensemble.forecaster import Block, Forecaster, Options
from predictor.models import BASELINES, Adopting, Model, build, known
from predictor.service.cycle import CycleReport, Predictor
from predictor.service.loop import run
from predictor.service.tiers import FAST, SLOW, SlowTier, Tiers, tier_of
from predictor.trust.activity import rolling
from predictor.trust.scores import SAID, Record, records

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
    "Model",
    "Options",
    "Predictor",
    "PredictorConfig",
    "Record",
    "SlowTier",
    "Source",
    "Talks",
    "Target",
    "Tiers",
    "View",
    "WorkLimits",
    "build",
    "known",
    "records",
    "rolling",
    "run",
    "tier_of",
]
