"""MEETS PEOPLE: the page and the API. Read-only, in a process of its own, any number of them.

The door: `serve` for the process, `split_listen` and `is_loopback` for whoever checks where it listens.
"""

from forepath.web.server import is_loopback, serve, split_listen

__all__ = ["is_loopback", "serve", "split_listen"]
