"""MEETS PEOPLE: the page and the API. Read-only, in a process of its own, any number of them.

The door: `serve` for the process.
"""

from forepath.web.server import serve

__all__ = ["serve"]
