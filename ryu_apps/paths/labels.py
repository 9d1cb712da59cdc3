"""Whether labels of paths could be taken for VLANs that are in use: then nothing is labelled, and why is told."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cpdb import FIRST_TAG, LABELS
from ryu_apps.effects import Alert

Seconds = float

TAKEN = "labels_taken"
# Who was silent for so long may have gone: a backup has its VLAN once a night.
REMEMBER_S = 30 * 3600.0
_MAX_VLANS = 4096


@dataclass(slots=True)
class UsedVlans:
    """VLANs as declared, as hosts' frames have them, and as rules of others name them."""

    first_label: int = FIRST_TAG
    declared: frozenset[int] = frozenset()
    _seen: dict[int, tuple[Seconds, str]] = field(default_factory=dict)

    def saw(self, vlan: int, where: str, now: Seconds) -> None:
        """Somebody uses a VLAN (0 is none)."""
        if 0 < vlan < _MAX_VLANS:
            self._seen[vlan] = now, where

    def conflict(self, now: Seconds) -> str | None:
        """Which VLAN lies among our labels, by whose word, and the mend; None while none does."""
        own = range(self.first_label, self.first_label + LABELS)
        found = {vlan: "controller.vlans names it" for vlan in self.declared if vlan in own}
        found |= {vlan: where for vlan, (at, where) in self._seen.items() if vlan in own and now - at < REMEMBER_S}
        if not found:
            return None
        vlan = min(found)
        others = (first for first in (3072, 2048, 1024) if first != self.first_label)
        free = [first for first in others if not any(first <= one < first + LABELS for one in self.known(now))]
        mend = f"set routing.first_label = {free[0]}" if free else "no range is free: leave routing off"
        return f"VLAN {vlan} is in use ({found[vlan]}), and labels of paths are {own[0]} to {own[-1]}: {mend}"

    def known(self, now: Seconds) -> Iterable[int]:
        """All VLANs that are in use."""
        return {*self.declared, *(vlan for vlan, (at, _) in self._seen.items() if now - at < REMEMBER_S)}

    def alert(self, now: Seconds) -> list[Alert]:
        """An alarm while paths cannot be labelled."""
        why = self.conflict(now)
        return [] if why is None else [Alert(TAKEN, "routing", "", why + "; until then nothing is labelled")]
