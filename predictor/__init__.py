"""FORESEES: from the Communication Pattern Database alone, what each pair will send in the next seconds.

The door of the room. A `Predictor` makes one cycle at a time, `Tiers` are several of them, `run` is the loop of
`forepath predict`; a `Forecaster` is the same without a database, for backtests.
"""

from predictor.config import MODELS, HistoryLimits, LongTier, PredictorConfig, PredictorSection, SlowTier, WorkLimits
from predictor.data.sources import FlowSeries, Source
from predictor.data.view import ForecastSpec, SeriesView, Target
from predictor.ensemble.forecaster import ForecastBlock, Forecaster, ForecasterOptions
from predictor.models import BASELINES, Model, build_models, known_models
from predictor.service.cycle import Predictor, PredictorReport
from predictor.service.loop import run
from predictor.service.tiers import BESIDE, FAST, LIGHT_MODELS, LONG_MODELS, SLOW, Tiers, tier_of
from predictor.service.workers import use_one_thread
from predictor.trust.activity import rolling_probabilities
from predictor.trust.scores import BLENDED, ModelScore, summarise_scores

__all__ = [
    "BASELINES",
    "BESIDE",
    "BLENDED",
    "FAST",
    "LIGHT_MODELS",
    "LONG_MODELS",
    "MODELS",
    "SLOW",
    "FlowSeries",
    "ForecastBlock",
    "ForecastSpec",
    "Forecaster",
    "ForecasterOptions",
    "HistoryLimits",
    "LongTier",
    "Model",
    "ModelScore",
    "Predictor",
    "PredictorConfig",
    "PredictorReport",
    "PredictorSection",
    "SeriesView",
    "SlowTier",
    "Source",
    "Target",
    "Tiers",
    "WorkLimits",
    "build_models",
    "known_models",
    "rolling_probabilities",
    "run",
    "summarise_scores",
    "tier_of",
    "use_one_thread",
]
