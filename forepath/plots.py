"""Plots in a terminal: where people would rather look than read."""

import plotext
from rich.text import Text

from cpdb import Communication, Forecast, Quantity, Store

HISTORY_S = 90.0
FAN_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
MBIT_PER_BYTE = 8 / 1e6


def fan(store: Store, rows: list[Forecast], now: float, trusted_s: int = 0) -> Text:
    """The pair's history (Mbit/s) and, to the right of now, the peak expected within each horizon as quantiles.

    A vertical line stands at `trusted_s`, the horizon in force (0 = not known).
    """
    pair = rows[0].pair
    ahead = sorted((row for row in rows if row.quantity is Quantity.BYTES_PEAK), key=lambda row: row.horizon_s)
    history = [row for row in store.facts.communications(now - HISTORY_S, now) if row.pair == pair]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(100, 20)
    if history:
        plotext.plot([row.t - now for row in history], [_mbit(row) for row in history], label="measured")
    for level in _levels(ahead):
        seconds = [float(row.horizon_s) for row in ahead]
        values = [row.at(level) * MBIT_PER_BYTE for row in ahead]
        plotext.plot(seconds, values, label=f"peak within, q{level * 100:.0f}", marker="braille")
    if trusted_s:
        plotext.vline(float(trusted_s))
    trusted = f", trusted {trusted_s} s ahead (line)" if trusted_s else ""
    plotext.title(f"{pair.source} -> {pair.virtual_ip}, Mbit/s{trusted}")
    plotext.xlabel("seconds from now")
    return Text.from_ansi(plotext.build())


def _levels(ahead: list[Forecast]) -> list[float]:
    """Of the levels that there are, those that a fan is drawn with."""
    known = {level for row in ahead for level in row.quantiles}
    return [level for level in FAN_LEVELS if level in known]


def _mbit(row: Communication) -> float:
    return row.bytes / row.interval_s * MBIT_PER_BYTE if row.interval_s else 0.0
