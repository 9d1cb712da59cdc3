"""Numbers the paths of splits: two paths of one split, or that share a link, never have the same tag; others may."""

from collections.abc import Iterable
from itertools import pairwise

from cpdb import FIRST_TAG, LAST_TAG, WantedSplit
from orchestrator.route_actions import Ends, Path


class Tags:
    """Tags in use, and free ones. A path keeps its tag for as long as a row names it, also with a share of 0."""

    def __init__(self, rows: Iterable[WantedSplit]) -> None:
        self._known: dict[tuple[Ends, Path], int] = {}
        self._on_link: dict[Ends, set[int]] = {}
        for row in rows:
            for path, tag in zip(row.paths, row.tags, strict=False):
                self._take((row.from_switch, row.to_switch), path, tag)

    def _take(self, ends: Ends, path: Path, tag: int) -> None:
        self._known[ends, path] = tag
        for hop in pairwise(path):
            self._on_link.setdefault(hop, set()).add(tag)

    def of(self, ends: Ends, path: Path) -> int | None:
        """The tag of a path between two switches, taken when it has none yet; None when all are in use on its links."""
        if (ends, path) not in self._known:
            used = {tag for (other, _), tag in self._known.items() if other == ends}
            used = used.union(*(self._on_link.get(hop, ()) for hop in pairwise(path)))
            free = next((tag for tag in range(FIRST_TAG, LAST_TAG + 1) if tag not in used), None)
            if free is None:
                return None
            self._take(ends, path, free)
        return self._known[ends, path]
