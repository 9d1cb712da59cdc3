"""Says what is forecast, how far ahead and how much work that may cost, with defaults that suit one-second samples."""

from dataclasses import dataclass

from predictor.models import IN_THE_BOX, REFERENCE, known_models

MODELS = tuple(IN_THE_BOX)


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """How much work forecasting may cost.

    `fit_budget_s` is the CPU time that one fit of one model may take before it is ended, `max_pairs` a bound on memory;
    `threads` share the work of a cycle when there are thousands of pairs.
    """

    refit_every_s: float = 30.0
    fit_budget_s: float = 15.0
    max_pairs: int = 120_000
    threads: int = 2


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """Settings of the predictor; raises ValueError with one line that names the setting that makes no sense.

    All times are seconds. `half_life_s` is how fast old scores lose their weight in the choice of a model,
    `max_stale_s` how long a pair without rows is still forecast (ever wider). `tier` is the name under which forecasts
    are written.
    """

    horizons_s: tuple[int, ...] = (5, 15, 30)
    levels: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    step_s: float = 1.0
    window_s: int = 900
    min_history_s: float = 20.0
    half_life_s: float = 60.0
    max_stale_s: float = 60.0
    models: tuple[str, ...] = MODELS
    limits: WorkLimits = WorkLimits()
    seed: int = 1
    tier: str = "fast"

    def __post_init__(self) -> None:
        unknown = set(self.models) - set(known_models())
        checks = (
            (
                bool(self.horizons_s) and min(self.horizons_s) >= self.step_s,
                "horizons_s: at least one, none below step_s",
            ),
            (
                bool(self.levels) and sorted(set(self.levels)) == list(self.levels),
                "levels: must ascend, e.g. (0.1, 0.5)",
            ),
            (all(0 < level < 1 for level in self.levels), "levels: must lie between 0 and 1"),
            (self.step_s > 0, "step_s: must be above 0"),
            (self.window_s >= 4 * max(self.horizons_s, default=0), "window_s: at least 4 times the longest horizon"),
            (not unknown, f"models: known are {', '.join(known_models())}; got {', '.join(self.models)}"),
            (REFERENCE in self.models, f"models: {REFERENCE} must be among them, the others are measured against it"),
        )
        for kept, rule in checks:
            if not kept:
                raise ValueError(f"predictor.{rule}")

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons in cells of the grid."""
        return tuple(max(1, round(horizon / self.step_s)) for horizon in self.horizons_s)
