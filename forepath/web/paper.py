"""Turns what is told into HTML for people: one template a view, figures in the words of the commands."""

from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cpdb import show_mebibytes
from forepath.output import ago, rate, span
from forepath.web.address import PageAddress
from forepath.web.charts import level_of

PAPER = Environment(
    loader=PackageLoader("forepath.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_view(template: str, told: Any, address: PageAddress) -> str:
    """The HTML of a view; everything in it is escaped."""
    return PAPER.get_template(f"{template}.jinja").render(told=told, address=address, now=told["now"])


def clock(t: float | None) -> str:
    """A moment in local time, with its date where that is not today's."""
    if t is None:
        return "-"
    moment = datetime.fromtimestamp(t)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def percent(share: float | None) -> str:
    """A share for people."""
    return "-" if share is None else f"{share:.0%}"


def quantile(values: Any, level: float) -> float | None:
    """The value at a level of quantiles, None where it is not known."""
    return next((value for known, value in values.items() if abs(float(known) - level) < 1e-9), None)


PAPER.filters |= {
    "rate": rate,
    "span": span,
    "clock": clock,
    "percent": percent,
    "mebibytes": show_mebibytes,
    "level": lambda share: level_of(share)[0],
}
PAPER.globals |= {"ago": ago, "quantile": quantile}
