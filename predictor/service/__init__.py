"""The predictor at work: cycles of all horizon tiers, fits in the background, and what survives a restart."""
