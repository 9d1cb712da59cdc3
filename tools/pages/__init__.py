"""Writes the pages of docs/results from replays of recordings."""
