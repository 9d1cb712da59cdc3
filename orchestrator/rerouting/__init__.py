"""Hedged routing at work: the network as it is, splits worth changing, and their paths' numbers."""
