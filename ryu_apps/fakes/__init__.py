"""A switch that behaves without existing, for tests and simulations."""
