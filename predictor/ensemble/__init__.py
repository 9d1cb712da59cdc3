"""Makes one quantile forecast of all models': weights, calibration, and peers where a series has no past."""
