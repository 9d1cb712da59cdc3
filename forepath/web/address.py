"""What a viewer looks at stands in the address: the moment, how far ahead, the theme, and what the view is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from typer import BadParameter

from cpdb import SettingsError
from forepath.moments import LAST, read_past

KEPT = ("at", "ahead", "theme")
LONGEST_WORD = 128
THEMES = {"dark": True, "light": False}


@dataclass(frozen=True, slots=True)
class PageAddress:
    """A path and its parameters; what all views share is carried from one to the next."""

    path: str
    words: Mapping[str, str] = field(default_factory=dict)

    def word(self, name: str, default: str = "") -> str:
        """A parameter as text. Raises SettingsError when it is too long to be a name."""
        found = self.words.get(name, default)
        if len(found) > LONGEST_WORD:
            raise SettingsError(f"?{name}=: more than {LONGEST_WORD} letters")
        return found

    def number(self, name: str, default: float, most: float) -> float:
        """A parameter as a number from 0 to `most`. Raises SettingsError when it is none."""
        text = self.word(name)
        try:
            value = float(text) if text else default
        except ValueError:
            raise SettingsError(f"?{name}={text}: write a number, e.g. {default:g}") from None
        if not 0 <= value <= most:
            raise SettingsError(f"?{name}={text}: write a number from 0 to {most:g}")
        return value

    def choice(self, name: str, options: Any, default: str) -> str:
        """A parameter that is one of `options`. Raises SettingsError when it is another."""
        text = self.word(name, default)
        if text not in list(options):
            raise SettingsError(f"?{name}={text}: write one of {', '.join(options)}")
        return text

    def at(self, now: float, newest: float | None) -> float | None:
        """The past moment that is looked at; None is the present. Raises SettingsError when it is no moment.

        `newest` is what "last" stands for: when somebody measured last.
        """
        text = self.word("at")
        if not text:
            return None
        if text == LAST:
            return newest
        try:
            found = read_past(text, now)
        except BadParameter:
            found = None
        if found is None or found < 0:
            raise SettingsError(f"?at={text}: is no moment; write e.g. 2026-11-28T03:00 or {LAST}")
        return found if found < now else None

    @property
    def dark(self) -> bool | None:
        """Dark, light, or what the viewer's system says."""
        return THEMES.get(self.words.get("theme", ""))

    def to(self, path: str, **words: Any) -> str:
        """The address of another view, with what all views share."""
        kept = {name: self.words[name] for name in KEPT if self.words.get(name)}
        return _joined(path, kept | words)

    def here(self, **words: Any) -> str:
        """This view with some parameters changed; None takes one away."""
        return _joined(self.path, dict(self.words) | words)


def _joined(path: str, words: Mapping[str, Any]) -> str:
    text = urlencode({name: word for name, word in words.items() if word not in (None, "")})
    return f"{path}?{text}" if text else path
