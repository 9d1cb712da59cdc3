"""The demo on the lab."""
