"""Draws the plots of a report as SVG text, to stand inside its page."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[Any]
INCHES = (8.6, 2.6)
NOT_FOR_HTML = re.compile(r'<metadata>.*?</metadata>| xmlns(:\w+)?="[^"]*"', re.DOTALL)
# Told apart by people with the common kinds of colour blindness: Okabe and Ito, 2008.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


@dataclass(frozen=True, slots=True)
class Band:
    """What lies between two curves."""

    low: Floats
    high: Floats


def line_plot(x: Floats, curves: Mapping[str, Floats], top: float | None = None, band: Band | None = None) -> str:
    """Curves (name -> values, NaN = gap) over x, from 0 or 1 up to `top`, above a shaded band if there is one."""
    figure, axes = _axes()
    if band is not None:
        axes.fill_between(x, band.low, band.high, color=COLOURS[0], alpha=0.2, linewidth=0)
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(x, values, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=name)
    axes.margins(x=0)
    if top is not None:
        axes.set_ylim(top=top)
    return _svg(figure, axes)


def bar_plot(groups: Sequence[str], values: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each group name, one bar a series name (same colour in all groups); NaN is no bar."""
    figure, axes = _axes()
    width = 0.86 / max(len(values), 1)
    for number, (name, heights) in enumerate(values.items()):
        left = np.arange(len(groups)) - 0.43 + width * (number + 0.5)
        colour, hatch = COLOURS[number % len(COLOURS)], "//" if number >= len(COLOURS) else ""
        axes.bar(left, heights, width * 0.92, color=colour, hatch=hatch, label=name)
    axes.set_xticks(range(len(groups)), groups)
    return _svg(figure, axes)


def _axes() -> "tuple[Figure, Axes]":
    # Imported here: most runs of a backtest draw nothing. A Figure of its own needs no display and no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: "Figure", axes: "Axes") -> str:
    from matplotlib import rc_context

    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    text = io.StringIO()
    # Letters stay letters, and the same figures give the same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "forepath"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    # HTML knows the namespaces by itself; what describes the file in RDF is of no use inside a page.
    return NOT_FOR_HTML.sub("", drawn[drawn.index("<svg") :])
