"""What if: recorded or invented load through the live predictor and planner, under several policies, at what cost."""
