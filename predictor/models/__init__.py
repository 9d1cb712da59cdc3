"""The models, one a file; each is a guess at how traffic goes on, and all of them compete on every pair."""

from predictor.config import PredictorConfig
from predictor.models.arima import Arima
from predictor.models.base import Ask, Model
from predictor.models.ewma import Ewma
from predictor.models.gradient_boosting import GradientBoosting
from predictor.models.naive import Naive
from predictor.models.seasonal_naive import SeasonalNaive
from predictor.models.train_mean import TrainMean

BASELINES = ("naive", "ewma", "train_mean")
REFERENCE = "ewma"


def build(config: PredictorConfig) -> dict[str, Model]:
    """A fresh model for each name in the settings, in that order."""
    ask = Ask(config.horizons, config.levels)
    every: dict[str, Model] = {
        model.name: model
        for model in (
            Naive(ask),
            Ewma(ask),
            TrainMean(ask),
            SeasonalNaive(ask),
            Arima(ask),
            GradientBoosting(ask, config.seed),
        )
    }
    return {name: every[name] for name in config.models}


__all__ = ["BASELINES", "REFERENCE", "Ask", "Model", "build"]
