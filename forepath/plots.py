"""Plots in a terminal: where people would rather look than read."""

import plotext
from rich.text import Text

from cpdb import Communication, Forecast, Quantity, Store

HISTORY_S = 90.0
FAN_LEVELS = (0.1, 0.5, 0.9)
MBIT_PER_BYTE = 8 / 1e6


def fan(store: Store, rows: list[Forecast], now: float) -> Text:
    """The pair's history (Mbit/s) and, to the right of now, the peak expected within each horizon as quantiles."""
    pair = rows[0].pair
    ahead = sorted((row for row in rows if row.quantity is Quantity.BYTES_PEAK), key=lambda row: row.horizon_s)
    history = [row for row in store.facts.communications(now - HISTORY_S, now) if row.pair == pair]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(100, 20)
    if history:
        plotext.plot([row.t - now for row in history], [_mbit(row) for row in history], label="measured")
    for level in FAN_LEVELS:
        seconds = [float(row.horizon_s) for row in ahead]
        values = [row.at(level) * MBIT_PER_BYTE for row in ahead]
        plotext.plot(seconds, values, label=f"peak within, q{level * 100:.0f}", marker="braille")
    plotext.title(f"{pair.source} -> {pair.virtual_ip}, Mbit/s")
    plotext.xlabel("seconds from now")
    return Text.from_ansi(plotext.build())


def _mbit(row: Communication) -> float:
    return row.bytes / row.interval_s * MBIT_PER_BYTE if row.interval_s else 0.0
