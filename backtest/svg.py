"""Draws small plots as SVG text, so that a page of results needs no file beside it and no library to be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
WIDTH, HEIGHT = 860, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 14, 30
COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#8a6d3b", "#64748b", "#b91c1c", "#0f766e", "#4d4d4d")


@dataclass(frozen=True, slots=True)
class Frame:
    """The plane of a plot: what its edges stand for."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.left) / max(self.right - self.left, 1e-12)

    def y(self, value: float) -> float:
        """Pixels from the top; what is beyond the edge stays at the edge."""
        share = (value - self.bottom) / max(self.top - self.bottom, 1e-12)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, -0.02), 1.02)


def colour(number: int) -> str:
    """A colour for the number-th line."""
    return COLOURS[number % len(COLOURS)]


def lines(
    frame: Frame, x: Floats, curves: dict[str, tuple[str, Floats]], band: tuple[Floats, Floats] | None = None
) -> str:
    """Curves (name -> colour, values; NaN = gap) over x, above a shaded band if there is one."""
    parts = [_axes(frame)]
    if band is not None:
        edge = [*zip(x, band[1], strict=True), *zip(x[::-1], band[0][::-1], strict=True)]
        points = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in edge if np.isfinite(b))
        parts.append(f'<polygon points="{points}" fill="{COLOURS[0]}" fill-opacity="0.18"/>')
    for ink, values in curves.values():
        parts += [
            f'<polyline points="{run}" fill="none" stroke="{ink}" stroke-width="1.4"/>'
            for run in _runs(frame, x, values)
        ]
    return _svg(parts) + legend({name: ink for name, (ink, _) in curves.items()})


def _runs(frame: Frame, x: Floats, values: Floats) -> list[str]:
    known = np.isfinite(values)
    cuts = np.flatnonzero(np.diff(known.astype(int))) + 1
    return [
        " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(x[part], values[part], strict=True))
        for part in np.split(np.arange(len(x)), cuts)
        if len(part) and known[part[0]]
    ]


def bars(groups: Sequence[str], values: dict[str, Sequence[float]]) -> str:
    """A group of bars for each group name, one bar a series name (same colour in all groups)."""
    finite = [value for row in values.values() for value in row if np.isfinite(value)]
    frame = Frame(0, len(groups), 0, 1.08 * max(finite, default=1.0))
    room = 0.86 / max(len(values), 1)
    parts = [_axes(frame, bottom=False)]
    for number, row in enumerate(values.values()):
        for group, value in enumerate(row):
            if np.isfinite(value):
                left, top = frame.x(group + 0.07 + number * room), frame.y(value)
                size = f'width="{frame.x(room * 0.92) - frame.x(0):.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
                title = f"<title>{value:.4f}</title>"
                parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{colour(number)}">{title}</rect>')
    for group, name in enumerate(groups):
        parts.append(_text(frame.x(group + 0.5), HEIGHT - 10, name, "middle"))
    return _svg(parts) + legend({name: colour(number) for number, name in enumerate(values)})


def legend(inks: dict[str, str]) -> str:
    """Names beside their colours."""
    items = "".join(f'<span><i style="background:{ink}"></i>{escape(name)}</span>' for name, ink in inks.items())
    return f'<p class="legend">{items}</p>'


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _axes(frame: Frame, bottom: bool = True) -> str:
    parts = []
    for value in np.linspace(frame.bottom, frame.top, 5):
        y = frame.y(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:.3g}", "end"))
    if bottom:
        for value in np.linspace(frame.left, frame.right, 6):
            parts.append(_text(frame.x(value), HEIGHT - 10, f"{value:.6g}", "middle"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
