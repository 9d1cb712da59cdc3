"""Measurements: what the loop costs, as ratios against a peer or against a limit in the same run."""
