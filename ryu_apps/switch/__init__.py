"""Talking to one switch: its connection, the messages that make it hold what it should, and what it refused."""
