"""Looks: the world, what it has taught, and what is foreseen, read from the database into one snapshot."""
