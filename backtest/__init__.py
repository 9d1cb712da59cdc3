"""WHAT IF: replays recordings through the same predictor and planner. The room is reserved; nothing is in it yet."""
