"""The brakes on every plan: how much, how often, on how old a world, and never back and forth."""
