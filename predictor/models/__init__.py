"""The models, one a file; each is a guess at how traffic goes on, and all of them compete on every series."""

from predictor.models.base import Adopting, Model
from predictor.models.registry import BASELINES, REFERENCE, build, known

__all__ = ["BASELINES", "REFERENCE", "Adopting", "Model", "build", "known"]
