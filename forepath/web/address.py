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
class ViewParameter:
    """Something that may be chosen: a word where `default` is one, else a number from 0 to `most`."""

    name: str
    about: str
    default: str | float = ""
    most: float = 0.0
    options: tuple[str, ...] = ()


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

    def value(self, one: ViewParameter) -> Any:
        """A parameter as what it is. Raises SettingsError when it is something else."""
        text = self.word(one.name) or str(one.default)
        if one.options and text not in one.options:
            raise SettingsError(f"?{one.name}={text}: write one of {', '.join(filter(None, one.options))}")
        if isinstance(one.default, str):
            return text
        try:
            value = float(text)
        except ValueError:
            raise SettingsError(f"?{one.name}={text}: write a number, e.g. {one.default:g}") from None
        if not 0 <= value <= one.most:
            raise SettingsError(f"?{one.name}={text}: write a number from 0 to {one.most:g}")
        return value

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
        """The address of this view with some parameters changed; None takes one away."""
        return _joined(self.path, dict(self.words) | words)

    def changed(self, **words: str | None) -> "PageAddress":
        """The same with some parameters changed; None takes one away."""
        kept = {name: word for name, word in (dict(self.words) | words).items() if word is not None}
        return PageAddress(self.path, kept)


def _joined(path: str, words: Mapping[str, Any]) -> str:
    text = urlencode({name: word for name, word in words.items() if word not in (None, "")})
    return f"{path}?{text}" if text else path
